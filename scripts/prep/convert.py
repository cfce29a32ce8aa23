"""Records to training examples and test queries; the corpus holds every chunk of every record."""

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from scripts.common.passages import Passage, collect, passage_id

JUDGEMENTS = ("relevance", "accuracy", "context_support", "clarity")
METADATA = (
    "query_type",
    "reasoning_type",
    "hop_count",
    "question_complexity",
    "answer",
    "hop_contexts",
    "segment_ids",
)


@dataclasses.dataclass
class Example:
    """A question with its passages.

    Attributes:
        document: Source id of its record.
        question: The question.
        positives: Ids of the passages that answer it, best first.
        also_positive: Ids of passages that answer it too and must not become negatives.
        training_only: Never a test query.
        metadata: What the test set keeps of the pair.
    """

    document: str
    question: str
    positives: list[str]
    also_positive: list[str]
    training_only: bool
    metadata: dict[str, Any]


def convert(
    records: Sequence[dict[str, Any]], *, quality_threshold: float, min_sub_score: float | None = None
) -> tuple[dict[str, Passage], list[Example], collections.Counter[str]]:
    """Passages by id, examples in record order, and how many pairs were left out for which reason.

    Args:
        records: From :func:`scripts.prep.sources.read_records`.
        quality_threshold: Lowest overall score.
        min_sub_score: Lowest score that any single judgement (relevance, accuracy, …) may have.
    """
    passages = collect((chunk["text"], record["source_id"]) for record in records for chunk in record["chunks"])
    examples: list[Example] = []
    left_out: collections.Counter[str] = collections.Counter()
    for record in records:
        texts = {chunk["chunk_id"]: chunk["text"] for chunk in record["chunks"]}
        for pair, verdict in _with_verdicts(record, left_out):
            example, reason = _example(record, pair, verdict, texts, quality_threshold, min_sub_score)
            if example is None:
                left_out[reason] += 1
                continue
            # own pairs may have any columns besides, among them one of that name
            if example.training_only and isinstance(pair.get("passage"), str):
                # a training passage of its own, made from the chunk it stands for
                cut = passage_id(pair["passage"])
                passages.setdefault(cut, Passage(pair["passage"], [record["source_id"]], training_only=True))
                example.also_positive, example.positives = example.positives, [cut]
            examples.append(example)
    return passages, examples, left_out


def _with_verdicts(
    record: dict[str, Any], left_out: collections.Counter[str]
) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    pairs, verdicts = record["pairs"], record["evaluations"]
    if verdicts is None:
        return [(pair, None) for pair in pairs]
    if len(verdicts) != len(pairs):
        # nobody can tell which verdict belongs to which pair; the document's chunks stay in the corpus
        left_out["evaluations do not match the pairs"] += len(pairs)
        return []
    return list(zip(pairs, verdicts, strict=True))


def _example(
    record: dict[str, Any],
    pair: dict[str, Any],
    verdict: dict[str, Any] | None,
    texts: dict[Any, str],
    threshold: float,
    lowest: float | None,
) -> tuple[Example | None, str]:
    score = None if verdict is None else score_of(verdict, "overall")
    if verdict is not None and score is None:
        return None, "no overall score"
    if score is not None and score < threshold:
        return None, "below the quality threshold"
    if lowest is not None and verdict is not None and _weakest(verdict) < lowest:
        return None, "a single judgement below prep.min_sub_score"
    if not pair["question"].strip():
        return None, "empty question"
    segments = list(dict.fromkeys(pair.get("segment_ids") or []))
    if not segments:
        return None, "no segment"
    if any(segment not in texts for segment in segments):
        return None, "unknown segment"
    metadata = {name: pair[name] for name in METADATA if name in pair}
    metadata |= {"quality_score": score, "file_name": record["file_name"]}
    answers = [texts[segment] for segment in segments] + list(pair.get("also_in") or [])
    positives = list(dict.fromkeys(map(passage_id, answers)))
    return Example(record["source_id"], pair["question"], positives, [], bool(pair.get("training_only")), metadata), ""


def _weakest(verdict: dict[str, Any]) -> float:
    scores = [score_of(verdict, name) for name in JUDGEMENTS]
    return min((score for score in scores if score is not None), default=10)


def score_of(verdict: dict[str, Any], name: str) -> float | None:
    """A judgement's score, ``{"score": 8}`` or the number itself; ``None`` where there is no number."""
    judged = verdict.get(name)
    score = judged.get("score") if isinstance(judged, dict) else judged
    plain = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    return score if plain else None
