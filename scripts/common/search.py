"""Exact nearest-neighbour search in bounded memory."""

from collections.abc import Sequence

import numpy as np

# Scores held at once: 32 million float32 are 128 MB
SCORES_AT_ONCE = 32_000_000


def top_k(
    queries: np.ndarray, corpus: np.ndarray, k: int, *, corpus_block: int = 50_000
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` passages with the highest inner product, best first; ties fall to the lower row.

    Args:
        queries: ``[queries, dimension]`` float32.
        corpus: ``[passages, dimension]`` float32, may be memory-mapped.
        k: At most this many a query.
        corpus_block: Passages scored at once.

    Returns:
        ``(rows int64, scores float32)``, each ``[queries, min(k, passages)]``.
    """
    k = min(k, len(corpus))
    rows = np.full((len(queries), k), len(corpus), np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    step = max(1, SCORES_AT_ONCE // max(1, min(corpus_block, len(corpus))))
    for start in range(0, len(corpus), corpus_block):
        block = np.asarray(corpus[start : start + corpus_block])
        for low in range(0, len(queries), step):
            part = slice(low, low + step)
            rows[part], scores[part] = _merge(rows[part], scores[part], queries[part] @ block.T, start)
    return rows, scores


def _merge(rows: np.ndarray, scores: np.ndarray, found: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """The best ``k`` of those so far, ``[queries, k]``, and of a block's scores, ``[queries, passages]``.

    Only scores beyond the worst so far are sorted: after the first blocks these are few, and a comparison costs much
    less than a selection.
    """
    k = scores.shape[1]
    edge = scores[:, -1:]
    if np.isfinite(edge).all():
        # an equal score of a later, so higher, row does not count
        hits = found > edge
    else:
        most = min(k, found.shape[1])
        hits = found >= np.maximum(edge, np.partition(found, -most, axis=1)[:, -most, None])
    query, column = np.nonzero(hits)
    if not len(query):
        return rows, scores
    counts = np.bincount(query, minlength=len(found))
    place = k + np.arange(len(query)) - (np.cumsum(counts) - counts)[query]
    all_rows = np.full((len(found), k + counts.max()), np.iinfo(np.int64).max)
    all_scores = np.full(all_rows.shape, -np.inf, np.float32)
    all_rows[:, :k], all_scores[:, :k] = rows, scores
    all_rows[query, place], all_scores[query, place] = column + start, found[query, column]
    order = np.lexsort((all_rows, -all_scores), axis=1)[:, :k]
    return np.take_along_axis(all_rows, order, 1), np.take_along_axis(all_scores, order, 1)


def as_run(
    query_ids: Sequence[str], corpus_ids: Sequence[str], rows: np.ndarray, scores: np.ndarray
) -> dict[str, dict[str, float]]:
    """Search results as a TREC run; a passage with the query's own id is not its result."""
    return {
        query: {
            corpus_ids[row]: float(score)
            for row, score in zip(rows[index].tolist(), scores[index], strict=True)
            if corpus_ids[row] != query
        }
        for index, query in enumerate(query_ids)
    }
