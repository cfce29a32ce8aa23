"""What the training data gives away of a test set: the same or nearly the same questions and answers on both sides.

Three measures, from strict to loose: equal but for case, punctuation and spacing; overlap of five-word runs; and
neighbours by the base model's vectors, which also find paraphrases. The first two should be empty; the third is normal
up to a point, as documents of one corpus resemble each other, so it is reported with its distribution.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from scripts.common.beir import TestSet
from scripts.common.near_duplicates import ShingleIndex
from scripts.common.progress import progress
from scripts.common.search import top_k, unit_length
from scripts.prep.frozen import SAME, plain

# Questions are short: two of five words more or less already halve the overlap of two ten-word questions
SAME_QUESTION = 0.5
# Cosine from which two texts are counted as neighbours
CLOSE = 0.95
EXAMPLES = 10
# Vectors of texts, float32 ``[texts, dimension]``
VectorsOf = Callable[[Sequence[str]], np.ndarray]


def leakage(
    questions: Sequence[str],
    answers: Sequence[str],
    test: TestSet,
    *,
    query_vectors: VectorsOf | None,
    passage_vectors: VectorsOf | None,
) -> dict[str, Any]:
    """Counts, shares and examples of what training and test have in common.

    Args:
        questions: Questions of training and validation.
        answers: Their positive passages.
        test: The test set; of its passages those judged relevant are looked at.
        query_vectors: The base model's vectors of questions, of both sides, or ``None`` to leave neighbours out.
        passage_vectors: Those of passages.
    """
    relevant = {name for judged in test.qrels.values() for name, score in judged.items() if score > 0}
    return {
        "questions": _common(list(dict.fromkeys(questions)), test.queries, SAME_QUESTION, query_vectors),
        "answers": _common(
            list(dict.fromkeys(answers)), {name: test.corpus[name] for name in sorted(relevant)}, SAME, passage_vectors
        ),
    }


def _common(
    training: Sequence[str], tested: Mapping[str, str], threshold: float, vectors: VectorsOf | None
) -> dict[str, Any]:
    known: dict[str, str] = {}
    for text in training:
        known.setdefault(plain(text), text)
    exact = [(name, known[plain(text)], 1.0) for name, text in tested.items() if plain(text) in known]
    found: dict[str, Any] = {
        "training": len(training),
        "test": len(tested),
        "exact": _part(exact, tested),
        "near_duplicate": {"least_overlap": threshold, **_part(_near(training, tested, threshold), tested)},
        "neighbours": None,
    }
    if vectors is not None and training and tested:
        names = list(tested)
        rows, scores = top_k(unit_length(vectors([tested[name] for name in names])), unit_length(vectors(training)), 1)
        best = scores[:, 0]
        close = [(names[i], training[int(rows[i, 0])], float(best[i])) for i in np.argsort(-best) if best[i] >= CLOSE]
        found["neighbours"] = {
            "least_cosine": CLOSE,
            **_part(close, tested),
            "nearest_cosine": {
                name: round(float(np.percentile(best, percent)), 4)
                for name, percent in (("median", 50), ("p90", 90), ("p99", 99), ("max", 100))
            },
        }
    return found


def _near(training: Sequence[str], tested: Mapping[str, str], threshold: float) -> list[tuple[str, str, float]]:
    names = list(tested)
    index = ShingleIndex([tested[name] for name in names])
    best: dict[str, tuple[str, float]] = {}
    bar = progress(len(training), "overlap with the test", "text")
    for text in training:
        for number, value, _ in index.overlaps(text):
            if value >= threshold and value > best.get(names[number], ("", 0.0))[1]:
                best[names[number]] = (text, value)
        bar.update(1)
    bar.close()
    return sorted(((name, text, value) for name, (text, value) in best.items()), key=lambda item: (-item[2], item[0]))


def _part(found: Sequence[tuple[str, str, float]], tested: Mapping[str, str]) -> dict[str, Any]:
    return {
        "count": len(found),
        "share": round(len(found) / max(1, len(tested)), 4),
        "examples": [
            {"id": name, "test": tested[name][:200], "training": text[:200], "likeness": round(value, 4)}
            for name, text, value in found[:EXAMPLES]
        ],
    }


def warnings_of(name: str, report: Mapping[str, Any]) -> list[str]:
    """What to say of a test set's leakage."""
    said = []
    for kind in ("questions", "answers"):
        part = report[kind]
        if part["exact"]["count"]:
            said.append(
                f"{part['exact']['count']} of {part['test']} {kind} of test set {name} are also in the training data: "
                "its scores are too good"
            )
        near = part["near_duplicate"]["count"] - part["exact"]["count"]
        if near > 0:
            said.append(
                f"{near} {kind} of test set {name} have near-duplicates in the training data; set "
                "prep.split_near_duplicates, or freeze the test set (prep.eval_beir_path)"
            )
    return said
