"""Ways to find a question's best passages: exactly, by blocks, or through a FAISS index when there are millions.

On a CPU the exact search is our own (:mod:`scripts.prep.negatives`): it reads the passages from the store by blocks,
counts what lies above each limit in the same pass, and needs no list of the thousands that a limit may pass over.
FAISS's flat index wants all vectors in memory and a number of neighbours beforehand. It is the faster of the two where
52 neighbours suffice (1,000 questions x 50,000 passages x 384 values, one thread of an EPYC: 0.46 s of processor time
against 0.77 s), so memory and the exact rank, not speed, are the reason; ``python -m tests.benchmarks.mining flat``
measures both. With FAISS's GPU build and a GPU, its flat index is taken instead.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from scripts.common.job import log
from scripts.common.progress import progress
from scripts.prep.negatives import Candidate, best_below

# (queries, limits, barred rows of each, count) to candidates: see :func:`scripts.prep.negatives.best_below`
Finder = Callable[[np.ndarray, np.ndarray, Sequence[set[int]], int], list[list[Candidate]]]
# The passages' ``(rows, vectors)`` by blocks, from the start at each call
Blocks = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
# Share of the true best that the approximate search must find of a sample of the questions; as deep as limits lead
RECALL, RECALL_AT, RECALL_SAMPLE = 0.97, 100, 256
# Passages a centroid is trained with, at least 39 by FAISS's advice
PER_CENTROID = 50
# Scores of float16 vectors are this far off at most (unit vectors), and the order of so many neighbours may be
SLACK, MORE = 2e-3, 8
# FAISS on a GPU returns no more than this
MOST_ON_GPU = 2048
SEED = 20241124


def exact(blocks: Blocks, total: int, query_block: int) -> Finder:
    """The exact search over blocks of vectors, ``total`` of them."""

    def find(queries: np.ndarray, limits: np.ndarray, barred: Sequence[set[int]], count: int) -> list[list[Candidate]]:
        bar = progress(total, f"mine for {len(queries)} questions", "passage")
        found = best_below(queries, blocks(), limits, barred, count, query_block=query_block, advance=bar.update)
        bar.close()
        return found

    return find


def has_gpu() -> bool:
    """Whether FAISS is the GPU build and sees a GPU."""
    import faiss

    return getattr(faiss, "get_num_gpus", lambda: 0)() > 0


class IndexFinder:
    """A search through a FAISS index.

    Approximate is an inverted file (Sivic and Zisserman 2003; Jégou et al. 2011) of float16 vectors: 2 bytes a value
    stay in memory. The number of lists that are looked through is doubled until a sample of the questions finds 97 % of
    their true neighbours, so that the quality is measured, not assumed. Scores are computed again from the store's
    vectors. Questions whose limit passes over all that the index returns are searched exactly.

    Args:
        blocks: The passages.
        rows: Their rows, ascending.
        queries: Float32 ``[questions, dimension]``, of which a sample decides how much is looked through.
        vectors_of: Float32 vectors of given rows.
        approximate: An inverted file, or else a flat index (exact).
        query_block: Questions searched at once.
        on_gpu: Whether the index goes to the GPUs.
    """

    def __init__(
        self,
        blocks: Blocks,
        rows: np.ndarray,
        queries: np.ndarray,
        vectors_of: Callable[[Sequence[int]], np.ndarray],
        *,
        approximate: bool,
        query_block: int,
        on_gpu: bool = False,
    ) -> None:
        import faiss

        self.rows, self.query_block, self._vectors_of, self.on_gpu = rows, query_block, vectors_of, on_gpu
        dimension = queries.shape[1]
        self.facts: dict[str, Any] = {"index": "flat"}
        if approximate:
            lists = max(1, min(round(2 * math.sqrt(len(rows))), len(rows) // 39))
            flat = faiss.IndexFlatIP(dimension)
            index: Any = faiss.IndexIVFScalarQuantizer(
                flat, dimension, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
            )
            index.cp.seed = SEED
            sample = np.random.default_rng(SEED).permutation(len(rows))[: PER_CENTROID * lists]
            index.train(vectors_of(rows[np.sort(sample)].tolist()))
            self.facts = {"index": "inverted file, float16", "lists": lists}
        else:
            index = faiss.IndexFlatIP(dimension)
        bar = progress(len(rows), "index", "passage")
        for _, vectors in blocks():
            index.add(np.ascontiguousarray(vectors, np.float32))
            bar.update(len(vectors))
        bar.close()
        self.index = to_gpus(index) if self.on_gpu else index
        self._exactly = exact(blocks, len(rows), query_block)
        if approximate:
            self._look_through(blocks, queries)

    def __call__(
        self, queries: np.ndarray, limits: np.ndarray, barred: Sequence[set[int]], count: int
    ) -> list[list[Candidate]]:
        """See :func:`scripts.prep.negatives.best_below`; ranks count what the index returned."""
        found: list[list[Candidate]] = [[] for _ in queries]
        open_questions = np.arange(len(queries))
        most = min(len(self.rows), MOST_ON_GPU) if self.on_gpu else len(self.rows)
        bar = progress(len(queries), "mine", "question")
        depth = min(most, count + 32 + max(map(len, barred), default=0))
        unfilled: list[int] = []
        while len(open_questions):
            again = []
            for start in range(0, len(open_questions), self.query_block):
                part = open_questions[start : start + self.query_block]
                scores, places = self.index.search(np.ascontiguousarray(queries[part], np.float32), depth)
                for index, row_scores, row_places in zip(part.tolist(), scores, places, strict=True):
                    limit = float(limits[index])
                    ranked, whole = self._ranked(row_scores, row_places, limit, barred[index], count)
                    kept = self._below(queries[index], ranked, limit)[:count]
                    if len(kept) < count and whole and depth < most:
                        again.append(index)
                        continue
                    bar.update(1)
                    if len(kept) < count and self._has_more(whole, depth):
                        unfilled.append(index)
                        continue
                    found[index] = kept
            open_questions, depth = np.array(again, np.int64), min(most, 4 * depth)
        bar.close()
        if unfilled:
            log.info("%d questions are searched exactly: their limits pass over what the index returns", len(unfilled))
            chosen = np.array(unfilled)
            rest = self._exactly(queries[chosen], limits[chosen], [barred[i] for i in unfilled], count)
            for index, candidates in zip(unfilled, rest, strict=True):
                found[index] = candidates
        return found

    def _has_more(self, whole: bool, depth: int) -> bool:
        """Whether there are passages beyond a result list that ended."""
        return depth < len(self.rows) if whole else self.facts.get("probes", 0) < self.facts.get("lists", 0)

    def _ranked(
        self, scores: np.ndarray, places: np.ndarray, limit: float, barred: set[int], count: int
    ) -> tuple[list[Candidate], bool]:
        """Candidates near the limit and below, of one result list, and whether the list is as long as was asked for."""
        slack, wanted = (0.0, count) if self.facts["index"] == "flat" else (SLACK, count + MORE)
        ranked: list[Candidate] = []
        rank = 0
        for score, place in zip(scores.tolist(), places.tolist(), strict=True):
            if place < 0 or len(ranked) == wanted:
                break
            row = int(self.rows[place])
            if row in barred:
                continue
            rank += 1
            if score <= limit + slack:
                ranked.append(Candidate(row, score, rank))
            if slack and score > limit and ranked:
                # may yet turn out to lie above the limit
                wanted += 1
        return ranked, bool(places[-1] >= 0)

    def _below(self, query: np.ndarray, ranked: list[Candidate], limit: float) -> list[Candidate]:
        """Those of the candidates that lie below the limit by their exact scores."""
        if not ranked or self.facts["index"] == "flat":
            return ranked
        scores = (self._vectors_of([candidate.row for candidate in ranked]) @ query).tolist()
        order = sorted(range(len(ranked)), key=lambda i: (-scores[i], ranked[i].row))
        return [
            Candidate(ranked[i].row, scores[i], place.rank)
            for i, place in zip(order, ranked, strict=True)
            if scores[i] <= limit
        ]

    def _look_through(self, blocks: Blocks, queries: np.ndarray) -> None:
        chosen = np.random.default_rng(SEED).permutation(len(queries))[:RECALL_SAMPLE]
        sample = np.ascontiguousarray(queries[chosen], np.float32)
        no_limit, none_barred = np.full(len(sample), np.inf, np.float32), [set[int]() for _ in sample]
        truth = [
            {candidate.row for candidate in found}
            for found in best_below(sample, blocks(), no_limit, none_barred, RECALL_AT)
        ]
        lists, probes, recall = self.facts["lists"], min(8, self.facts["lists"]), 0.0
        while True:
            self.index.nprobe = probes
            places = self.index.search(sample, min(RECALL_AT, len(self.rows)))[1]
            hits = sum(
                len(wanted & set(self.rows[row[row >= 0]].tolist())) for wanted, row in zip(truth, places, strict=True)
            )
            recall = hits / max(1, sum(map(len, truth)))
            if recall >= RECALL or probes == lists:
                break
            probes = min(lists, 2 * probes)
        self.facts |= {"probes": probes, f"recall_at_{RECALL_AT}": round(recall, 4), "sampled_questions": len(sample)}
        log.info("approximate search: %d of %d lists looked through, recall@%d %.3f", probes, lists, RECALL_AT, recall)
        if probes > lists // 2 and lists > 64:
            log.warning("the vectors have no clusters to speak of: approximate search saves little here")


def to_gpus(index: Any) -> Any:
    """The index divided among all GPUs. Written after FAISS's documentation; not run where there was no GPU."""
    import faiss

    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    return faiss.index_cpu_to_all_gpus(index, co=options)
