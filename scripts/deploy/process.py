"""Backend ``onnx``: this project's own server as a detached process."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from scripts.common.code_digest import code_digest
from scripts.deploy.address import address
from scripts.deploy.limits import Limits
from scripts.deploy.service import TAIL_LINES, Service

ROOT = Path(__file__).parents[2]
# Start times come from the kernel's ticks and the clock, which may be corrected meanwhile
START_TOLERANCE = 5.0


class ServerProcess(Service):
    """The server of :mod:`scripts.deploy.server` in a session of its own, so that it outlives the workflow."""

    def __init__(
        self,
        *,
        model_dir: Path,
        host: str,
        port: int,
        name: str,
        threads: int,
        log_file: Path,
        limits: Limits,
        api_key_env: str | None = None,
    ) -> None:
        self.url = address(host, port)
        self.log_name = str(log_file.resolve())
        options = {"model-dir": model_dir.resolve(), "host": host, "port": port, "name": name, "threads": threads}
        arguments = [f"--{option}={value}" for option, value in options.items()] + limits.arguments()
        if api_key_env:
            # the name alone: a command line is everybody's to read
            arguments.append(f"--api-key-env={api_key_env}")
        self.command = [sys.executable, "-m", "scripts.deploy.server", *arguments]
        self.stop_seconds = limits.stop_seconds
        self._process: psutil.Popen | None = None

    def origin(self) -> dict[str, str]:
        """See :meth:`Service.origin`."""
        return {"code": code_digest("scripts/deploy/server.py", ROOT)}

    def start_line(self) -> str:
        """See :meth:`Service.start_line`; the server is found from the checkout's folder alone."""
        return f"cd {shlex.quote(str(ROOT))} && {shlex.join(self.command)}"

    def start(self) -> dict[str, Any]:
        """See :meth:`Service.start`; the log starts anew."""
        Path(self.log_name).parent.mkdir(parents=True, exist_ok=True)
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with Path(self.log_name).open("wb") as log_file:
            self._process = psutil.Popen(
                self.command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return {"pid": self._process.pid, "process_started": self._process.create_time()}

    def ended(self) -> str | None:
        """See :meth:`Service.ended`."""
        status = self._process.poll() if self._process else None
        return None if status is None else f"the server ended with exit code {status}"

    def log_tail(self) -> str:
        """See :meth:`Service.log_tail`."""
        path = Path(self.log_name)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        return "\n".join(lines[-TAIL_LINES:])

    def stop(self) -> None:
        """See :meth:`Service.stop`."""
        if self._process:
            stop_process(self._process, self.stop_seconds)


def find_process(record: dict[str, Any]) -> psutil.Process | None:
    """The process of a deployment record, if it still is that one: same id, same command, same start."""
    try:
        process = psutil.Process(record["pid"])
        same_start = abs(process.create_time() - record["process_started"]) < START_TOLERANCE
        alive = process.status() != psutil.STATUS_ZOMBIE
        return process if same_start and alive and process.cmdline()[1:] == record["command"][1:] else None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def stop_process(process: psutil.Process, seconds: float) -> None:
    """SIGTERM, so many seconds for requests under way, then SIGKILL."""
    try:
        process.terminate()
        process.wait(seconds)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait()
    except psutil.NoSuchProcess:
        pass
