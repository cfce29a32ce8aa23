"""Kill -9 at random moments: the resumed run ends with the weights of an undisturbed one, bit for bit."""

import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from scripts.common.files import read_json, sha256_file, write_json
from scripts.finetune.examples import read_training_data
from tests.finetune.conftest import arguments, read_rows

WEIGHTS = "output/checkpoints/LATEST/model/consolidated/model.safetensors"


def run_in_process(call: dict[str, Any]) -> None:
    """Target of a process of its own."""
    import torch

    from scripts.finetune.finetune import finetune

    torch.set_num_threads(1)
    write_json(Path(call["output"], "finetune.json"), finetune(**call))


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes forked from a server that has imported the libraries already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scripts.finetune.finetune", "sentence_transformers", "matplotlib.figure"])
    return context


@pytest.mark.slow
def test_five_kills_change_no_bit(
    stage1: Path, tiny_model: Path, tmp_path: Path, processes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    calls = {
        name: arguments(stage1, tiny_model, tmp_path / name, rotate_negatives=True, lr_warmup_steps=1)
        for name in ("undisturbed", "killed")
    }
    undisturbed = processes.Process(target=run_in_process, args=(calls["undisturbed"],))
    undisturbed.start()
    undisturbed.join(240)
    assert undisturbed.exitcode == 0
    steps = [row["time_per_step"] for row in read_rows(tmp_path / "undisturbed/output/training.jsonl")]
    chooser = random.Random(os.environ.get("KILL_SEED", "5"))
    rows, resumed_at = tmp_path / "killed/output/training.jsonl", []
    # killed by steps, not by time alone: on a busy machine all kills came before the first state, of step 3, was saved
    for count in chooser.sample([0, 1, 2, 3, 3], 5):
        process = processes.Process(target=run_in_process, args=(calls["killed"],))
        process.start()
        rows.unlink(missing_ok=True)
        deadline = time.monotonic() + 120
        while not rows.is_file() and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        resumed_at.append(rows.read_bytes().count(b"\n"))
        wanted = min(resumed_at[-1] + count, 6)
        while rows.read_bytes().count(b"\n") < wanted and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.join(chooser.uniform(0, max(steps)))
        process.kill()
        process.join(60)
    assert any(resumed_at), "no run went on from a saved state"
    last = processes.Process(target=run_in_process, args=(calls["killed"],))
    last.start()
    last.join(240)
    assert last.exitcode == 0
    assert sha256_file(tmp_path / "killed" / WEIGHTS) == sha256_file(tmp_path / "undisturbed" / WEIGHTS)
    (state,) = (tmp_path / "killed/cache/finetune").iterdir()
    for path in (state / "weights").iterdir():
        expected = tmp_path / "undisturbed" / path.relative_to(tmp_path / "killed")
        assert sha256_file(path) == sha256_file(expected)
    results = [read_json(tmp_path / name / "output/finetune.json") for name in calls]
    assert results[0]["validation"] == results[1]["validation"]
    losses = [[row["loss"] for row in read_rows(tmp_path / name / "output/training.jsonl")] for name in calls]
    assert losses[0] == losses[1]
    assert load_file(tmp_path / "killed" / WEIGHTS)
    assert read_training_data(stage1 / "train.json").examples


def test_a_damaged_state_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from scripts.finetune.state import StateFolder

    states = StateFolder(tmp_path, {"a": 1})
    for step in (1, 2, 3):
        states.save(step, {"step": step})
    assert sorted(path.name for path in states.folder.glob("state_*")) == ["state_00000002.pt", "state_00000003.pt"]
    states.state_file(3).write_bytes(states.state_file(3).read_bytes()[:100])
    assert states.load() == {"step": 2}
    assert "cannot be read" in caplog.text
    assert StateFolder(tmp_path, {"a": 2}).load() is None
    states.protected = {2}
    for step in (4, 5, 6):
        states.save(step, {"step": step})
    assert states.state_file(2).is_file()
    assert not states.state_file(4).is_file()
