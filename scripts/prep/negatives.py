"""Hard negatives of many questions at once: one pass over the passages, with one tile of scores in memory.

For a question with weakest positive score ``m``, passages scoring above ``m * margin`` (``perc``) or ``m - margin``
(``abs``) are taken for unlabelled positives and passed over; of the rest, the best ``n`` are its hard negatives (the
positive-aware mining of de Souza P. Moreira et al. 2024, "NV-Retriever", arXiv:2407.15831). Unlike the original, a list
that runs out stays short instead of being filled with rejected passages.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

# Passages of a tile: with 128 questions its float32 scores are 4 MB, which a core's caches hold
TILE = 8192


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A passage found for a question.

    Attributes:
        row: Row of the passage.
        score: Inner product with the question.
        rank: Place among all passages that are not barred, counted from 1, those above the limit included.
    """

    row: int
    score: float
    rank: int


def limit(weakest_positive: float, margin: float, kind: str) -> float:
    """Highest score a hard negative may have.

    ``perc`` takes ``1 - margin`` of the weakest positive's distance from zero off it, so that a negative cosine moves
    the limit down as a positive one does.
    """
    if kind == "abs":
        return weakest_positive - margin
    return weakest_positive - abs(weakest_positive) * (1 - margin)


def best_below(
    queries: np.ndarray,
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    limits: np.ndarray,
    barred: Sequence[set[int]],
    count: int,
    *,
    query_block: int = 128,
    advance: Callable[[int], object] = lambda _: None,
) -> list[list[Candidate]]:
    """Per query the ``count`` best passages at or below its limit and not barred, best first; ties to the lower row.

    Args:
        queries: ``[queries, dimension]`` float32.
        blocks: ``(rows int64 ascending, vectors [rows, dimension])`` of the passages, read once.
        limits: ``[queries]`` highest scores.
        barred: Rows that are never a query's candidates.
        count: At most this many a query.
        query_block: Queries scored at once.
        advance: Told the number of passages done.
    """
    total = len(queries)
    scores = np.full((total, count), -np.inf, np.float32)
    rows = np.full((total, count), -1, np.int64)
    above = np.zeros(total, np.int64)
    limits = np.asarray(limits, np.float32)
    for block_rows, vectors in blocks:
        for start in range(0, len(block_rows), TILE):
            tile_rows, tile = block_rows[start : start + TILE], np.asarray(vectors[start : start + TILE], np.float32)
            for low in range(0, total, query_block):
                part = slice(low, low + query_block)
                found = queries[part] @ tile.T
                _bar(found, tile_rows, barred[part])
                above[part] += _take(found, tile_rows, limits[part], scores[part], rows[part])
            advance(len(tile_rows))
    return [
        [
            Candidate(int(row), float(score), int(above[index]) + place)
            for place, (row, score) in enumerate(zip(rows[index], scores[index], strict=True), start=1)
            if row >= 0
        ]
        for index in range(total)
    ]


def _bar(found: np.ndarray, tile_rows: np.ndarray, barred: Sequence[set[int]]) -> None:
    for index, bars in enumerate(barred):
        if bars:
            wanted = np.fromiter(bars, np.int64, len(bars))
            places = np.searchsorted(tile_rows, wanted)
            inside = places < len(tile_rows)
            places = places[inside]
            found[index, places[tile_rows[places] == wanted[inside]]] = -np.inf


def _take(
    found: np.ndarray, tile_rows: np.ndarray, limits: np.ndarray, scores: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Merge a tile into the lists ``scores`` and ``rows``; returns how many passages lie above each limit."""
    too_high = found > limits[:, None]
    above = np.count_nonzero(too_high, axis=1)
    found[too_high] = -np.inf
    count = scores.shape[1]
    for index in np.flatnonzero((found > scores[:, -1:]).any(axis=1)):
        row = found[index]
        # equal scores of later tiles have higher rows and so lose
        places = np.flatnonzero(row > scores[index, -1])
        if len(places) > 4 * count:
            # all that tie with the last of the best stay in, so that the lower row can win below
            places = places[row[places] >= np.partition(row[places], -count)[-count]]
        both = np.concatenate([scores[index], row[places]])
        names = np.concatenate([rows[index], tile_rows[places]])
        order = np.lexsort((names, -both))[:count]
        scores[index], rows[index] = both[order], names[order]
    return above
