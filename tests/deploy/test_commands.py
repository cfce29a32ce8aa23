"""Commands of the hand-over record: what starts NVIDIA's images and ours by hand."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from scripts.common.contract import Contract
from scripts.deploy.build import sources
from scripts.deploy.container import Container
from scripts.deploy.images import recipe
from tests.deploy.conftest import ROOT
from tests.deploy.test_deploy import options


def container(exported: Path, record: Path, **changes: Any) -> Container:
    given = options(container_name="c", host_port=8000, **changes)
    contract = Contract.load(exported / "contract.json")
    made = recipe(given, model_dir=exported, name="m", contract=contract, threads=2)
    return Container(made, given, record_file=record)


def test_commands_of_nvidias_images(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    record, cache = tmp_path / "deployment.json", tmp_path / "cache"
    common = (
        f"docker run -d --name c --shm-size 2gb -u root --label=embed-recipe.deployment={record} --stop-timeout 35 "
        "--gpus all -p 127.0.0.1:8000:8000"
    )
    nim = container(exported, record, backend="nim", ngc_api_key_env="NGC_API_KEY")
    assert nim.start_line() == (
        f"{common} -e NGC_API_KEY -e NIM_CUSTOM_MODEL=/opt/nim/custom_model -e NIM_SERVED_MODEL_NAME=m "
        f"-v {exported}:/opt/nim/custom_model:ro -v {cache}/nim:/opt/nim/.cache:rw "
        "nvcr.io/nim/nvidia/llama-3.2-nv-embedqa-1b-v2:1.10.1"
    )
    # the shell has the key under the user's name for it
    vllm = container(exported, record, backend="vllm", api_key_env="MY_KEY")
    assert vllm.start_line() == (
        f'env VLLM_API_KEY="$MY_KEY" {common} -e VLLM_API_KEY -e HF_HUB_OFFLINE=1 -v {exported}:/model:ro '
        f"-v {cache}/vllm:/root/.cache:rw nvcr.io/nvidia/vllm:26.06-py3 vllm serve /model --served-model-name m "
        "--runner pooling --host 0.0.0.0 --port 8000 --max-model-len 128"
    )


def test_several_gpus_are_quoted_for_docker(exported: Path, tmp_path: Path) -> None:
    line = container(exported, tmp_path / "r", backend="nim", gpus="device=0,1").start_line()
    assert shlex.split(line)[shlex.split(line).index("--gpus") + 1] == '"device=0,1"'
    assert "--gpus device=0 " in container(exported, tmp_path / "r", backend="nim", gpus="device=0").start_line()


def test_limits_reach_the_server_in_our_image(exported: Path, tmp_path: Path) -> None:
    limits = {**options()["limits"], "request_seconds": 300, "queue_tokens": 1000}
    ours = container(exported, tmp_path / "r", backend="container", limits=limits)
    assert ours.command[-2:] == ["--request-seconds=300", "--queue-tokens=1000"]
    assert ours.command[ours.command.index("--stop-timeout") + 1] == "325"


def test_all_that_an_image_is_made_of_decides_whether_it_is_stale(tmp_path: Path) -> None:
    (tmp_path / "a.whl").touch()
    names = [name for _, name in sources(tmp_path)]
    assert {"pyproject.toml", "scripts/common/job.py", "scripts/deploy/server.py", "wheels/a.whl"} <= set(names)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {"/output/", "/.git/", "/.venv/"} <= set(ignored)
