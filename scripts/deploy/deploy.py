"""Start an embeddings service, see that it works, and write down how to use and stop it."""

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripts.common.contract import Contract
from scripts.common.errors import UserError
from scripts.common.job import job, log
from scripts.common.llm import is_loopback, read_key
from scripts.common.run_lock import release_run_lock
from scripts.deploy.address import listen
from scripts.deploy.checks import is_ready, served_models, smoke_test, wait_until_ready
from scripts.deploy.container import Container
from scripts.deploy.images import model_digest, recipe
from scripts.deploy.limits import Limits
from scripts.deploy.process import ServerProcess
from scripts.deploy.service import Service, read_record, write_record
from scripts.deploy.undeploy import find_running, record_file, stop_recorded, stop_running

# What makes a running service another one
IDENTITY = ("backend", "url", "weights_sha256", "contract", "command", "code", "image_id")


def deploy(
    options: dict[str, Any],
    *,
    model_dir: Path,
    contract_file: Path,
    output_dir: str,
    corpus_id: str,
    threads: int,
    when_ready: Callable[[], None] = lambda: None,
) -> None:
    """Bring up the service that the options describe, and keep it in the foreground unless ``detach``.

    A service of ours that already serves this model at this address, and works, is kept; any other of ours is replaced.

    Args:
        options: Section ``deploy`` of the configuration.
        model_dir: Exported folder.
        contract_file: Its contract; backends ``nim`` and ``vllm`` can do without.
        output_dir: Folder of the log and of ``stage5_deploy/deployment.json``.
        corpus_id: Name the service answers to when none is configured.
        threads: Threads of our own server.
        when_ready: Called once the service is up, before it is kept in the foreground.

    Raises:
        UserError: It cannot be started, or does not work; nothing is left running then.
    """
    file = record_file(output_dir)
    key = read_key(options["api_key_env"])
    service, facts = _service(options, model_dir, contract_file, Path(output_dir), corpus_id, threads)
    service.check()
    facts |= service.origin()
    record = read_record(file)
    running = find_running(record, file, must_answer=options["backend"] != "onnx") if record else None
    if record and running and _is_same(record, facts) and _works(service, facts | {"model": record["model"]}, key):
        log.info("already running with these weights: %s, model %s. Stop it: %s", *_handoff(record))
        return
    leftover = service.leftover()
    if leftover is not None and leftover != running:
        log.info("removing a container of this deployment that no record names")
        stop_running(leftover, service.stop_seconds)
    if not (record and running and record["url"] == service.url):
        listen(options["host"], options["host_port"]).close()
    if record and running:
        log.info("replacing the service at %s", record["url"])
        stop_recorded(record, running, file)
    file.unlink(missing_ok=True)
    if not is_loopback(options["host"]) and not (key and options["backend"] != "nim"):
        log.warning("deploy.host is %s: the service has no authentication (deploy.api_key_env)", options["host"])
    with _signals_as_interrupt():
        facts = _bring_up(service, facts, options, file, output_dir)
        when_ready()
        if not options["detach"]:
            _hold(service, facts, file)


def _is_same(record: dict[str, Any], facts: dict[str, Any]) -> bool:
    return record["state"] == "ready" and all(record.get(name) == facts.get(name) for name in IDENTITY)


def _works(service: Service, facts: dict[str, Any], key: str | None) -> bool:
    """Whether a running service answers, and with this key: the key itself stands in no record."""
    if not is_ready(service):
        return False
    try:
        _smoke_test(service, facts, key)
    except UserError as error:
        log.warning("the running service does not do: %s", error)
        return False
    return True


def _smoke_test(service: Service, facts: dict[str, Any], key: str | None) -> None:
    contract = Contract(**facts["contract"]) if facts["contract"] else None
    smoke_test(service.url, facts["model"], contract, key, knows_sides=facts["backend"] != "vllm")


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
            limits=Limits(**options["limits"]),
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
        "start": service.start_line(),
        "stop_seconds": service.stop_seconds,
        "log": service.log_name,
        "contract": dataclasses.asdict(contract) if contract else None,
    }


def _bring_up(
    service: Service, facts: dict[str, Any], options: dict[str, Any], file: Path, output_dir: str
) -> dict[str, Any]:
    """Start a service and see that it works; returns what the record says of it."""
    try:
        facts = facts | service.start()
        # before it is ready, so that `undeploy` finds it even if this process is killed
        write_record(file, {"state": "starting", **facts}, output_dir)
        wait_until_ready(service, timeout=options["health_check_timeout"], interval=options["health_check_interval"])
        key = read_key(options["api_key_env"])
        # a NIM image without a configured name has one of its own
        facts["model"] = facts["model"] or next(iter(served_models(service.url, key)), options["nim_image"])
        _smoke_test(service, facts, key)
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
    return facts


def _hold(service: Service, facts: dict[str, Any], file: Path) -> None:
    """Wait until a signal comes, the workflow is gone, or another run stops the service.

    Raises:
        UserError: The service ended by itself.
    """
    log.info("in the foreground (deploy.detach=false); Ctrl-C or `snakemake undeploy` stops the service")
    parent = os.getppid()
    try:
        while os.getppid() == parent:
            reason = service.ended()
            if reason and not _is_recorded(facts, file):
                log.info("stopped by another run")
                break
            if reason:
                raise UserError(f"{reason}. The end of its log ({service.log_name}):\n{service.log_tail()}")
            time.sleep(0.5)
    except KeyboardInterrupt:
        log.info("stopping")
    finally:
        ours = _is_recorded(facts, file)
        service.stop()
        if ours:
            file.unlink(missing_ok=True)


def _is_recorded(facts: dict[str, Any], file: Path) -> bool:
    """Whether the record still is that of this service, and no other run is stopping or has replaced it."""
    record = read_record(file) or {}
    names = ("pid", "process_started", "container_id")
    return record.get("state") == "ready" and all(record.get(name) == facts.get(name) for name in names)


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
            # a service in the foreground keeps its run alive; with other targets, that run still works on files
            when_ready=lambda: release_run_lock(snakemake.config["output_dir"]) if snakemake.params.alone else None,  # noqa: F821
        )
