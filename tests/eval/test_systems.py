"""Evaluation, references and comparison on a small collection, through their files."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from scripts.common.beir import read_beir
from scripts.common.contract import Contract
from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.common.metrics import Run
from scripts.common.vector_store import VectorStore
from scripts.eval.compare import compare_systems, primary_metric
from scripts.eval.evaluate import evaluate
from scripts.eval.examples import near_misses
from scripts.eval.reference import evaluate_bm25, evaluate_fusion, reciprocal_rank_fusion
from scripts.eval.results import read_per_query, read_run, write_run
from scripts.eval.slices import labels, overlaps
from tests.eval.conftest import hash_vectors

K = [1, 5, 10]


def contract(weights: str, dimension: int = 96) -> Contract:
    return Contract(
        model=".", weights_sha256=weights, dimension=dimension, pooling="avg", l2_normalize=True, query_prefix="",
        passage_prefix="", query_max_length=64, passage_max_length=128,
    )  # fmt: skip


def fill(store: Path, model: Contract, folder: Path, noise: float) -> None:
    """Vectors of a collection by a model that is the worse the more noise it has."""
    found = read_beir(folder)
    for side, texts in (("query", found.queries), ("passage", found.corpus)):
        rows = hash_vectors(list(texts.values()))
        rows = rows + noise * np.random.default_rng(len(rows)).standard_normal(rows.shape)
        with VectorStore(store, model, side).writer() as writer:
            writer.add(list(texts.values()), rows)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, collection_folder: Path) -> Path:
    """``stage3_eval`` with base, finetuned, bm25 and fusion."""
    root = tmp_path_factory.mktemp("evaluated")
    for name, noise in (("base", 0.25), ("finetuned", 0.02)):
        fill(root / "store", contract(name), collection_folder, noise)
        evaluate(
            collection_folder, root / name / "set.json", model=name, contract=contract(name), store=root / "store",
            k_values=K,
        )  # fmt: skip
    evaluate_bm25(collection_folder, root / "bm25" / "set.json", language="english", k_values=K)
    evaluate_fusion(
        collection_folder, root / "fusion" / "set.json", system="fusion", k_values=K,
        runs=[root / "finetuned" / "set.trec", root / "bm25" / "set.trec"],
    )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def compared(evaluated: Path, collection_folder: Path) -> dict:
    target = evaluated / "comparison" / "set.json"
    compare_systems(
        collection_folder,
        [evaluated / name / "set.json" for name in ("base", "finetuned", "bm25", "fusion")],
        target,
        pairs=[("finetuned", "base"), ("finetuned", "bm25")],
        k_values=K,
        confidence=0.95,
        language="english",
    )
    return json.loads(target.read_text())


def test_three_files_say_the_same(evaluated: Path, collection_folder: Path) -> None:
    result = json.loads((evaluated / "base" / "set.json").read_text())
    table = parquet.read_table(evaluated / "base" / "set.parquet")
    assert table["query"].to_pylist() == list(read_beir(collection_folder).queries)
    assert result["means"]["MRR@10"] == pytest.approx(np.mean(table["MRR@10"].to_numpy()), abs=1e-5)
    assert set(result["metrics"]) == {"NDCG", "MAP", "Recall", "Precision"}
    lines = (evaluated / "base" / "set.trec").read_text().splitlines()
    query, q0, _, rank, score, tag = lines[0].split()
    assert (q0, rank, tag) == ("Q0", "1", "base")
    assert len([line for line in lines if line.split()[0] == query]) == 10
    assert float(score) > float(lines[1].split()[4])


def test_the_run_file_gives_the_same_scores_when_read_again(evaluated: Path, collection_folder: Path) -> None:
    from scripts.common.metrics import evaluate_run

    again = evaluate_run(read_beir(collection_folder).qrels, read_run(evaluated / "finetuned" / "set.trec"), K)
    queries, values = read_per_query(evaluated / "finetuned" / "set.parquet")
    assert [again[query]["NDCG@10"] for query in queries] == values["NDCG@10"].tolist()


IDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n\r\t"), min_size=1).filter(
    lambda text: " Q0 " not in f" {text} "
)


@given(st.dictionaries(IDS, st.dictionaries(IDS, st.floats(-5, 5, width=32), min_size=1), min_size=1))
def test_runs_are_read_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, run: Run) -> None:
    path = tmp_path_factory.mktemp("run") / "x.trec"
    write_run(path, run, "tag")
    again = read_run(path)
    assert {query: list(found) for query, found in again.items()} == {query: list(f) for query, f in run.items()}
    for query, found in run.items():
        assert np.array_equal(np.float32(list(again[query].values())), np.float32(list(found.values())))


def test_a_damaged_run_file_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.trec").write_text("q Q0 d 1 0.5 t\nq Q0 d\n")
    with pytest.raises(UserError, match=r"x\.trec, line 2"):
        read_run(tmp_path / "x.trec")


def test_vectors_of_another_dimension_or_missing_ones_end_clearly(tmp_path: Path, collection_folder: Path) -> None:
    fill(tmp_path, contract("m"), collection_folder, 0.1)
    with pytest.raises(UserError, match="lacks vectors"):
        evaluate(
            collection_folder, tmp_path / "o.json", model="m", contract=contract("other"), store=tmp_path, k_values=K
        )
    manifest = tmp_path / "manifest.json"
    right = {"side": "query", "store": contract("m").key("query"), "dimension": 96}
    for change, said in (({"dimension": 7}, "7 dimensions, but .* says 96"), ({"store": "0"}, "another contract")):
        write_json(manifest, right | change)
        with pytest.raises(UserError, match=said):
            evaluate(
                collection_folder, tmp_path / "o.json", model="m", contract=contract("m"), store=tmp_path,
                k_values=K, manifests=[manifest],
            )  # fmt: skip
    assert not (tmp_path / "o.json").exists()


def test_bm25_leaves_out_what_shares_no_word(evaluated: Path) -> None:
    assert all(score > 0 for found in read_run(evaluated / "bm25" / "set.trec").values() for score in found.values())


def test_fusion_adds_reciprocal_ranks() -> None:
    fused = reciprocal_rank_fusion([{"q": {"a": 9.0, "b": 8.0}}, {"q": {"b": 0.2, "c": 0.1}, "r": {"a": 1.0}}], 2)
    assert list(fused["q"]) == ["b", "a"]
    assert fused["q"]["b"] == pytest.approx(1 / 62 + 1 / 61)
    assert fused["r"] == {"a": pytest.approx(1 / 61)}


def test_a_better_model_is_seen_to_be_better(compared: dict) -> None:
    first = compared["differences"][0]
    assert (first["candidate"], first["baseline"]) == ("finetuned", "base")
    row = first["metrics"]["NDCG@10"]
    means = {name: compared["systems"][name]["NDCG@10"] for name in ("base", "finetuned")}
    assert row["delta"] == pytest.approx(means["finetuned"] - means["base"], abs=2e-5)
    assert 0 < row["low"] < row["delta"] < row["high"]
    assert row["groups"] == 6
    assert row["queries"] == 24


def test_every_query_is_in_one_slice_of_each_property(compared: dict) -> None:
    by_property: dict[str, int] = {}
    for row in compared["breakdown"]:
        by_property[row["property"]] = by_property.get(row["property"], 0) + row["queries"]
        assert row["delta"] == pytest.approx(row["candidate"] - row["baseline"], abs=2e-5)
    assert by_property == dict.fromkeys(
        ("query_type", "hop_count", "query length", "words shared with the positive"), 24
    )


def test_wins_are_sorted_and_come_with_texts(compared: dict) -> None:
    gains = [row["candidate"] - row["baseline"] for row in compared["wins"]]
    assert gains
    assert gains == sorted(gains, reverse=True)
    assert min(gains) > 0
    first = compared["wins"][0]
    assert list(first["results"]) == ["base", "finetuned", "bm25"]
    assert first["positives"][0]["text"]
    assert first["results"]["finetuned"][0]["rank"] == 1
    assert all(row["candidate"] < row["baseline"] for row in compared["losses"])


def test_overlap_is_the_share_of_query_words_in_the_best_positive(collection_folder: Path) -> None:
    found = read_beir(collection_folder)
    shares = dict(zip(found.queries, overlaps(found, "english"), strict=True))
    assert shares["q0-0"] == 1
    assert set(labels(found, None)["query length"]) == {"01-04 words"}


def test_near_misses_are_unjudged_and_above_every_positive_in_two_systems(collection_folder: Path) -> None:
    found = read_beir(collection_folder)
    query = "q0-0"
    both = {"d0-5": 3.0, "d0-0": 2.0, "d0-6": 1.0}
    runs = {"base": {query: both}, "bm25": {query: both}, "finetuned": {query: {"d0-0": 1.0, "d0-5": 0.5}}}
    (miss,) = near_misses(found, runs, 10)
    assert (miss["query"], miss["passage"], miss["ranks"]) == (query, "d0-5", {"base": 1, "bm25": 1})


def test_systems_with_other_queries_are_refused(evaluated: Path, tmp_path: Path) -> None:
    from tests.eval.conftest import make_collection

    other = make_collection(tmp_path / "other", queries_per_topic=2)
    with pytest.raises(UserError, match="other queries"):
        compare_systems(
            other, [evaluated / "base" / "set.json"], tmp_path / "c.json", pairs=[], k_values=K, confidence=0.95,
            language=None,
        )  # fmt: skip


def test_the_primary_metric_is_ndcg_near_ten() -> None:
    assert primary_metric([1, 5, 10, 100]) == "NDCG@10"
    assert primary_metric([3, 20]) == "NDCG@3"


def test_a_system_that_finds_nothing_has_an_empty_run(tmp_path: Path) -> None:
    write_run(tmp_path / "bm25.trec", {"q": {}}, "bm25")
    assert read_run(tmp_path / "bm25.trec") == {}
