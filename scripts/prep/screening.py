"""Second thoughts about mined negatives: near-duplicates of a positive, and what BM25 or a judge has for an answer."""

from collections.abc import Callable, Sequence

import numpy as np

from scripts.common.bm25 import BM25
from scripts.common.llm import ChatModel
from scripts.common.progress import progress
from scripts.common.relevance import ANSWERS, grade
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
    questions: Sequence[str],
    texts: Sequence[str],
    rows: Sequence[int],
    positives: Sequence[Sequence[int]],
    best: int,
    language: str | None,
) -> Screen:
    """Refuse passages that BM25 has among its ``best`` and before every positive of the question.

    Two retrievers that know nothing of each other then prefer the passage to the labelled answer: more likely it
    answers the question too than that both err.
    """
    index = BM25(texts, language=language)
    refused: list[set[int]] = []
    bar = progress(len(questions), "BM25", "question")
    for start in range(0, len(questions), 1024):
        part = questions[start : start + 1024]
        places, scores = index.top_k(part, best)
        for found, values, own in zip(places.tolist(), scores, positives[start : start + 1024], strict=True):
            refused.append(_before(found, values, rows, set(own)))
        bar.update(len(part))
    bar.close()

    def screen(question: int, candidate: Candidate) -> str | None:
        return "BM25 prefers it to the positive" if candidate.row in refused[question] else None

    return screen


def judged(model: ChatModel, questions: Sequence[str], texts: Sequence[str]) -> Screen:
    """Refuse passages that the judge says answer the question; one request for each candidate that comes so far.

    Args:
        model: The judge.
        questions: Question by index.
        texts: Passage by row.
    """

    def screen(question: int, candidate: Candidate) -> str | None:
        found = grade(model, questions[question], texts[candidate.row])["grade"]
        return "the judge takes it for an answer" if found is not None and found >= ANSWERS else None

    return screen


def _before(found: Sequence[int], scores: np.ndarray, rows: Sequence[int], positives: set[int]) -> set[int]:
    """Rows that a ranking has before any positive; places without a common word (score 0) say nothing."""
    before: set[int] = set()
    for place, score in zip(found, scores, strict=True):
        if score <= 0 or rows[place] in positives:
            break
        before.add(rows[place])
    return before
