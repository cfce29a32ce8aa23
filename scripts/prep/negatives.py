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
# Passages that share one maximum, by which most of a tile is passed over
GROUP = 64


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
    bars = Bars(barred)
    for block_rows, vectors in blocks:
        for start in range(0, len(block_rows), TILE):
            tile_rows, tile = block_rows[start : start + TILE], np.asarray(vectors[start : start + TILE], np.float32)
            barred_queries, barred_columns = bars.within(tile_rows)
            for low in range(0, total, query_block):
                part = slice(low, low + query_block)
                found = queries[part] @ tile.T
                first, last = np.searchsorted(barred_queries, (low, low + len(found)))
                found[barred_queries[first:last] - low, barred_columns[first:last]] = -np.inf
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


class Bars:
    """Pairs of a query and a passage that is never its candidate.

    Queries whose passages are one and the same set (the object) are kept as such: of the many questions about a long
    document, its passages are held once.
    """

    def __init__(self, barred: Sequence[set[int]]) -> None:
        number_of: dict[int, int] = {}
        distinct: list[set[int]] = []
        self._owners: list[list[int]] = []
        for query, own in enumerate(barred):
            if id(own) not in number_of:
                number_of[id(own)] = len(distinct)
                distinct.append(own)
                self._owners.append([])
            self._owners[number_of[id(own)]].append(query)
        counts = np.fromiter(map(len, distinct), np.int64, len(distinct))
        rows = np.fromiter((row for own in distinct for row in own), np.int64, counts.sum())
        order = np.argsort(rows, kind="stable")
        self._rows, self._sets = rows[order], np.repeat(np.arange(len(distinct)), counts)[order]

    def within(self, tile_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Queries (ascending) and columns of the pairs whose passages are among ``tile_rows`` (ascending)."""
        first, last = np.searchsorted(self._rows, (tile_rows[0], tile_rows[-1] + 1)) if len(tile_rows) else (0, 0)
        rows, sets = self._rows[first:last], self._sets[first:last]
        columns = np.searchsorted(tile_rows, rows)
        inside = tile_rows[columns] == rows
        sets, columns = sets[inside], columns[inside]
        counts = np.fromiter((len(self._owners[own]) for own in sets), np.int64, len(sets))
        queries = np.fromiter((query for own in sets for query in self._owners[own]), np.int64, counts.sum())
        order = np.argsort(queries, kind="stable")
        return queries[order], np.repeat(columns, counts)[order]


def _take(
    found: np.ndarray, tile_rows: np.ndarray, limits: np.ndarray, scores: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Merge a tile into the lists ``scores`` and ``rows``; returns how many passages lie above each limit.

    All but one pass over the tile, for the maxima of groups of passages, is confined to the few that can matter.
    """
    above = np.zeros(len(found), np.int64)
    best = _maxima(found)
    high = np.flatnonzero(best.max(axis=1) > limits)
    if len(high):
        lowered = found[high]
        too_high = lowered > limits[high, None]
        above[high] = too_high.sum(axis=1)
        lowered[too_high] = -np.inf
        found[high], best[high] = lowered, _maxima(lowered)
    # equal scores of later tiles have higher rows and so lose
    least = np.nextafter(scores[:, -1], np.float32(np.inf))
    active = np.flatnonzero(best.max(axis=1) >= least)
    if not len(active):
        return above
    count = scores.shape[1]
    if best.shape[1] > count:
        # so many groups have a passage of this score or more; all that tie with it stay in, for the lower row to win
        least = np.maximum(least, np.partition(best, -count, axis=1)[:, -count])
    wanted = np.flatnonzero(found[active] >= least[active, None])
    owners, columns = np.divmod(wanted, found.shape[1])
    owners_of_all = np.concatenate([np.repeat(np.arange(len(active)), count), owners])
    both = np.concatenate([scores[active].ravel(), found[active[owners], columns]])
    names = np.concatenate([rows[active].ravel(), tile_rows[columns]])
    order = np.lexsort((names, -both, owners_of_all))
    firsts = np.searchsorted(owners_of_all[order], np.arange(len(active)))
    chosen = order[firsts[:, None] + np.arange(count)]
    scores[active], rows[active] = both[chosen], names[chosen]
    return above


def _maxima(found: np.ndarray) -> np.ndarray:
    """Highest score of each group of ``GROUP`` columns (the last group is of what is left over)."""
    whole = found.shape[1] // GROUP * GROUP
    best = found[:, :whole].reshape(len(found), -1, GROUP).max(axis=2)
    if whole == found.shape[1]:
        return best
    return np.concatenate([best, found[:, whole:].max(axis=1, keepdims=True)], axis=1)
