"""An output folder with real evaluations of a small collection and, by choice, what other stages leave."""

from pathlib import Path
from typing import Any

from scripts.common.beir import read_beir
from scripts.common.config import resolve
from scripts.common.files import write_json, write_jsonl
from scripts.common.search import as_run, top_k
from scripts.eval.compare import compare_systems
from scripts.eval.eval import gather
from scripts.eval.evaluate import shorten
from scripts.eval.reference import evaluate_bm25
from scripts.eval.report import write_report
from scripts.eval.results import score_and_write
from tests.eval.conftest import hash_vectors, make_collection

K = [1, 5, 10]
LANGUAGE = "english"


def fill_output(output: Path, *, other_stages: bool, tuned_weights: str = "trained here") -> Path:
    """Write the report of two test sets; returns the page."""
    import numpy as np

    evaluation = output / "stage3_eval"
    names = ("heldout", "people")
    for name in names:
        folder = make_collection(output / "sets" / name, queries_per_topic=6 if name == "heldout" else 3)
        found = read_beir(folder)
        # better on one set and worse on the other, so that there are wins and losses
        noises = (0.3, 0.03) if name == "heldout" else (0.03, 0.3)
        for system, noise in zip(("base", "finetuned"), noises, strict=True):
            vectors = [hash_vectors(list(texts.values())) for texts in (found.queries, found.corpus)]
            vectors[0] = vectors[0] + noise * np.random.default_rng(1).standard_normal(vectors[0].shape)
            rows, scores = top_k(*(part.astype(np.float32) for part in vectors), 11)
            run = shorten(as_run(list(found.queries), list(found.corpus), rows, scores), 10)
            score_and_write(found, run, evaluation / system / f"{name}.json", system=system, folder=folder, k_values=K)
        evaluate_bm25(folder, evaluation / "bm25" / f"{name}.json", language=LANGUAGE, k_values=K)
        compare_systems(
            folder,
            [evaluation / system / f"{name}.json" for system in ("base", "finetuned", "bm25")],
            evaluation / "comparison" / f"{name}.json",
            pairs=[("finetuned", "base"), ("finetuned", "bm25")],
            k_values=K,
            confidence=0.95,
            language=LANGUAGE,
        )
    comparisons = [evaluation / "comparison" / f"{name}.json" for name in names]
    gather(
        [evaluation / system / f"{name}.json" for name in names for system in ("base", "finetuned", "bm25")],
        comparisons,
        evaluation / "eval_results.json",
        metadata={"base_model": "a", "finetuned_model_path": str(output / "tuned")},
        gate={"served": "nim", "tolerance": 0.01, "low_k_tolerance": 0.03, "fail": False},
        limits={"decide_on": None, "worthwhile_gain": 0.01, "min_queries": 30},
    )
    write_json(output / "tuned" / "contract.json", {"weights_sha256": tuned_weights})
    if other_stages:
        write_other_stages(output)
    page = evaluation / "report.html"
    config = resolve({"output_dir": str(output), "eval": {"nim_url": "http://user:hunter2@localhost:8000"}})
    write_report(
        evaluation / "eval_results.json", comparisons, page, evaluation / "figures", output=output, config=config,
        language=LANGUAGE,
    )  # fmt: skip
    return page


def write_other_stages(output: Path) -> None:
    """The files of other stages in their documented form."""
    steps: list[dict[str, Any]] = [{"step": step, "loss": 2.5 - 0.1 * step} for step in range(1, 9)]
    write_jsonl(output / "stage2_finetune" / "training.jsonl", steps)
    validation = [{"step": step, "share": 1.0, "ndcg@10": 0.3 + step / 50} for step in (4, 8)]
    validation.append({"step": 0, "share": 0.0, "ndcg@10": 0.3})
    summary = {"examples": 77, "validation": validation, "validation_questions": 12, "chosen": validation[1]}
    summary["weights_sha256"] = "trained here"
    write_json(output / "stage2_finetune" / "finetune.json", summary)
    rows = [
        {"pos_doc": [{"id": "a", "score": 0.5 + i / 100}], "neg_doc": [{"id": "b", "score": 0.3 + i / 100}]}
        for i in range(30)
    ]
    write_json(output / "stage1_data_prep" / "train_mined.automodel.json", {"data": rows})
    report = {
        "documents": 60,
        "pairs": 240,
        "kept_by_query_type": {"contextual": 32},
        "dropped_by_reason": {"cut off": 3, "near <duplicate>": 5},
    }
    write_json(output / "stage0_sdg" / "sdg_report.json", report)
    times = {"median": 4.2, "p95": 6.1}
    timed = {"base": {"backend": "torch", "encode_ms": times, "search_ms": times}}
    value = {"passages": 54, "queries": 50, "threads": 1, "processors": 2, "models": timed}
    write_json(output / "stage3_eval" / "latency.json", value)
