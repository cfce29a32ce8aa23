"""Start an embeddings service, see that it works, and write down how to use and stop it."""

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.common.contract import Contract
from scripts.common.errors import UserError
from scripts.common.job import job, log
from scripts.common.llm import is_loopback
from scripts.deploy.address import listen
from scripts.deploy.checks import is_ready, served_models, smoke_test, wait_until_ready
from scripts.deploy.container import Container
from scripts.deploy.images import model_digest, recipe
from scripts.deploy.process import ServerProcess
from scripts.deploy.server import key_from
from scripts.deploy.service import Service, read_record, write_record
from scripts.deploy.undeploy import find_running, record_file, stop_running

# What makes a running service another one
IDENTITY = ("backend", "url", "weights_sha256", "command")


def deploy(
    options: dict[str, Any], *, model_dir: Path, contract_file: Path, output_dir: str, corpus_id: str, threads: int
) -> None:
    """Bring up the service that the options describe, and keep it in the foreground unless ``detach``.

    A service of ours that already serves these weights at this address is kept; any other of ours is replaced.

    Args:
        options: Section ``deploy`` of the configuration.
        model_dir: Exported folder.
        contract_file: Its contract; backends ``nim`` and ``vllm`` can do without.
        output_dir: Folder of the log and of ``stage5_deploy/deployment.json``.
        corpus_id: Name the service answers to when none is configured.
        threads: Threads of our own server.

    Raises:
        UserError: It cannot be started, or does not work; nothing is left running then.
    """
    file = record_file(output_dir)
    key = key_from(options["api_key_env"])
    service, facts = _service(options, model_dir, contract_file, Path(output_dir), corpus_id, threads)
    record = read_record(file)
    running = find_running(record, file) if record else None
    if record and running and all(record.get(name) == facts[name] for name in IDENTITY) and is_ready(service):
        log.info("already running with these weights: %s, model %s. Stop it: %s", *_handoff(record))
        return
    if not (record and running and record["url"] == service.url):
        listen(options["host"], options["host_port"]).close()
    service.check()
    if running:
        log.info("replacing the service at %s", record["url"] if record else "")
        stop_running(running)
    if not is_loopback(options["host"]) and not (key and options["backend"] != "nim"):
        log.warning("deploy.host is %s: the service has no authentication (deploy.api_key_env)", options["host"])
    with _signals_as_interrupt():
        _bring_up(service, facts, options, file, output_dir)
        if not options["detach"]:
            _hold(service, file)


def _service(
    options: dict[str, Any], model_dir: Path, contract_file: Path, output_dir: Path, corpus_id: str, threads: int
) -> tuple[Service, dict[str, Any]]:
    """The service that the options describe, and what the record says of it before it starts."""
    backend, name = options["backend"], options["served_model_name"]
    service: Service
    if backend in {"onnx", "container"}:
        contract: Contract | None = Contract.load(contract_file)
    else:
        contract = Contract.load(contract_file) if contract_file.is_file() else None
    # a NIM image has a name of its own
    name = name or (None if backend == "nim" else corpus_id)
    if backend == "onnx":
        service = ServerProcess(
            model_dir=model_dir,
            host=options["host"],
            port=options["host_port"],
            name=str(name),
            threads=threads,
            log_file=output_dir / "logs" / "server.log",
            api_key_env=options["api_key_env"],
        )
        digest = contract.weights_sha256 if contract else ""
    else:
        digest = model_digest(model_dir, plan=backend == "nim" and not options["use_onnx"])
        plan = recipe(options, model_dir=model_dir, name=name, contract=contract, threads=threads)
        service = Container(plan, options, record_file=record_file(str(output_dir)))
    return service, {
        "model": name,
        "model_dir": str(model_dir.resolve()),
        "weights_sha256": digest,
        "api_key_env": options["api_key_env"],
        "backend": backend,
        "url": service.url,
        "command": service.command,
        "log": service.log_name,
        "contract": dataclasses.asdict(contract) if contract else None,
    }


def _bring_up(service: Service, facts: dict[str, Any], options: dict[str, Any], file: Path, output_dir: str) -> None:
    try:
        facts = facts | service.start()
        # before it is ready, so that `undeploy` finds it even if this process is killed
        write_record(file, {"state": "starting", **facts}, output_dir)
        wait_until_ready(service, timeout=options["health_check_timeout"], interval=options["health_check_interval"])
        # a NIM image without a configured name has one of its own
        facts["model"] = facts["model"] or next(
            iter(served_models(service.url, key_from(options["api_key_env"]))), options["nim_image"]
        )
        contract = Contract(**facts["contract"]) if facts["contract"] else None
        knows_sides = options["backend"] != "vllm"
        smoke_test(service.url, facts["model"], contract, key_from(options["api_key_env"]), knows_sides=knows_sides)
        write_record(file, {"state": "ready", **facts}, output_dir)
    except BaseException as error:
        tail = service.log_tail()
        service.stop()
        file.unlink(missing_ok=True)
        if isinstance(error, KeyboardInterrupt):
            raise UserError("interrupted; the service was stopped.") from None
        if isinstance(error, UserError) and tail:
            raise UserError(f"{error}\nIt was stopped. The end of its log ({service.log_name}):\n{tail}") from error
        raise
    record = read_record(file) or {}
    log.info("%s serves model %s. Stop it: %s", *_handoff(record))
    log.info("try it: %s", record["smoke_test"])


def _hold(service: Service, file: Path) -> None:
    """Wait until a signal comes, the workflow is gone, or the service ends by itself (:class:`UserError`)."""
    log.info("in the foreground (deploy.detach=false); Ctrl-C stops the service")
    parent = os.getppid()
    try:
        while os.getppid() == parent:
            reason = service.ended()
            if reason:
                raise UserError(f"{reason}. The end of its log ({service.log_name}):\n{service.log_tail()}")
            time.sleep(0.5)
    except KeyboardInterrupt:
        log.info("stopping")
    finally:
        service.stop()
        file.unlink(missing_ok=True)


def _handoff(record: dict[str, Any]) -> tuple[str, str, str]:
    return record["url"], record["model"], record["stop"]


@contextlib.contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        deploy(
            snakemake.params.options,  # noqa: F821
            model_dir=Path(snakemake.params.model_dir),  # noqa: F821
            contract_file=Path(snakemake.params.contract),  # noqa: F821
            output_dir=snakemake.config["output_dir"],  # noqa: F821
            corpus_id=snakemake.params.corpus_id,  # noqa: F821
            threads=snakemake.threads,  # noqa: F821
        )
