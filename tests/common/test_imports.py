"""The interpreter that rules find."""

import os
import sys
from pathlib import Path

import pytest

from scripts.common.imports import share_interpreter


def test_an_environment_that_is_not_activated_is_found_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/venv/bin/python")
    monkeypatch.setattr(sys, "prefix", "/venv")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setenv("PATH", os.pathsep.join(["/usr/bin", "/venv/bin", "/bin"]))
    share_interpreter()
    share_interpreter()
    assert os.environ["PATH"].split(os.pathsep) == ["/venv/bin", "/usr/bin", "/bin"]


def test_an_interpreter_of_the_system_changes_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setenv("PATH", str(Path("/usr/bin")))
    share_interpreter()
    assert os.environ["PATH"] == "/usr/bin"
