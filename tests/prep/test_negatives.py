"""The mining rule against a plain reading of it, and against sentence-transformers on a real collection."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.common.passages import Passage
from scripts.prep.mine import forbidden_rows
from scripts.prep.negatives import best_below, limit


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), passages=st.integers(1, 60), count=st.integers(1, 8), block=st.integers(1, 70))
def test_best_below_is_the_plain_rule(seed: int, passages: int, count: int, block: int) -> None:
    chooser = np.random.default_rng(seed)
    # few distinct values, so that ties occur
    corpus = chooser.integers(-2, 3, (passages, 3)).astype(np.float32)
    queries = chooser.integers(-2, 3, (5, 3)).astype(np.float32)
    limits = chooser.integers(-3, 6, 5).astype(np.float32)
    barred = [set(chooser.integers(0, passages, 3).tolist()) for _ in range(5)]
    blocks = ((np.arange(s, min(passages, s + block)), corpus[s : s + block]) for s in range(0, passages, block))
    found = best_below(queries, blocks, limits, barred, count, query_block=2)
    for query, most, bars, got in zip(queries, limits, barred, found, strict=True):
        scores = corpus @ query
        order = [row for row in np.lexsort((np.arange(passages), -scores)).tolist() if row not in bars]
        wanted = [(row, float(scores[row]), rank) for rank, row in enumerate(order, 1) if scores[row] <= most][:count]
        assert [(c.row, c.score, c.rank) for c in got] == wanted


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), passages=st.integers(1, 900), count=st.integers(1, 12), values=st.integers(2, 40))
def test_best_below_passes_over_nothing_in_large_tiles(seed: int, passages: int, count: int, values: int) -> None:
    chooser = np.random.default_rng(seed)
    corpus = chooser.integers(-values, values, (passages, 2)).astype(np.float32)
    queries = chooser.integers(-3, 4, (7, 2)).astype(np.float32)
    limits = np.append(chooser.integers(-3, 6, 6), np.inf).astype(np.float32)
    barred = [set(chooser.integers(0, passages, 40).tolist()) for _ in queries]
    # questions about one document share a set
    barred[3] = barred[5] = barred[1]
    found = best_below(queries, [(np.arange(passages), corpus)], limits, barred, count)
    for query, most, bars, got in zip(queries, limits, barred, found, strict=True):
        scores = corpus @ query
        order = [row for row in np.lexsort((np.arange(passages), -scores)).tolist() if row not in bars]
        wanted = [(row, float(scores[row]), rank) for rank, row in enumerate(order, 1) if scores[row] <= most][:count]
        assert [(c.row, c.score, c.rank) for c in got] == wanted


def test_questions_about_a_document_share_what_is_barred() -> None:
    passages = {f"p{n}": Passage(f"text {n}", [f"d{n // 50}"]) for n in range(200)}
    passages["cut"] = Passage("cut", ["d0"], training_only=True)
    passages["loose"] = Passage("loose", [])
    data = [
        {"question": f"q{n}", "pos_doc": [{"id": name}], "also_positive": also}
        for n, (name, also) in enumerate([("p0", []), ("p7", []), ("cut", ["p3"]), ("p60", []), ("p2", ["loose"])])
    ]
    rows = {name: row for row, name in enumerate(passages)}
    first = {rows[f"p{n}"] for n in range(50)} | {rows["cut"]}
    found = forbidden_rows(data, passages, same_document=False)
    assert found == [first, first, first, {rows[f"p{n}"] for n in range(50, 100)}, first | {rows["loose"]}]
    assert found[0] is found[1] is found[2]
    assert forbidden_rows(data, passages, same_document=True)[2] == {rows["cut"], rows["p3"]}


@given(score=st.floats(-1, 1), margin=st.floats(0.01, 1))
def test_the_limit_never_lies_above_the_positive(score: float, margin: float) -> None:
    assert limit(score, margin, "perc") <= score
    assert limit(score, margin, "abs") <= score


def test_limit_by_the_recipe() -> None:
    assert limit(0.8, 0.95, "perc") == pytest.approx(0.76)
    assert limit(-0.8, 0.95, "perc") == pytest.approx(-0.84)
    assert limit(0.8, 0.1, "abs") == pytest.approx(0.7)
