"""Starting, keeping, replacing and stopping the service as a process, and what a failure leaves behind: nothing."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from scripts.common.config import defaults
from scripts.common.contract import Contract
from scripts.common.errors import UserError
from scripts.deploy.address import address, listen
from scripts.deploy.checks import smoke_test, vector_problems
from scripts.deploy.deploy import deploy
from scripts.deploy.limits import Limits
from scripts.deploy.process import find_process
from scripts.deploy.service import read_record
from scripts.deploy.undeploy import record_file, undeploy
from tests.deploy.conftest import ROOT
from tests.outside import free_port

SECRET = "a-key-that-is-nowhere"


def options(**changes: Any) -> dict[str, Any]:
    own = {"backend": "onnx", "detach": True, "host_port": free_port(), "health_check_interval": 0.2}
    return {**defaults()["deploy"], **own, **changes}


def bring_up(exported: Path, output: Path, *, contract_file: Path | None = None, **changes: Any) -> None:
    """Deploy."""
    deploy(
        options(**changes),
        model_dir=exported,
        contract_file=contract_file or exported / "contract.json",
        output_dir=str(output),
        corpus_id="tiny",
        threads=1,
    )


def start(exported: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """Deploy; returns the record."""
    bring_up(exported, output, **changes)
    record = read_record(record_file(str(output)))
    assert record is not None
    return record


def servers_of(output: Path) -> list[psutil.Process]:
    """Running servers whose log is below this folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "scripts.deploy.server" in line and process.status() != psutil.STATUS_ZOMBIE:
            try:
                files = [f"/proc/{process.pid}/fd/1"]
                found += [process for name in files if os.readlink(name).startswith(str(output))]
            except OSError:
                continue
    return found


def test_a_deployment_is_kept_replaced_and_stopped(exported: Path, tmp_path: Path) -> None:
    port = free_port()
    first = start(exported, tmp_path, host_port=port)
    try:
        assert first["state"] == "ready"
        assert (first["model"], first["url"]) == ("tiny", f"http://127.0.0.1:{port}")
        assert first["contract"]["dimension"] == 384
        reply = subprocess.run(first["smoke_test"], shell=True, check=True, capture_output=True).stdout
        assert len(json.loads(reply)["data"][0]["embedding"]) == 384
        assert first["stop"] == f"snakemake undeploy --config output_dir={tmp_path}"
        assert "scripts.deploy.server" in first["start"]
        # the same again: nothing happens
        assert start(exported, tmp_path, host_port=port)["pid"] == first["pid"]
        assert first["stop_seconds"] == Limits().stop_seconds
        # another contract with the same weights
        changed = Path(shutil.copytree(exported, tmp_path / "changed"))
        contract = Contract.load(changed / "contract.json")
        dataclasses.replace(contract, query_prefix="ask: ").save(changed / "contract.json")
        prefixed = start(exported, tmp_path, host_port=port, contract_file=changed / "contract.json")
        assert (prefixed["pid"] != first["pid"], prefixed["contract"]["query_prefix"]) == (True, "ask: ")
        first = prefixed
        # another name: replaced
        other = start(exported, tmp_path, host_port=port, served_model_name="another")
        assert other["pid"] != first["pid"]
        assert not psutil.pid_exists(first["pid"]) or psutil.Process(first["pid"]).status() == psutil.STATUS_ZOMBIE
        assert httpx.get(f"{other['url']}/v1/models").json()["data"][0]["id"] == "another"
    finally:
        assert undeploy(str(tmp_path))
    assert not undeploy(str(tmp_path))
    assert servers_of(tmp_path) == []
    assert not record_file(str(tmp_path)).exists()


def test_a_key_is_needed_and_stands_nowhere(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", f"{SECRET} {SECRET}", f"{SECRET}ü"):
        monkeypatch.setenv("DEPLOY_TEST_KEY", value)
        with pytest.raises(UserError, match="DEPLOY_TEST_KEY") as refused:
            start(exported, tmp_path, api_key_env="DEPLOY_TEST_KEY")
        assert SECRET not in str(refused.value)
    with pytest.raises(UserError, match="does not answer") as refused:
        smoke_test("http://127.0.0.1:9", "m", None, f"{SECRET}\r")
    assert SECRET not in str(refused.value)
    # as a file with Windows line ends gives it
    monkeypatch.setenv("DEPLOY_TEST_KEY", f"{SECRET}\r")
    port = free_port()
    record = start(exported, tmp_path, api_key_env="DEPLOY_TEST_KEY", host_port=port)
    monkeypatch.setenv("DEPLOY_TEST_KEY", SECRET)
    try:
        assert httpx.get(f"{record['url']}/v1/models").status_code == 401
        reply = subprocess.run(record["smoke_test"], shell=True, check=True, capture_output=True).stdout
        assert json.loads(reply)["data"]
        written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
        assert SECRET not in written + " ".join(psutil.Process(record["pid"]).cmdline())
        assert start(exported, tmp_path, api_key_env="DEPLOY_TEST_KEY", host_port=port)["pid"] == record["pid"]
        # another key under the same name: the running service would refuse it
        monkeypatch.setenv("DEPLOY_TEST_KEY", "another-key")
        again = start(exported, tmp_path, api_key_env="DEPLOY_TEST_KEY", host_port=port)
        assert again["pid"] != record["pid"]
    finally:
        undeploy(str(tmp_path))


def test_a_taken_port_is_named_and_its_owner_left_alone(exported: Path, tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} .* in use"):
            start(exported, tmp_path, host_port=port)
    assert servers_of(tmp_path) == []


def test_a_server_that_dies_at_start_shows_the_end_of_its_log(exported: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(exported, tmp_path / "broken"))
    (broken / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"(?s)before it was ready.*end of its log.*not those of"):
        start(broken, tmp_path)
    assert servers_of(tmp_path) == []
    assert not record_file(str(tmp_path)).exists()


def test_a_server_that_is_never_ready_is_stopped(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not ready after 0\.01 s"):
        start(exported, tmp_path, health_check_timeout=0.01)
    assert servers_of(tmp_path) == []
    assert not record_file(str(tmp_path)).exists()


def test_in_the_foreground_it_lives_until_a_signal_comes(exported: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from tests.deploy.test_deploy import bring_up; "
        f"bring_up(Path({str(exported)!r}), Path({str(tmp_path)!r}), detach=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while (record := read_record(record_file(str(tmp_path))) or {}).get("state") != "ready":
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        assert httpx.get(f"{record['url']}/v1/health/ready").status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert servers_of(tmp_path) == []
    assert not record_file(str(tmp_path)).exists()


def test_a_service_in_the_foreground_that_is_undeployed_ends_well(exported: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from tests.deploy.test_deploy import bring_up; "
        f"bring_up(Path({str(exported)!r}), Path({str(tmp_path)!r}), detach=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while (read_record(record_file(str(tmp_path))) or {}).get("state") != "ready":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert undeploy(str(tmp_path))
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert servers_of(tmp_path) == []


def test_without_docker_a_process_replaces_a_former_container(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    file = record_file(str(tmp_path))
    file.parent.mkdir()
    former = {"backend": "container", "state": "ready", "container_id": "1", "container_name": "c", "url": "http://x"}
    file.write_text(json.dumps({"schema_version": 1, "machine": socket.gethostname(), "stop": "", **former}))
    # stopping it needs the engine
    with pytest.raises(UserError, match="Docker Engine does not answer"):
        undeploy(str(tmp_path))
    record = start(exported, tmp_path)
    try:
        assert record["backend"] == "onnx"
    finally:
        assert undeploy(str(tmp_path))


def test_the_start_line_of_the_record_works_from_anywhere(exported: Path, tmp_path: Path) -> None:
    port = free_port()
    record = start(exported, tmp_path, host_port=port)
    assert undeploy(str(tmp_path))
    process = subprocess.Popen(
        ["bash", "-c", record["start"].replace("&& ", "&& exec ")],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/v1/health/ready").status_code == 200
                break
            except httpx.ConnectError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        process.kill()
        process.wait()


def test_another_process_with_the_same_number_is_not_stopped(tmp_path: Path) -> None:
    me = psutil.Process()
    record = {"pid": me.pid, "process_started": me.create_time(), "command": ["x", "-m", "scripts.deploy.server"]}
    assert find_process(record) is None
    assert find_process({**record, "command": me.cmdline(), "process_started": me.create_time() - 60}) is None
    assert find_process({**record, "command": me.cmdline()}) == me


def test_records_of_other_machines_or_versions_are_not_acted_upon(tmp_path: Path) -> None:
    file = record_file(str(tmp_path))
    file.parent.mkdir()
    for content, words in (
        ('{"schema_version": 2}', "another version"),
        ('{"schema_version": 1, "machine": "elsewhere", "stop": "snakemake undeploy"}', "runs on elsewhere"),
        ("{", "line 1"),
    ):
        file.write_text(content)
        with pytest.raises(UserError, match=words):
            undeploy(str(tmp_path))


def test_addresses_and_vectors() -> None:
    assert address("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert address("::", 80) == "http://[::1]:80"
    with pytest.raises(UserError, match=r"deploy\.host"):
        listen("192.0.2.1", 80)
    assert vector_problems([], None) == ["without values"]
    assert vector_problems([1.0, float("nan")], None) == ["with values that are no finite numbers"]
    assert vector_problems([1.0, 2.0], None) == []
