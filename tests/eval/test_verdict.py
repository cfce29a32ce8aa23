"""The decision, its words, and the gates that make a workflow fail."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.common.contract import Contract
from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.eval.eval import compare_served, enforce, gather
from scripts.eval.verdict import decide

MEANS = {f"{m}@{k}": 0.5 for m in ("NDCG", "MAP", "Recall", "P", "MRR", "Hit") for k in (1, 10)}
METRICS = {
    group: {f"{prefix}@{k}": 0.5 for k in (1, 10)}
    for group, prefix in (("NDCG", "NDCG"), ("MAP", "MAP"), ("Recall", "Recall"), ("Precision", "P"))
}


def comparison(
    delta: float, low: float, high: float, *, p: float = 0.001, queries: int = 200, groups: int = 200, bm25: float = 0.1
) -> dict[str, Any]:
    row = {
        "delta": delta, "low": low, "high": high, "p": p, "p_adjusted": p, "detectable": 0.04, "queries": queries,
        "groups": groups,
    }  # fmt: skip
    return {
        "queries": queries,
        "groups": groups,
        "passages": 900,
        "confidence": 0.95,
        "primary_metric": "NDCG@10",
        "systems": {"base": MEANS, "finetuned": MEANS},
        "differences": [
            {"candidate": "finetuned", "baseline": "base", "metrics": dict.fromkeys(MEANS, row)},
            {"candidate": "finetuned", "baseline": "bm25", "metrics": {"NDCG@10": {**row, "high": bm25}}},
        ],
    }


def verdict(main: dict[str, Any], **others: dict[str, Any]) -> dict[str, Any]:
    return decide({"heldout": main, **others}, "heldout", worthwhile=0.01, fewest=30, drift=None)


@pytest.mark.parametrize(
    ("main", "decision", "words"),
    [
        (comparison(0.05, 0.02, 0.08), "ship", "surely better"),
        (comparison(0.05, 0.001, 0.08, p=0.08), "insufficient_data", "could be chance"),
        (comparison(-0.05, -0.08, -0.02), "do_not_ship", "surely worse"),
        (comparison(0.001, -0.004, 0.006, p=0.7), "do_not_ship", "no gain of 1 points"),
        # surely better, and surely by less than is worth it
        (comparison(0.003, 0.001, 0.005), "do_not_ship", "no gain of 1 points"),
        (comparison(0.02, -0.02, 0.06, p=0.3), "insufficient_data", "about 800 queries"),
        (comparison(0.5, 0.4, 0.6, queries=29), "insufficient_data", "29 queries"),
        (comparison(0.5, 0.4, 0.6, groups=9), "insufficient_data", "9 documents"),
    ],
)
def test_decisions(main: dict[str, Any], decision: str, words: str) -> None:
    found = verdict(main)
    assert found["decision"] == decision
    assert words in found["reasons"][0]


def test_the_metric_named_beforehand_needs_no_correction_for_the_others() -> None:
    named = comparison(0.02, 0.001, 0.04, p=0.04)
    for row in named["differences"][0]["metrics"].values():
        row["p_adjusted"] = 0.3
    found = decide({"heldout": named}, "heldout", worthwhile=0.01, fewest=30, drift=None)
    assert found["decision"] == "ship"
    assert "p = 0.04" in found["reasons"][0]


def test_a_set_on_which_it_is_surely_worse_forbids_shipping() -> None:
    found = verdict(comparison(0.05, 0.02, 0.08), human=comparison(-0.05, -0.08, -0.01))
    assert found["decision"] == "do_not_ship"
    assert any("human" in reason and "surely worse" in reason for reason in found["reasons"])


def test_a_set_that_says_nothing_does_not() -> None:
    found = verdict(comparison(0.05, 0.02, 0.08), human=comparison(-0.01, -0.05, 0.03, p=0.6))
    assert found["decision"] == "ship"
    assert any(reason.startswith("On human") for reason in found["reasons"])


def test_what_no_reader_should_overlook() -> None:
    found = verdict(comparison(0.05, 0.02, 0.08, groups=40, bm25=-0.01))
    assert found["decision"] == "ship"
    assert any("BM25" in reason for reason in found["reasons"])
    assert any("synthetic" in reason for reason in found["reasons"])


def test_without_a_pair_there_is_nothing_to_say() -> None:
    alone = comparison(0.05, 0.02, 0.08) | {"differences": []}
    assert verdict(alone)["decision"] == "insufficient_data"


def test_a_served_model_that_drifts_is_not_shipped() -> None:
    drift = {"within_tolerance": False}
    found = decide({"heldout": comparison(0.05, 0.02, 0.08)}, "heldout", worthwhile=0.01, fewest=30, drift=drift)
    assert found["decision"] == "do_not_ship"


GATE = {"served": "nim", "tolerance": 0.01, "low_k_tolerance": 0.03, "fail": False}


def served(ndcg1: float, ndcg10: float) -> dict[str, Any]:
    return {**METRICS, "NDCG": {"NDCG@1": ndcg1, "NDCG@10": ndcg10}}


@pytest.mark.parametrize(
    ("values", "within"), [((0.529, 0.5), True), ((0.5, 0.509), True), ((0.54, 0.5), False), ((0.5, 0.489), False)]
)
def test_drift_has_a_wider_tolerance_at_low_cut_offs(values: tuple[float, float], within: bool) -> None:
    drift = compare_served({"finetuned": METRICS, "nim": served(*values)}, GATE)
    assert drift["within_tolerance"] is within
    assert drift["kind"] == "aggregate_behavioral_metric_drift"
    assert set(drift["deltas"]) == {"NDCG", "Recall"}
    assert set(drift["deltas"]["NDCG"]["NDCG@1"]) == {"checkpoint", "nim", "delta", "tolerance", "within_tolerance"}


def test_nothing_served_nothing_compared() -> None:
    assert compare_served({"base": METRICS, "finetuned": METRICS}, GATE) is None


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    evaluations = []
    for system in ("base", "finetuned", "nim", "bm25"):
        for name in ("heldout", "human"):
            path = tmp_path / system / f"{name}.json"
            metrics = served(0.9, 0.9) if system == "nim" else METRICS
            write_json(path, {"model": system, "metrics": metrics, "means": MEANS})
            evaluations.append(path)
    comparisons = []
    for name in ("heldout", "human"):
        comparisons.append(tmp_path / "comparison" / f"{name}.json")
        write_json(comparisons[-1], {**comparison(0.05, 0.02, 0.08), "wins": ["long"]})
    return {"files": evaluations, "comparisons": comparisons}


def gathered(files: dict[str, Any], target: Path, **limits: Any) -> dict[str, Any]:
    served_contract = target.parent / "contract.json"
    Contract(
        model="tuned", weights_sha256="x", dimension=96, pooling="avg", l2_normalize=True, query_prefix="",
        passage_prefix="", query_max_length=8, passage_max_length=8, backend="nim", url="http://localhost:1",
    ).save(served_contract)  # fmt: skip
    vectors = [target.parent / "nim" / f"{side}.json" for side in ("corpus", "queries")]
    write_json(vectors[0], {"invalid_embedding_retry_requests": 2})
    # of vectors that were all in the store
    write_json(vectors[1], {})
    return gather(
        **files, target=target, served_contract=served_contract, served_vectors=vectors,
        metadata={"k_values": [1, 10], "nim_url": "http://me:hunter2@localhost:1"}, gate=GATE,
        limits={"decide_on": None, "worthwhile_gain": 0.01, "min_queries": 30, **limits},
    )  # fmt: skip


def test_the_file_keeps_the_recipes_shape(files: dict[str, Any], tmp_path: Path) -> None:
    gathered(files, tmp_path / "eval_results.json")
    results = json.loads((tmp_path / "eval_results.json").read_text())
    # a reader of upstream's file takes what does not begin with an underscore for a model
    models = {name: value for name, value in results.items() if not name.startswith("_")}
    assert set(models) == {"base", "finetuned", "nim"}
    for value in models.values():
        assert set(value) == {"NDCG", "MAP", "Recall", "Precision"}
    assert results["_metadata"]["nim_metric_comparison"]["within_tolerance"] is False
    assert results["_metadata"]["nim_diagnostics"] == {
        "api_backend": "nim",
        "requested_model": "tuned",
        "embedding_dimension": 96,
        "invalid_embedding_retry_requests": 2,
    }
    assert "hunter2" not in json.dumps(results)
    assert set(results["_comparison"]) == {"heldout", "human"}
    assert "wins" not in results["_comparison"]["human"]
    assert set(results["_test_sets"]["human"]) == {"base", "finetuned", "nim", "bm25"}
    assert results["_verdict"]["decision"] == "do_not_ship"


def test_queries_of_people_decide_unless_another_set_is_named(files: dict[str, Any], tmp_path: Path) -> None:
    target = tmp_path / "eval_results.json"
    assert gathered(files, target)["_verdict"]["test_set"] == "human"
    assert gathered(files, target, decide_on="heldout")["_verdict"]["test_set"] == "heldout"
    with pytest.raises(UserError, match=r"eval\.decide_on is humans, which is no test set; there are heldout, human"):
        gathered(files, target, decide_on="humans")


def test_a_refusal_keeps_a_copy_of_the_results(files: dict[str, Any], tmp_path: Path) -> None:
    target = tmp_path / "eval_results.json"
    results = gathered(files, target)
    enforce(results, target, fail_on_drift=False, require=None)
    with pytest.raises(UserError, match=r"eval\.require is ship, but the verdict is do_not_ship"):
        enforce(results, target, fail_on_drift=False, require="ship")
    assert json.loads((tmp_path / "refused" / "eval_results.json").read_text()) == results
    with pytest.raises(UserError, match="fail_on_nim_metric_drift"):
        enforce(results, target, fail_on_drift=True, require=None)
