"""A real exported model, and real servers on it."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.export.export_onnx import export_onnx

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def exported(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an export."""
    folder = tmp_path_factory.mktemp("served") / "onnx"
    export_onnx(tiny_model / "contract.json", folder, opset=17, dtype="fp32", attention="eager", use_dimensions=True)
    return folder


class Server:
    """A server process; ``url`` is where it listens."""

    def __init__(self, folder: Path, log: Path, *arguments: str, **environment: str) -> None:
        self.log = log
        command = [sys.executable, "-m", "scripts.deploy.server", f"--model-dir={folder}", "--name=tiny", "--threads=1"]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, *arguments], cwd=ROOT, stdout=out, stderr=out, env={**os.environ, **environment}
            )
        deadline = time.monotonic() + 90
        while not (found := re.search(r"at (http://\S+)", log.read_text())):
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        self.url = found[1]

    def entries(self) -> list[dict[str, Any]]:
        """Log entries of requests."""
        lines = [line.partition(": ")[2] for line in self.log.read_text().splitlines()]
        return [json.loads(line) for line in lines if line.startswith("{")]


@contextlib.contextmanager
def running(folder: Path, log: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    """A server on a free port, gone afterwards."""
    server = Server(folder, log, "--port=0", *arguments, **environment)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="session")
def server(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it alive."""
    with running(exported, tmp_path_factory.mktemp("server") / "log") as started:
        yield started
