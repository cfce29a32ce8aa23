"""Two processes (gloo on CPU, started by torchrun) give the result of one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scripts.common.errors import UserError
from scripts.finetune.finetune import run
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
def test_the_message_of_a_failed_process_reaches_the_user(
    stage1: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with pytest.raises(UserError, match=r"failed at step 1: .*Lower finetune\.learning_rate"):
        run(arguments(stage1, tiny_model, tmp_path, learning_rate=1e3), 2)
