"""Second thoughts about mined negatives: near-duplicates of a positive, and what BM25 too takes for an answer."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scripts.common.progress import progress
from scripts.prep.negatives import Candidate

# A verdict on a candidate of a question (by index): the reason to refuse it, or None
Screen = Callable[[int, Candidate], str | None]


def near_positive(
    vectors_of: Callable[[Sequence[int]], np.ndarray], positives: Sequence[Sequence[int]], most: float
) -> Screen:
    """Refuse passages whose vector is as close as ``most`` (cosine) to one of the question's positives."""

    def screen(question: int, candidate: Candidate) -> str | None:
        vectors = vectors_of([candidate.row, *positives[question]])
        lengths = np.linalg.norm(vectors, axis=1)
        cosines = vectors[1:] @ vectors[0] / np.maximum(lengths[1:] * lengths[0], 1e-12)
        return "near-duplicate of a positive" if cosines.max() >= most else None

    return screen


def bm25_agreement(
    questions: Sequence[str], texts: Sequence[str], rows: Sequence[int], positives: Sequence[Sequence[int]], best: int
) -> Screen:
    """Refuse passages that BM25 has among its ``best`` and before every positive of the question.

    Two retrievers that know nothing of each other then prefer the passage to the labelled answer: more likely it
    answers the question too than that both err.
    """
    ranked = bm25_best(questions, texts, best)
    refused: list[set[int]] = []
    for found, own in zip(ranked, positives, strict=True):
        before: set[int] = set()
        for place in found:
            if rows[place] in own:
                break
            before.add(rows[place])
        refused.append(before)

    def screen(question: int, candidate: Candidate) -> str | None:
        return "BM25 prefers it to the positive" if candidate.row in refused[question] else None

    return screen


def bm25_best(questions: Sequence[str], texts: Sequence[str], best: int) -> list[list[int]]:
    """Places of the ``best`` texts by BM25 for each question, best first; texts without a common word are left out.

    Lucene's form with k1 1.5 and b 0.75, no stemming, no stop words.
    """
    import bm25s

    settings: dict[str, Any] = {"stopwords": None, "show_progress": False}
    index = bm25s.BM25(method="lucene")
    index.index(bm25s.tokenize(list(texts), **settings), show_progress=False)
    found: list[list[int]] = []
    bar = progress(len(questions), "BM25", "question")
    for start in range(0, len(questions), 1024):
        part = list(questions[start : start + 1024])
        tokens = bm25s.tokenize(part, return_ids=False, **settings)
        places, scores = index.retrieve(tokens, k=min(best, len(texts)), show_progress=False)
        found += [
            [int(place) for place, score in zip(*pair, strict=True) if score > 0]
            for pair in zip(places, scores, strict=True)
        ]
        bar.update(len(part))
    bar.close()
    return found
