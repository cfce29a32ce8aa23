"""Adapters, and the other ways of changing what is trained."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scripts.common.contract import Contract
from scripts.common.encoder import load_model
from scripts.finetune.adapters import plain_weights, with_adapters
from scripts.finetune.finetune import _set_dropout, finetune
from tests.finetune.conftest import arguments, read_rows

IDS = torch.tensor([[101, 2054, 2003, 1037, 2944, 102]])


def test_merged_weights_compute_what_the_adapters_do(tiny_model: Path) -> None:
    contract = Contract.load(tiny_model / "contract.json")
    names = set(load_model(tiny_model, contract).state_dict())
    adapted = with_adapters(load_model(tiny_model, contract), 4, 8, seed=1).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.copy_(torch.randn(value.shape, generator=generator) / 10)
        expected = adapted(input_ids=IDS).last_hidden_state
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    merged = plain_weights(adapted)
    assert set(merged) == names
    assert all(torch.equal(value, before[name]) for name, value in adapted.state_dict().items())
    plain = load_model(tiny_model, contract)
    plain.load_state_dict(merged)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(input_ids=IDS).last_hidden_state, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_model_is_tuned_by_adapters_and_saved_whole(stage1: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = {"lora_rank": 8, "learning_rate": 2e-3, "interpolation_shares": []}
    result = finetune(**arguments(stage1, tiny_model, tmp_path, **options, on_no_gain="tuned"))
    assert result["chosen"]["share"] == 1
    tuned = load_file(tmp_path / "output/checkpoints/LATEST/model/consolidated/model.safetensors")
    base = load_file(tiny_model / "model.safetensors")
    assert set(tuned) == set(base)
    changed = {name for name in base if not torch.equal(tuned[name], base[name])}
    assert "encoder.layer.0.attention.self.query.weight" in changed
    assert "embeddings.word_embeddings.weight" not in changed
    rows = read_rows(tmp_path / "output/training.jsonl")
    assert sum(row["loss"] for row in rows[4:]) < sum(row["loss"] for row in rows[:4])


@pytest.mark.slow
def test_displays_checkpointing_and_short_vectors(stage1: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = {"num_epochs": 1, "gradient_checkpointing": True, "matryoshka_dimensions": [64], "select": "last"}
    result = finetune(**arguments(stage1, tiny_model, tmp_path, **options, report_to=["tensorboard"]))
    assert result["chosen"] == {"step": 4, "share": 1.0, "ndcg@10": None}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "output/tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("train/loss")]
    rows = read_rows(tmp_path / "output/training.jsonl")
    assert shown == [(row["step"], pytest.approx(row["loss"])) for row in rows]


def test_dropout_is_set_everywhere(tiny_model: Path) -> None:
    model = load_model(tiny_model, Contract.load(tiny_model / "contract.json")).train()
    first, second = model(input_ids=IDS).last_hidden_state, model(input_ids=IDS).last_hidden_state
    assert not torch.equal(first, second)
    _set_dropout(model, 0.0)
    assert torch.equal(model(input_ids=IDS).last_hidden_state, model(input_ids=IDS).last_hidden_state)
