"""Stop the service that ``deploy`` started, and nothing else."""

from pathlib import Path
from typing import Any

import psutil

from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.common.job import job, log
from scripts.deploy.container import find_container, remove
from scripts.deploy.process import find_process, stop_process
from scripts.deploy.service import STOP_SECONDS, read_record


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
        stop_recorded(record, running, file)
        log.info("stopped the service at %s", record["url"])
    else:
        log.info("the service at %s is gone already", record["url"])
        file.unlink(missing_ok=True)
    return running is not None


def record_file(output_dir: str) -> Path:
    """The hand-off record of an output folder."""
    return Path(output_dir, "stage5_deploy", "deployment.json")


def find_running(record: dict[str, Any], file: Path, *, must_answer: bool = True) -> Any | None:
    """The process or container of a record, if it still is the one that was started.

    Args:
        record: The record.
        file: Where it lies, which marks containers as ours.
        must_answer: Whether a Docker Engine that does not answer is an error; else its containers count as gone.
    """
    if record["backend"] == "onnx":
        return find_process(record)
    try:
        return find_container(record, file)
    except UserError as error:
        if must_answer:
            raise
        log.warning("the former container %s is forgotten, as %s", record["container_name"], error)
        return None


def stop_recorded(record: dict[str, Any], running: Any, file: Path) -> None:
    """Stop what :func:`find_running` found, and delete its record.

    The record says so before: a run that holds the service in the foreground then knows that this is no failure.
    """
    write_json(file, {**record, "state": "stopping"})
    stop_running(running, record.get("stop_seconds", STOP_SECONDS))
    file.unlink(missing_ok=True)


def stop_running(running: Any, seconds: int) -> None:
    """Stop a process or container, giving it so many seconds."""
    if isinstance(running, psutil.Process):
        stop_process(running, seconds)
    else:
        remove(running, seconds)


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        undeploy(snakemake.config["output_dir"])  # noqa: F821
