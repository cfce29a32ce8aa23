"""Stop the service that ``deploy`` started, and nothing else."""

from pathlib import Path
from typing import Any

import psutil

from scripts.common.job import job, log
from scripts.deploy.container import find_container, remove
from scripts.deploy.process import find_process, stop_process
from scripts.deploy.service import read_record


def undeploy(output_dir: str) -> bool:
    """Stop what ``deployment.json`` names, if it still is ours; returns whether something was stopped.

    Doing it twice is fine.

    Raises:
        UserError: The service runs on another machine, or its Docker Engine does not answer.
    """
    file = record_file(output_dir)
    record = read_record(file)
    if record is None:
        log.info("nothing is deployed from %s", output_dir)
        return False
    running = find_running(record, file)
    if running:
        stop_running(running)
        log.info("stopped the service at %s", record["url"])
    else:
        log.info("the service at %s is gone already", record["url"])
    file.unlink(missing_ok=True)
    return running is not None


def record_file(output_dir: str) -> Path:
    """The hand-off record of an output folder."""
    return Path(output_dir, "stage5_deploy", "deployment.json")


def find_running(record: dict[str, Any], file: Path) -> Any | None:
    """The process or container of a record, if it still is the one that was started."""
    return find_process(record) if record["backend"] == "onnx" else find_container(record, file)


def stop_running(running: Any) -> None:
    """Stop a process or container found by :func:`find_running`."""
    if isinstance(running, psutil.Process):
        stop_process(running)
    else:
        remove(running)


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        undeploy(snakemake.config["output_dir"])  # noqa: F821
