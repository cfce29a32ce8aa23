"""The report on stage 1: leakage is found by each measure, and numbers, figures and warnings are those of the files."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.common.beir import TestSet
from scripts.common.config import defaults
from scripts.common.contract import Contract
from scripts.common.files import write_json
from scripts.prep.leakage import leakage, warnings_of
from scripts.prep.mine import mine
from scripts.prep.prep_report import prep_report
from scripts.prep.split import split
from scripts.vectors.embed import embed
from scripts.vectors.texts import read_texts
from tests.prep.test_split import OPTIONS, articles

LONG = "the pressure over the upper side of a wing falls as the speed of the air rises along it and lift is the result"


def hashed(texts: Any) -> np.ndarray:
    """Vectors by words, so that texts of the same words in another order are neighbours."""
    rows = np.zeros((len(texts), 64), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.split():
            row[sum(map(ord, word)) % 64] += 1
    return rows


def test_each_measure_finds_its_kind() -> None:
    test = TestSet(
        corpus={"d0": LONG, "d1": "nothing in common here at all", "d2": "judged irrelevant"},
        queries={"q0": "What is LIFT?", "q1": "wing of it what lift a is", "q2": "unlike the others entirely"},
        qrels={"q0": {"d0": 1, "d2": 0}, "q1": {"d1": 1}, "q2": {"d1": 2}},
        metadata={},
    )
    found = leakage(
        ["what is lift", "what is it of a wing lift", "far away"],
        [f"{LONG} indeed", "judged irrelevant"],
        test,
        query_vectors=hashed,
        passage_vectors=hashed,
    )
    questions, answers = found["questions"], found["answers"]
    assert [item["id"] for item in questions["exact"]["examples"]] == ["q0"]
    assert questions["near_duplicate"]["count"] == 1
    assert [item["id"] for item in questions["neighbours"]["examples"]] == ["q1"], "other words' order, case aside"
    assert answers["test"] == 2, "only what is judged relevant is an answer"
    assert answers["exact"]["count"] == 0
    assert [item["id"] for item in answers["near_duplicate"]["examples"]] == ["d0"]
    assert answers["neighbours"]["nearest_cosine"]["max"] > 0.95
    said = warnings_of("t", found)
    assert any("1 of 3 questions of test set t are also in the training data" in line for line in said)
    assert any("1 answers of test set t have near-duplicates" in line for line in said)


def test_a_set_without_vectors_has_no_neighbours() -> None:
    test = TestSet(corpus={"d": "a"}, queries={"q": "b"}, qrels={"q": {"d": 1}}, metadata={})
    found = leakage(["c"], ["d"], test, query_vectors=None, passage_vectors=None)
    assert found["questions"]["neighbours"] is None
    assert warnings_of("t", found) == []


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("stage")
    records = articles(30)
    # one question too many, of a quality that is left out
    records[3]["qa_evaluations"]["evaluations"][0]["overall"]["score"] = 2
    source = folder / "source.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in records))
    root = folder / "stage1_data_prep"
    write_json(root / "split.json", split(source, root, corpus_id="c", options=OPTIONS))
    contract = tiny_model / "contract.json"
    for side, files in (
        ("query", [root / "train.json", root / "val.json", root / "eval_beir" / "queries.jsonl"]),
        ("passage", [root / "corpus" / "train.parquet", root / "eval_beir" / "corpus.jsonl"]),
    ):
        texts = read_texts(files)
        embed(texts, side, contract, folder / "m.json", store_root=folder / "v", device="cpu", token_budget=2048)
    mine(
        root / "train.json",
        root / "corpus",
        root / "train_mined.automodel.json",
        contract=Contract.load(contract),
        store=folder / "v",
        options={k: v for k, v in defaults()["prep"].items() if k.startswith(("hard_neg", "mining_search"))},
    )
    report = prep_report(
        root,
        root / "prep_report.json",
        root / "figures",
        test_sets={"heldout": root / "eval_beir"},
        contract=Contract.load(contract),
        store=folder / "v",
        embedded=["heldout"],
    )
    return root, report


def test_numbers_are_those_of_the_files(stage: tuple[Path, dict[str, Any]]) -> None:
    root, report = stage
    assert json.loads((root / "prep_report.json").read_text()) == report
    mined = json.loads((root / "train_mined.automodel.json").read_text())
    assert report["sizes"]["questions"]["train"] == len(mined["data"])
    assert sum(report["sizes"]["questions"].values()) == 29
    assert report["sizes"]["passages"] == {"searchable": 30, "training only": 0}
    assert report["left_out"] == {"below the quality threshold": 1}
    counts = report["mining"]["negatives"]["questions_by_count"]
    assert sum(counts.values()) == len(mined["data"])
    assert sum(int(n) * count for n, count in counts.items()) == sum(len(item["neg_doc"]) for item in mined["data"])
    assert report["leakage"]["heldout"]["questions"]["exact"]["count"] == 0
    assert report["leakage"]["heldout"]["answers"]["exact"]["count"] == 0
    assert report["leakage"]["heldout"]["questions"]["neighbours"]["nearest_cosine"]["max"] <= 1.0001
    assert any("training examples: expect little" in line for line in report["warnings"])
    assert any("test queries: differences" in line for line in report["warnings"])


def test_figures_have_their_numbers_beside_them(stage: tuple[Path, dict[str, Any]]) -> None:
    root, _ = stage
    names = {"scores", "negatives_per_question", "sizes", "left_out"}
    assert {path.name for path in (root / "figures").iterdir()} == {
        f"{n}.{kind}" for n in names for kind in ("svg", "csv")
    }
    with (root / "figures" / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    mined = json.loads((root / "train_mined.automodel.json").read_text())["data"]
    assert sum(int(row["positives"]) for row in rows) == sum(len(item["pos_doc"]) for item in mined)
    assert sum(int(row["negatives"]) for row in rows) == sum(len(item["neg_doc"]) for item in mined)
    assert "below the quality threshold" in (root / "figures" / "left_out.svg").read_text()
