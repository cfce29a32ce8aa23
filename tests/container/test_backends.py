"""Container backends on a real Docker Engine: built, started, asked, stopped; and everything that can be in the way."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.common.encoder import open_encoder
from scripts.common.errors import UserError
from scripts.deploy.address import listen
from scripts.deploy.container import LABEL
from scripts.deploy.undeploy import record_file, undeploy
from tests.container.conftest import HERE, IMAGE, NAME
from tests.deploy.test_deploy import start
from tests.outside import free_port

pytestmark = [pytest.mark.container, pytest.mark.slow]
SECRET = "s3cret-of-the-container"


@pytest.fixture(autouse=True)
def no_leftovers(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a container of ours behind."""
    yield
    if "engine" in request.fixturenames:
        client = request.getfixturevalue("engine")
        assert [item.name for item in client.containers.list(all=True) if LABEL in item.labels] == []


def small_image(engine: Any, tag: str, *command: str) -> str:
    """An image of Debian's static busybox alone that runs a command."""
    subprocess.run(["bash", HERE / "small_image.sh", tag, json.dumps(["/busybox", *command])], check=True)
    return tag


def test_built_started_asked_and_stopped(
    engine: Any, served: dict[str, Any], exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_TEST_KEY", SECRET)
    changes = {**served, "api_key_env": "CONTAINER_TEST_KEY", "host_port": free_port()}
    record = start(exported, tmp_path, **changes)
    try:
        container = engine.containers.get(record["container_id"])
        assert container.labels[LABEL] == str(record_file(str(tmp_path)).resolve())
        assert record["image_id"] == engine.images.get(IMAGE).id
        assert SECRET not in json.dumps(record)
        assert container.attrs["Config"]["User"] == f"{os.getuid()}:{os.getgid()}"
        assert container.attrs["HostConfig"]["ReadonlyRootfs"]
        headers = {"Authorization": f"Bearer {SECRET}"}
        body = {"model": "tiny", "input": "lift of a wing", "input_type": "query"}
        reply = httpx.post(f"{record['url']}/v1/embeddings", json=body, headers=headers)
        ours = open_encoder(exported / "contract.json").encode(["lift of a wing"], "query")[0]
        assert reply.json()["data"][0]["embedding"] == pytest.approx(ours.tolist(), abs=1e-5)
        # the same again keeps it
        assert start(exported, tmp_path, **changes)["container_id"] == record["container_id"]
        # one that was started by hand from the record, by a shell with the secret, is ours as well
        engine.containers.get(record["container_id"]).remove(force=True)
        subprocess.run(record["start"], shell=True, check=True)
        by_hand = start(exported, tmp_path, **changes)
        assert by_hand["state"] == "ready"
        # one whose record was lost is no stranger, though it holds the port
        record_file(str(tmp_path)).unlink()
        assert start(exported, tmp_path, **changes)["container_id"] != by_hand["container_id"]
    finally:
        assert undeploy(str(tmp_path))
    assert not undeploy(str(tmp_path))


def test_a_foreign_container_of_that_name_survives(
    engine: Any, served: dict[str, Any], exported: Path, tmp_path: Path
) -> None:
    image = small_image(engine, "embed-recipe-test-sleep", "sleep", "1000")
    foreign = engine.containers.run(image, name=NAME, detach=True)
    try:
        with pytest.raises(UserError, match=f"container {NAME} that this deployment did not start"):
            start(exported, tmp_path, **served)
        foreign.reload()
        assert foreign.status == "running"
    finally:
        foreign.remove(force=True)


def test_port_taken_image_missing_and_engine_down(
    engine: Any, served: dict[str, Any], exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(UserError, match="in use"):
            start(exported, tmp_path, **{**served, "host_port": taken.getsockname()[1]})
    with pytest.raises(UserError, match=r"nvcr\.io/x is not on this machine.*docker pull nvcr\.io/x"):
        start(exported, tmp_path, **{**served, "backend": "vllm", "vllm_image": "nvcr.io/x"})
    with pytest.raises(UserError, match=r"deploy\.base_image"):
        start(exported, tmp_path, **{**served, "server_image": "other", "base_image": "no-such-image:1"})
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(UserError, match=r"Docker Engine does not answer.*deploy\.backend=onnx"):
        start(exported, tmp_path, **served)


def test_a_container_that_dies_or_is_never_ready_is_removed_and_its_log_shown(
    engine: Any, served: dict[str, Any], exported: Path, tmp_path: Path
) -> None:
    dies = small_image(engine, "embed-recipe-test-dies", "sh", "-c", "echo no licence; exit 3")
    with pytest.raises(UserError, match=r"(?s)exited with exit code 3.*no licence"):
        start(exported, tmp_path, **{**served, "backend": "nim", "nim_image": dies, "gpus": "0"})
    # stops at once, as a process with the number 1 does not by itself
    sleeps = small_image(engine, "embed-recipe-test-waits", "sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait")
    with pytest.raises(UserError, match="not ready after 1 s"):
        start(
            exported,
            tmp_path,
            **{**served, "backend": "nim", "nim_image": sleeps, "gpus": "0", "health_check_timeout": 1},
        )
    assert not record_file(str(tmp_path)).exists()


def test_without_a_gpu_the_engines_refusal_is_explained(
    engine: Any, served: dict[str, Any], exported: Path, tmp_path: Path
) -> None:
    image = small_image(engine, "embed-recipe-test-sleep", "sleep", "1000")
    with pytest.raises(UserError, match=r"no GPU to give.*backend=onnx"):
        start(exported, tmp_path, **{**served, "backend": "nim", "nim_image": image, "gpus": "all"})
