"""Search through FAISS: the flat index is the plain rule, the approximate one finds nearly all of it."""

import numpy as np
import pytest

from scripts.prep.neighbours import IndexFinder, exact


@pytest.fixture(scope="module")
def clustered() -> tuple[np.ndarray, np.ndarray]:
    """20,000 unit vectors around 300 centres, as texts of many subjects have them, and 200 questions among them."""
    random = np.random.default_rng(3)
    centres = random.standard_normal((300, 64)).astype(np.float32)
    vectors = centres[random.integers(0, 300, 20_200)] + 0.6 * random.standard_normal((20_200, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[200:], vectors[:200]


def finders(passages: np.ndarray, queries: np.ndarray, *, approximate: bool) -> tuple:
    # not all rows are candidates, so that places in the index are not rows
    rows = np.arange(0, len(passages), 2)

    def blocks():
        for start in range(0, len(rows), 1500):
            part = rows[start : start + 1500]
            yield part, passages[part]

    plain = exact(blocks, len(rows), 64)
    return plain, IndexFinder(
        blocks, rows, queries, lambda chosen: passages[list(chosen)], approximate=approximate, query_block=64
    )


def barred_and_limits(passages: np.ndarray, queries: np.ndarray) -> tuple[list[set[int]], np.ndarray]:
    random = np.random.default_rng(5)
    best = np.argsort(-(queries @ passages.T), axis=1)[:, :40]
    barred = [set(random.choice(row, 6, replace=False).tolist()) for row in best]
    # limits that pass over from none to thousands
    return barred, random.uniform(0.0, 0.9, len(queries)).astype(np.float32)


def test_flat_index_is_the_exact_search(clustered: tuple[np.ndarray, np.ndarray]) -> None:
    passages, queries = clustered[0][:3000], clustered[1][:60]
    barred, limits = barred_and_limits(passages, queries)
    plain, indexed = finders(passages, queries, approximate=False)
    wanted, found = plain(queries, limits, barred, 5), indexed(queries, limits, barred, 5)
    assert [[(c.row, c.rank) for c in ours] for ours in found] == [[(c.row, c.rank) for c in ours] for ours in wanted]


def test_approximate_finds_nearly_all_of_exact(clustered: tuple[np.ndarray, np.ndarray]) -> None:
    passages, queries = clustered
    barred, limits = barred_and_limits(passages, queries)
    plain, indexed = finders(passages, queries, approximate=True)
    assert indexed.facts["probes"] < indexed.facts["lists"], "looking through everything would be no approximation"
    assert indexed.facts["recall_at_100"] >= 0.97
    # with no limit (neighbours), and with limits (hard negatives)
    for most in (np.full(len(queries), np.inf, np.float32), np.maximum(limits, 0.5)):
        wanted, found = plain(queries, most, barred, 10), indexed(queries, most, barred, 10)
        same = sum(
            len({c.row for c in ours} & {c.row for c in theirs}) for ours, theirs in zip(wanted, found, strict=True)
        )
        assert same >= 0.95 * sum(map(len, wanted))
        for query, ours, limit, bars in zip(queries, found, most, barred, strict=True):
            assert bars.isdisjoint(c.row for c in ours)
            assert all(c.score == pytest.approx(float(passages[c.row] @ query), abs=1e-5) for c in ours)
            assert all(c.score <= limit for c in ours)


def test_a_handful_of_passages_has_one_list(clustered: tuple[np.ndarray, np.ndarray]) -> None:
    passages, queries = clustered[0][:60], clustered[1][:5]
    plain, indexed = finders(passages, queries, approximate=True)
    no_limit, none = np.full(5, np.inf, np.float32), [set() for _ in range(5)]
    assert [[c.row for c in ours] for ours in indexed(queries, no_limit, none, 40)] == [
        [c.row for c in ours] for ours in plain(queries, no_limit, none, 40)
    ]
