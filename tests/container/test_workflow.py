"""The workflow deploys, verifies and stops: as a process, and as a container on a real engine."""

import json
import signal
from pathlib import Path

import httpx
import pytest

from scripts.common.beir import write_beir
from scripts.deploy.container import LABEL
from tests.deploy.test_deploy import servers_of
from tests.outside import free_port
from tests.workflow.conftest import Workspace, kill_group, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def serving(fresh: Workspace, tiny_model: Path, exported: Path, tmp_path: Path) -> Workspace:
    """A checkpoint, an export and a test set of one's own: no stage before them runs."""
    words = ("wing", "heat", "shock", "layer", "nozzle", "drag")
    passages = [{"_id": f"p{n}", "title": "", "text": f"on the {word} of a body"} for n, word in enumerate(words)]
    queries = [{"_id": f"q{n}", "text": f"what is {word}"} for n, word in enumerate(words)]
    write_beir(tmp_path / "set", passages, queries, [(f"q{n}", f"p{n}", 1) for n in range(len(words))])
    return fresh.with_config(
        eval__finetuned_model_path=str(tiny_model),
        eval__eval_data_path=str(tmp_path / "set"),
        deploy__model_dir=str(exported),
        deploy__host_port=free_port(),
        deploy__health_check_interval=0.5,
    )


def deploy_verify_stop(workspace: Workspace) -> dict:
    """Returns the record of the deployment, which is gone afterwards."""
    workspace.snakemake("deploy")
    record = workspace.read("stage5_deploy/deployment.json")
    try:
        assert httpx.get(f"{record['url']}/v1/health/ready").status_code == 200
        workspace.snakemake("verify")
        found = workspace.read("stage5_deploy/verify.json")
        assert found["verified"]
        assert found["test_sets"]["heldout"]["cosine"]["passage"]["min"] > 0.9999
    finally:
        workspace.snakemake("undeploy")
    with pytest.raises(httpx.ConnectError):
        httpx.get(record["url"])
    return record


def test_as_a_process(serving: Workspace) -> None:
    record = deploy_verify_stop(serving.with_config(deploy__backend="onnx"))
    assert record["backend"] == "onnx"
    assert servers_of(serving.output) == []


def test_a_service_in_the_foreground_lets_other_runs_in(serving: Workspace) -> None:
    workspace = serving.with_config(deploy__backend="onnx", deploy__detach=False)
    record = workspace.output / "stage5_deploy/deployment.json"
    holding = workspace.start("deploy")
    try:
        wait_until(lambda: record.is_file() and json.loads(record.read_text())["state"] == "ready", 120, "ready")
        workspace.snakemake("verify")
        assert workspace.read("stage5_deploy/verify.json")["verified"]
        # the same again is kept, not held
        workspace.snakemake("deploy")
        workspace.snakemake("undeploy")
        assert holding.wait(30) == 0, holding.stdout.read() if holding.stdout else ""
    finally:
        if holding.poll() is None:
            kill_group(holding, signal.SIGTERM)
    assert servers_of(workspace.output) == []


@pytest.mark.parametrize(
    ("folder", "job"), [("variants/int8", "export_variants"), ("onnx", "export"), ("../../own", None)]
)
def test_a_folder_of_the_workflows_own_export_is_made_before_it_is_served(
    serving: Workspace, folder: str, job: str | None
) -> None:
    workspace = serving.with_config(deploy__model_dir=str(serving.output / "stage4_export" / folder))
    jobs = workspace.jobs("deploy")
    assert jobs == {"deploy": 1} if job is None else jobs[job] == 1


@pytest.mark.container
def test_as_a_container(serving: Workspace, served: dict, engine: object) -> None:
    workspace = serving.with_config(**{f"deploy__{name}": value for name, value in served.items()})
    record = deploy_verify_stop(workspace)
    assert record["image_id"].startswith("sha256:")
    assert json.dumps(record["command"]).count("docker") == 1
    assert [item.name for item in engine.containers.list(all=True) if LABEL in item.labels] == []
