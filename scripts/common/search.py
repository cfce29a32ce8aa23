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
    rows = np.zeros((len(queries), 0), np.int64)
    scores = np.zeros((len(queries), 0), np.float32)
    step = max(1, SCORES_AT_ONCE // max(1, min(corpus_block, len(corpus))))
    for start in range(0, len(corpus), corpus_block):
        block = np.asarray(corpus[start : start + corpus_block])
        found = [_best(queries[low : low + step] @ block.T, k) for low in range(0, len(queries), step)]
        rows = np.concatenate([rows, np.concatenate([part[0] for part in found]) + start], axis=1)
        scores = np.concatenate([scores, np.concatenate([part[1] for part in found])], axis=1)
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
    return rows, scores


def _best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    k = min(k, scores.shape[1])
    rows = np.argpartition(-scores, k - 1, axis=1)[:, :k].astype(np.int64)
    return rows, np.take_along_axis(scores, rows, 1)


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
