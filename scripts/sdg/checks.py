"""Checks of a question by the corpus alone: is it about its segment, about too many of them, or about too little?"""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from scripts.sdg.filters import content_words, stem

TOO_EASY, AMBIGUOUS = "too_easy", "ambiguous"
MARKS = (TOO_EASY, AMBIGUOUS)
# A question all of whose words are in its segment, which is so far ahead of every other one, teaches little
EASY_LEAD, EASY_COVERAGE = 0.2, 0.95
# A question for which so many other passages are within this cosine of its own one has more than one answer
RIVALS, RIVAL_DISTANCE = 5, 0.02
_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class Standing:
    """How a question's own segment stands among all passages of the corpus, by the base model.

    Attributes:
        rank: From 1; one more than the number of passages where there is no own segment.
        lead: Its cosine less that of the best other passage.
        rivals: Other passages no further than ``RIVAL_DISTANCE`` below it, or above it.
    """

    rank: int
    lead: float = 0.0
    rivals: int = 0


class Coverage:
    """How much of a question its segment speaks of: the share of its content words, weighted by their rarity.

    A small model asks about things that the passage does not mention; such words are rare in the corpus or absent from
    it, so they weigh most.

    Args:
        passages: All passages of the corpus.
    """

    def __init__(self, passages: Iterable[str]) -> None:
        self._found: collections.Counter[str] = collections.Counter()
        self._passages = 0
        for text in passages:
            self._passages += 1
            self._found.update(_known(text))

    def __call__(self, question: str, passage: str) -> float:
        """From 0 to 1; 0 for a question without content words."""
        weights = {word: math.log((self._passages + 1) / (self._found[word] + 0.5)) + 0.1 for word in _stems(question)}
        known = _known(passage)
        return sum(weight for word, weight in weights.items() if word in known) / (sum(weights.values()) or 1.0)


def _stems(text: str) -> set[str]:
    return {stem(word) for word in content_words(text)}


def _known(passage: str) -> set[str]:
    """Stems of a passage's words, and of the words that its identifiers are made of."""
    parts = [part for word in content_words(passage) if "_" in word for part in word.split("_")]
    return _stems(passage) | _stems(" ".join(parts))


def marks(standing: Standing, coverage: float) -> list[str]:
    """What is noted of a question that is kept all the same."""
    noted = []
    if standing.rank == 1 and standing.lead >= EASY_LEAD and coverage >= EASY_COVERAGE:
        noted.append(TOO_EASY)
    if standing.rivals >= RIVALS:
        noted.append(AMBIGUOUS)
    return noted


def standing_of(scores: np.ndarray, own: Sequence[int]) -> Standing:
    """Standing of a question by its scores with all passages, of which ``own`` are its segments."""
    if not own:
        return Standing(len(scores) + 1)
    best = float(scores[own].max())
    others = np.delete(scores, own)
    if not len(others):
        return Standing(1, 1.0)
    rivals = int(np.count_nonzero(others >= best - RIVAL_DISTANCE))
    return Standing(1 + int(np.count_nonzero(scores > best)), best - float(others.max()), rivals)


def repeated_across(
    questions: Sequence[tuple[int, str]], vector_of: Callable[[str], np.ndarray | None], threshold: float
) -> set[int]:
    """Places of questions that are closer than ``threshold`` to an earlier one of another document.

    Args:
        questions: ``(document, question)`` in order.
        vector_of: Vector of unit length of a question, or ``None``.
        threshold: Cosine.
    """
    repeated: set[int] = set()
    kept: list[np.ndarray] = []
    owners: list[int] = []
    for start in range(0, len(questions), _BLOCK):
        block = questions[start : start + _BLOCK]
        vectors = [vector_of(question) for _, question in block]
        size = next((len(vector) for vector in vectors if vector is not None), 0)
        matrix = np.stack([np.zeros(size, np.float32) if vector is None else vector for vector in vectors])
        before = matrix @ np.stack(kept).T if kept else np.zeros((len(block), 0), np.float32)
        within = matrix @ matrix.T
        known = np.array(owners, dtype=np.int64)
        fresh: list[int] = []
        for row, (document, _) in enumerate(block):
            close = bool(np.any((before[row] > threshold) & (known != document))) or any(
                within[row, other] > threshold and block[other][0] != document for other in fresh
            )
            if close:
                repeated.add(start + row)
            elif vectors[row] is not None:
                fresh.append(row)
        kept += [matrix[row] for row in fresh]
        owners += [block[row][0] for row in fresh]
    return repeated
