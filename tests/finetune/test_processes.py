"""Two processes (gloo on CPU, started by torchrun) give the result of one, on one node and on two."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scripts.common.errors import UserError
from scripts.finetune.finetune import run
from scripts.finetune.world import torchrun
from tests.finetune.conftest import arguments, read_rows

WEIGHTS = "output/checkpoints/LATEST/model/consolidated/model.safetensors"


@pytest.mark.slow
def test_two_processes_train_as_one(
    stage1: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = {"num_epochs": 1, "local_batch_size": 4, "train_n_passages": 3, "interpolation_shares": []}
    results = [run(arguments(stage1, tiny_model, tmp_path / str(size), **options), size) for size in (1, 2)]
    one, two = (load_file(tmp_path / size / WEIGHTS) for size in "12")
    base = load_file(tiny_model / "model.safetensors")
    moved = max(float((one[name] - base[name]).abs().max()) for name in base)
    for name in base:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=moved / 20)
    losses = [[row["loss"] for row in read_rows(tmp_path / size / "output/training.jsonl")] for size in "12"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert len(losses[0]) == 4
    assert results[0]["validation_questions"] == results[1]["validation_questions"] == 24


@pytest.mark.slow
def test_two_nodes_meet_and_train_as_one(
    stage1: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here both nodes are this machine: a few lines stand for srun, which starts its command on each node."""
    srun = tmp_path / "bin/srun"
    srun.parent.mkdir()
    srun.write_text("""#!/usr/bin/env bash
while [[ $1 == --* ]]; do [[ $1 == --ntasks=* ]] && tasks=${1#*=}; shift; done
pids=()
for ((n = 0; n < tasks; n++)); do "$@" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid" || exit 1; done
""")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    options = {"num_epochs": 1, "local_batch_size": 4, "train_n_passages": 3, "interpolation_shares": []}
    for nodes in (1, 2):
        run(arguments(stage1, tiny_model, tmp_path / str(nodes), **options), 1, nodes)
    losses = [[row["loss"] for row in read_rows(tmp_path / nodes / "output/training.jsonl")] for nodes in "12"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_several_nodes_need_a_slurm_job_that_has_them() -> None:
    with pytest.raises(UserError, match=r"num_nodes is 2, but this job has no nodes .*profiles/slurm"):
        torchrun(8, 2, {})
    with pytest.raises(UserError, match=r"num_nodes is 4, but this job has 2 nodes"):
        torchrun(8, 4, {"SLURM_JOB_NUM_NODES": "2"})
    command = torchrun(8, 2, {"SLURM_JOB_NUM_NODES": "2"})
    assert command[0] == "srun"
    assert {"--nodes=2", "--ntasks-per-node=1", "--nproc-per-node=8", "--nnodes=2"} <= set(command)
    assert "--standalone" in torchrun(8, 1, {})


@pytest.mark.slow
def test_the_message_of_a_failed_process_reaches_the_user(
    stage1: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with pytest.raises(UserError, match=r"failed at step 1: .*Lower finetune\.learning_rate"):
        run(arguments(stage1, tiny_model, tmp_path, learning_rate=1e3), 2)
