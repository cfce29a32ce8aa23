"""Exact search: the same as sorting all scores, whatever the blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.common import search
from scripts.common.search import as_run, top_k


@settings(max_examples=60, deadline=None)
@given(
    queries=st.integers(1, 7),
    passages=st.integers(1, 60),
    k=st.integers(1, 70),
    block=st.integers(1, 70),
    at_once=st.integers(1, 200),
    seed=st.integers(0, 99),
)
def test_equals_sorting_with_ties_to_the_lower_row(queries, passages, k, block, at_once, seed) -> None:
    random = np.random.default_rng(seed)
    # few values, so that many scores are equal
    q, d = (random.integers(-2, 3, (count, 3)).astype(np.float32) for count in (queries, passages))
    scores = q @ d.T
    wanted = np.lexsort((np.broadcast_to(np.arange(passages), scores.shape), -scores), axis=1)[:, :k]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "SCORES_AT_ONCE", at_once)
        rows, found = top_k(q, d, k, corpus_block=block)
    np.testing.assert_array_equal(rows, wanted)
    np.testing.assert_array_equal(found, np.take_along_axis(scores, wanted, 1))


def test_reads_a_memory_map_by_blocks(tmp_path) -> None:
    random = np.random.default_rng(1)
    vectors = random.standard_normal((500, 8)).astype(np.float32)
    vectors.tofile(tmp_path / "v")
    mapped = np.memmap(tmp_path / "v", np.float32, "r", shape=(500, 8))
    for plain, blocks in zip(
        top_k(vectors[:5], vectors, 10), top_k(vectors[:5], mapped, 10, corpus_block=7), strict=True
    ):
        np.testing.assert_allclose(plain, blocks, rtol=1e-5)


def test_a_query_does_not_find_itself() -> None:
    run = as_run(["a"], ["a", "b"], np.array([[0, 1]]), np.array([[0.9, 0.5]], np.float32))
    assert run == {"a": {"b": 0.5}}
