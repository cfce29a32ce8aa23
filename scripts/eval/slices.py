"""For whom: the difference between two systems by kind of query."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from scripts.common.beir import TestSet
from scripts.common.bm25 import tokens
from scripts.eval.significance import compare

METADATA = ("query_type", "reasoning_type", "hop_count", "question_complexity")
# Upper ends, in words; longer ones follow
LENGTHS = (4, 8, 12)
# Below so many queries an interval would pretend to a sureness that is not there
FEWEST = 5


def labels(collection: TestSet, language: str | None) -> dict[str, list[str | None]]:
    """By property, its value for each query in order (``None`` where unknown)."""
    found: dict[str, list[str | None]] = {}
    for name in METADATA:
        values = [collection.metadata.get(query, {}).get(name) for query in collection.queries]
        if any(value is not None for value in values):
            found[name] = [None if value is None else str(value) for value in values]
    found["query length"] = [_length(text) for text in collection.queries.values()]
    found["words shared with the positive"] = [_share(value) for value in overlaps(collection, language)]
    return found


def overlaps(collection: TestSet, language: str | None) -> list[float]:
    """Share of a query's words (stemmed, without stop words) in the relevant passage that has most of them."""
    positives = {p for judged in collection.qrels.values() for p, score in judged.items() if score > 0}
    words = dict(zip(positives, map(set, tokens([collection.corpus[p] for p in positives], language)), strict=True))
    asked = map(set, tokens(list(collection.queries.values()), language))
    return [
        max(
            (
                len(query_words & words[passage]) / len(query_words) if query_words else 0.0
                for passage, score in collection.qrels[query].items()
                if score > 0
            ),
            default=0.0,
        )
        for query, query_words in zip(collection.queries, asked, strict=True)
    ]


def breakdown(
    properties: dict[str, list[str | None]],
    baseline: np.ndarray,
    candidate: np.ndarray,
    groups: Sequence[object],
    confidence: float,
) -> Iterator[dict[str, Any]]:
    """A row for each property and value that at least one query has, intervals where :data:`FEWEST` have it.

    Args:
        properties: See :func:`labels`.
        baseline: A metric of each query, by the baseline.
        candidate: The same by the candidate.
        groups: Group of each query, see :mod:`scripts.eval.significance`.
        confidence: Of the intervals.
    """
    for name, values in properties.items():
        for value in sorted({v for v in values if v is not None}):
            chosen = np.array([v == value for v in values])
            row: dict[str, Any] = {
                "property": name,
                "value": value,
                "queries": int(chosen.sum()),
                "baseline": round(float(baseline[chosen].mean()), 5),
                "candidate": round(float(candidate[chosen].mean()), 5),
            }
            members = [group for group, inside in zip(groups, chosen, strict=True) if inside]
            if row["queries"] >= FEWEST and len(set(members)) > 1:
                (difference,) = compare(
                    (candidate - baseline)[chosen, None], members, confidence=confidence, resamples=2000
                )
                row.update({k: v for k, v in dataclasses.asdict(difference).items() if k in {"delta", "low", "high"}})
            else:
                row["delta"] = row["candidate"] - row["baseline"]
            yield row


def _length(text: str) -> str:
    count = len(text.split())
    low = 1
    for high in LENGTHS:
        if count <= high:
            return f"{low:02d}-{high:02d} words"
        low = high + 1
    return f"{low:02d}+ words"


def _share(value: float) -> str:
    # 0 and 1 are kinds of their own: nothing lexical to go by, and everything
    if value in (0.0, 1.0):
        return "none (0 %)" if value == 0 else "all (100 %)"
    return "below 50 %" if value < 0.5 else "from 50 %"
