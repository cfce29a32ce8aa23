"""What every kind of service can do, and the hand-off record that says which one is running."""

import abc
import json
import shlex
import socket
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json

SMOKE_TEXT = "How do I know that the service works?"
# Answers 200 once our server, or NVIDIA's, is ready
READY = "/v1/health/ready"
# Lines of its log that a failure shows
TAIL_LINES = 20
# From the signal on, before a service that names no time of its own is killed
STOP_SECONDS = 35


class Service(abc.ABC):
    """An embeddings service that was or can be started.

    Attributes:
        url: Where it is reached, without ``/v1``.
        command: What starts it, as an argument list; holds no secret.
        log_name: Where its log is.
        health_path: Answers 200 once it is ready.
        stop_seconds: Time from SIGTERM on, before it is killed.
    """

    url: str
    command: list[str]
    log_name: str
    health_path: str = READY
    stop_seconds: int = STOP_SECONDS

    def check(self) -> None:  # noqa: B027, not every service has something to check
        """See that it can be started, without a trace; :class:`UserError` when not."""

    @abc.abstractmethod
    def origin(self) -> dict[str, str]:
        """What runs, once :meth:`check` found that it can: digest of the code, or id of the image."""

    def leftover(self) -> Any | None:  # noqa: B027, most kinds cannot tell
        """One of ours, of which no record knows, that is in the way."""

    def start_line(self) -> str:
        """The shell command that does by hand what :meth:`start` does."""
        return shlex.join(self.command)

    @abc.abstractmethod
    def start(self) -> dict[str, Any]:
        """Start it; returns what finds it again (process or container id)."""

    @abc.abstractmethod
    def ended(self) -> str | None:
        """Why it no longer runs, or ``None`` while it does."""

    @abc.abstractmethod
    def log_tail(self) -> str:
        """The last lines of its log."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Stop it and wait until it is gone; fine if it already is."""


def read_record(path: Path) -> dict[str, Any] | None:
    """``deployment.json``, or ``None`` when nothing was deployed.

    Raises:
        UserError: The file is damaged, of another version, or of another machine.
    """
    if not path.is_file():
        return None
    record = read_json(path, "deployment record")
    if not isinstance(record, dict) or record.get("schema_version") != 1:
        raise UserError(
            f"deployment record {path} is of another version. Stop that service by hand and delete the file."
        )
    if record["machine"] != socket.gethostname():
        raise UserError(
            f"the service of {path} runs on {record['machine']}, this is {socket.gethostname()}. "
            f"Run `{record['stop']}` there."
        )
    return record


def write_record(path: Path, facts: dict[str, Any], output_dir: str) -> None:
    """Write ``deployment.json``: ``facts`` and how to try and to stop the service."""
    # vLLM knows no sides: its callers put the prefix in front themselves
    side = {} if facts["backend"] == "vllm" else {"input_type": "query"}
    request = json.dumps({"input": [SMOKE_TEXT], "model": facts["model"], **side})
    smoke_test = ["curl", "-s", f"{facts['url']}/v1/embeddings", "-H", "Content-Type: application/json", "-d", request]
    shown = shlex.join(smoke_test)
    if facts.get("api_key_env"):
        # the shell puts the key in; it stands in no file
        shown += f' -H "Authorization: Bearer ${facts["api_key_env"]}"'
    record = {
        "schema_version": 1,
        "machine": socket.gethostname(),
        **facts,
        "smoke_test": shown,
        "replace": "export anew and run `snakemake deploy` again: it stops this service and starts the new one",
        "stop": shlex.join(["snakemake", "undeploy", "--config", f"output_dir={output_dir}"]),
    }
    write_json(path, record)
