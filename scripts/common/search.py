"""Exact nearest-neighbour search in bounded memory."""

from collections.abc import Sequence

import numpy as np

from scripts.common.vector_store import Vectors

# Scores held at once: 16 million float32 are 64 MB, and the same 64 MB all the time (fresh pages would cost as much as
# comparing what is written to them)
SCORES_AT_ONCE = 16_000_000
# Passages of one matrix product; more would need more memory for as many queries, fewer would leave the cores waiting
TILE = 8192


def top_k(
    queries: np.ndarray, corpus: np.ndarray | Vectors, k: int, *, corpus_block: int = 50_000
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` passages with the highest inner product, best first; ties fall to the lower row.

    Only scores beyond the worst of the best so far are sorted. The first blocks are small, so that there is such a
    bound early; after them these are few, and a comparison costs much less than a selection.

    Args:
        queries: ``[queries, dimension]`` float32.
        corpus: ``[passages, dimension]`` float32, may be memory-mapped or a store's view; it is read slice by slice.
        k: At most this many a query.
        corpus_block: Passages read at once.

    Returns:
        ``(rows int64, scores float32)``, each ``[queries, min(k, passages)]``.
    """
    k = min(k, len(corpus))
    rows = np.full((len(queries), k), len(corpus), np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    tile = min(TILE, corpus_block)
    step = max(1, SCORES_AT_ONCE // tile)
    room = np.empty(min(step, len(queries)) * tile, np.float32)
    start = 0
    while k and start < len(corpus):
        block = np.asarray(corpus[start : start + min(corpus_block, max(start, tile))])
        for low in range(0, len(queries), step):
            part = slice(low, low + step)
            _search_block(queries[part], block, start, rows[part], scores[part], room)
        start += len(block)
    return rows, scores


def _search_block(
    queries: np.ndarray, block: np.ndarray, start: int, rows: np.ndarray, scores: np.ndarray, room: np.ndarray
) -> None:
    """Bring ``rows`` and ``scores``, each ``[queries, k]``, up to date with a block that begins at row ``start``."""
    k = scores.shape[1]
    tile = len(room) // len(queries)
    waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    edge = scores[:, -1:].copy()
    for left in range(0, len(block), tile):
        passages = block[left : left + tile]
        found = room[: len(queries) * len(passages)].reshape(len(queries), len(passages))
        np.matmul(queries, passages.T, out=found)
        full = bool(np.isfinite(edge).all())
        if full:
            # an equal score of a later, so higher, row does not count
            hits = found > edge
        else:
            most = min(k, len(passages))
            hits = found >= np.maximum(edge, np.partition(found, -most, axis=1)[:, -most, None])
        places = np.flatnonzero(hits)
        query, column = np.divmod(places, len(passages))
        waiting.append((query, column + (start + left), found.ravel()[places]))
        if not full or sum(len(part[0]) for part in waiting) > scores.size:
            _merge(rows, scores, waiting)
            waiting = []
            edge = scores[:, -1:].copy()
    _merge(rows, scores, waiting)


def _merge(rows: np.ndarray, scores: np.ndarray, waiting: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """Put ``(queries, rows, scores)`` of more passages, in order of rows, among the best so far, in place."""
    if not any(len(part[0]) for part in waiting):
        return
    count, k = scores.shape
    query = np.concatenate([np.repeat(np.arange(count), k), *(part[0] for part in waiting)])
    row = np.concatenate([rows.ravel(), *(part[1] for part in waiting)])
    score = np.concatenate([scores.ravel(), *(part[2] for part in waiting)])
    # one key, query before score, whose stable order is a merge of runs: what stands first is sorted already
    order = np.argsort((query.astype(np.uint64) << np.uint64(32)) | _descending(score), kind="stable")
    counts = np.bincount(query, minlength=count)
    best = order[(np.cumsum(counts) - counts)[:, None] + np.arange(k)]
    rows[:], scores[:] = row[best], score[best]


def _descending(scores: np.ndarray) -> np.ndarray:
    """Numbers below 2³² that order as the scores do, the highest first."""
    # zero has two forms, which are equal
    bits = (scores + np.float32(0)).view(np.uint32)
    # of negative numbers the bits grow with the size
    return np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF)).astype(np.uint64)


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Each vector ``[..., dimension]`` at length 1, so that inner products are cosines; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


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
