"""The main job on real documents with real parts: what it leaves behind, and that nothing runs twice."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.workflow.conftest import Workspace

pytestmark = pytest.mark.slow


def test_every_stage_leaves_its_files(workspace: Workspace) -> None:
    for path in (
        "stage0_sdg/plan.json",
        "stage0_sdg/sdg.jsonl",
        "stage0_sdg/generation_result.json",
        "stage0_sdg/sdg_report.json",
        "stage1_data_prep/train.json",
        "stage1_data_prep/val.json",
        "stage1_data_prep/corpus/train.parquet",
        "stage1_data_prep/corpus/merlin_metadata.json",
        "stage1_data_prep/eval_beir/qrels/test.tsv",
        "stage1_data_prep/train_mined.automodel.json",
        "stage1_data_prep/train_mined.automodel_unrolled.json",
        "stage2_finetune/checkpoints/LATEST/model/consolidated/model.safetensors",
        "stage2_finetune/training.jsonl",
        "stage3_eval/eval_results.json",
        "stage4_export/onnx/model.onnx",
        "stage4_export/export.json",
    ):
        assert (workspace.output / path).stat().st_size > 0, path


def test_questions_come_from_the_real_generator(workspace: Workspace) -> None:
    records = [json.loads(line) for line in (workspace.output / "stage0_sdg/sdg.jsonl").read_text().splitlines()]
    asked = [
        record for record in records if any(p["query_type"] == "contextual" for p in record["qa_generation"]["pairs"])
    ]
    assert len(records) == 30
    # a reply without a question is possible, twelve are not
    assert 0 < len(asked) <= 12
    for record in records:
        pairs, verdicts = record["deduplicated_qa_pairs"], record["qa_evaluations"]["evaluations"]
        assert len(pairs) == len(verdicts)
        known = {chunk["chunk_id"] for chunk in record["chunks"]}
        assert all(set(pair["segment_ids"]) <= known for pair in pairs)
        assert all(record["text"][c["char_start"] : c["char_end"]] == c["text"] for c in record["chunks"])


def test_results_have_the_recipes_shape(workspace: Workspace) -> None:
    results = workspace.read("stage3_eval/eval_results.json")
    for model in ("base", "finetuned"):
        assert set(results[model]) == {"NDCG", "MAP", "Recall", "Precision"}
        assert set(results[model]["Precision"]) == {"P@1", "P@5", "P@10", "P@100"}
        scores = pd.read_parquet(workspace.output / f"stage3_eval/{model}/heldout.parquet")
        assert len(scores) == results["_comparison"]["heldout"]["queries"] > 0
        assert results[model]["NDCG"]["NDCG@10"] == pytest.approx(scores["NDCG@10"].mean(), abs=1e-5)
    assert results["_metadata"]["k_values"] == [1, 5, 10, 100]


def test_the_tuned_model_loads_elsewhere_with_the_same_vectors(workspace: Workspace) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    from scripts.common.encoder import open_encoder

    folder = workspace.output / "stage2_finetune/checkpoints/LATEST/model/consolidated"
    texts = ["How is the distance between clusters measured?", "a short one"]
    ours = open_encoder(folder / "contract.json").encode(texts, "query")
    theirs = SentenceTransformer(str(folder), device="cpu").encode_query(texts)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert AutoModel.from_pretrained(folder).config.num_hidden_layers == 1
    assert not list(folder.glob("*.bin"))
    assert (folder / "README.md").read_text().startswith("---\nlibrary_name: sentence-transformers")


def test_training_changed_the_model(workspace: Workspace) -> None:
    from safetensors.numpy import load_file

    summary = workspace.read("stage2_finetune/finetune.json")
    assert not summary["base_won"]
    assert summary["validation_questions"] > 0
    tuned = workspace.output / "stage2_finetune/checkpoints/LATEST/model/consolidated/model.safetensors"
    before, after = load_file(Path(workspace.config["model"]["base_model"]) / "model.safetensors"), load_file(tuned)
    matrices = [name for name, values in before.items() if values.ndim == 2 and "position" not in name]
    assert all((after[name] != before[name]).any() for name in matrices if "pooler" not in name)
    rows = [json.loads(line) for line in (workspace.output / "stage2_finetune/training.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, summary["plan"]["total_steps"] + 1))
    assert all(np.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)


def test_export_is_verified(workspace: Workspace) -> None:
    assert workspace.read("stage4_export/export.json")["parity"]["min_cosine"] > 0.9999


def test_a_second_run_does_nothing(workspace: Workspace) -> None:
    assert workspace.jobs() == {}


def test_no_process_stays_behind(workspace: Workspace) -> None:
    import psutil

    left = [
        p.info["cmdline"]
        for p in psutil.process_iter(["cmdline"])
        if str(workspace.output) in " ".join(p.info["cmdline"] or [])
    ]
    assert left == []
