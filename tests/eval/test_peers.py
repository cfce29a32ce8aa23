"""Scores equal those of beir's EvaluateRetrieval and of ir_measures on the same vectors."""

import numpy as np
import pytest

from scripts.common.beir import TestSet
from scripts.common.metrics import evaluate_run, flat_means, mean_metrics
from scripts.common.search import as_run, top_k
from scripts.eval.evaluate import shorten
from tests.eval.conftest import hash_vectors

K = [1, 5, 10, 100]


@pytest.fixture(scope="module")
def vectors(any_collection: TestSet) -> tuple[np.ndarray, np.ndarray]:
    return (
        hash_vectors(list(any_collection.queries.values())),
        hash_vectors(list(any_collection.corpus.values())),
    )


@pytest.fixture(scope="module")
def ours(any_collection: TestSet, vectors: tuple[np.ndarray, np.ndarray]) -> dict:
    rows, scores = top_k(*vectors, max(K) + 1)
    return shorten(as_run(list(any_collection.queries), list(any_collection.corpus), rows, scores), max(K))


class Stored:
    """beir's interface of a model, over vectors that are there."""

    def __init__(self, queries: dict[str, np.ndarray], passages: dict[str, np.ndarray]) -> None:
        self.queries, self.passages = queries, passages

    def encode_queries(self, texts: list[str], **_: object) -> np.ndarray:
        return np.stack([self.queries[text] for text in texts])

    def encode_corpus(self, rows: list[dict[str, str]], **_: object) -> np.ndarray:
        return np.stack([self.passages[row["text"]] for row in rows])


def test_equal_to_beirs_own_search_and_scores(any_collection: TestSet, vectors: tuple, ours: dict) -> None:
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    model = Stored(
        dict(zip(any_collection.queries.values(), vectors[0], strict=True)),
        dict(zip(any_collection.corpus.values(), vectors[1], strict=True)),
    )
    search = EvaluateRetrieval(DenseRetrievalExactSearch(model, batch_size=64), score_function="dot", k_values=K)
    corpus = {name: {"title": "", "text": text} for name, text in any_collection.corpus.items()}
    theirs = search.retrieve(corpus, any_collection.queries)
    expected = search.evaluate(any_collection.qrels, theirs, K)
    means = mean_metrics(evaluate_run(any_collection.qrels, ours, K), K)
    for group, values in zip(("NDCG", "MAP", "Recall", "Precision"), expected, strict=True):
        assert means[group] == pytest.approx(values, abs=1.1e-5), group
    reciprocal = search.evaluate_custom(any_collection.qrels, theirs, K, metric="mrr")
    flat = flat_means(evaluate_run(any_collection.qrels, ours, K))
    for k in K:
        assert flat[f"MRR@{k}"] == pytest.approx(reciprocal[f"MRR@{k}"], abs=1.1e-5)


def test_equal_to_ir_measures(any_collection: TestSet, ours: dict) -> None:
    import ir_measures

    measures = {f"{ours}@{k}": f"{theirs}@{k}" for k in K for ours, theirs in (
        ("NDCG", "nDCG"), ("MAP", "AP"), ("Recall", "R"), ("P", "P"), ("MRR", "RR"), ("Hit", "Success"),
    )}  # fmt: skip
    parsed = {name: ir_measures.parse_measure(text) for name, text in measures.items()}
    expected = ir_measures.calc_aggregate(parsed.values(), any_collection.qrels, ours)
    means = flat_means(evaluate_run(any_collection.qrels, ours, K))
    assert set(means) == set(parsed)
    for name, measure in parsed.items():
        assert means[name] == pytest.approx(expected[measure], abs=1e-5), name


def test_a_query_without_a_ranking_counts_as_zero(collection: TestSet) -> None:
    perfect = {query: {p: float(score) for p, score in judged.items()} for query, judged in collection.qrels.items()}
    full = flat_means(evaluate_run(collection.qrels, perfect, K))
    assert full["NDCG@10"] == 1
    half = dict(list(perfect.items())[: len(perfect) // 2])
    assert flat_means(evaluate_run(collection.qrels, half, K))["NDCG@10"] == 0.5


def test_one_query_works(collection: TestSet) -> None:
    query = next(iter(collection.queries))
    qrels = {query: collection.qrels[query]}
    rows, scores = top_k(hash_vectors([collection.queries[query]]), hash_vectors(list(collection.corpus.values())), 11)
    run = as_run([query], list(collection.corpus), rows, scores)
    assert 0 < flat_means(evaluate_run(qrels, run, [1, 10]))["Recall@10"] <= 1


def test_reciprocal_rank_ends_at_the_cut_off() -> None:
    run = {"q": {f"d{i}": 100.0 - i for i in range(1, 21)}}
    values = evaluate_run({"q": {"d11": 1}}, run, [10, 11])["q"]
    assert values["MRR@10"] == 0
    assert values["MRR@11"] == pytest.approx(1 / 11)
    assert (values["Hit@10"], values["Hit@11"]) == (0, 1)
