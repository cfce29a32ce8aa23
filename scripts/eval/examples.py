"""Queries worth reading: where the candidate won or lost most, and answers that nobody judged."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scripts.common.beir import TestSet
from scripts.common.metrics import Run

SHOWN_RESULTS = 3
SHOWN_CHARACTERS = 700
# How far down a passage counts as found by a system when it is to be a likely answer
AGREED_DEPTH = 5


def wins_and_losses(
    collection: TestSet, baseline: np.ndarray, candidate: np.ndarray, runs: dict[str, Run], count: int
) -> dict[str, list[dict[str, Any]]]:
    """The queries with the largest differences each way, with the texts that the systems in ``runs`` put first.

    Args:
        collection: The test set.
        baseline: A metric of each query, by the baseline.
        candidate: The same by the candidate.
        runs: Rankings by system, baseline first.
        count: At most so many each way.
    """
    difference = candidate - baseline
    queries = list(collection.queries)
    down = [i for i in np.argsort(-difference, kind="stable")[:count] if difference[i] > 0]
    up = [i for i in np.argsort(difference, kind="stable")[:count] if difference[i] < 0]
    return {
        kind: [
            {
                "query": queries[i],
                "text": collection.queries[queries[i]],
                "baseline": round(float(baseline[i]), 5),
                "candidate": round(float(candidate[i]), 5),
                "positives": [
                    {"passage": p, "text": shown(collection.corpus[p])}
                    for p, score in collection.qrels[queries[i]].items()
                    if score > 0
                ][:SHOWN_RESULTS],
                "results": {system: first_results(collection, run, queries[i]) for system, run in runs.items()},
            }
            for i in chosen
        ]
        for kind, chosen in (("wins", down), ("losses", up))
    }


def first_results(collection: TestSet, run: Run, query: str) -> list[dict[str, Any]]:
    """The first results of a query, with texts and what the judges said (``None``: unjudged)."""
    return [
        {"rank": rank, "passage": p, "relevance": collection.qrels[query].get(p), "text": shown(collection.corpus[p])}
        for rank, p in enumerate(list(run.get(query, {}))[:SHOWN_RESULTS], start=1)
    ]


def near_misses(collection: TestSet, runs: dict[str, Run], count: int) -> list[dict[str, Any]]:
    """Unjudged passages that several systems rank above every relevant one: likely answers that nobody judged.

    Systems that err do so in different ways; what they agree on is worth a look. Sorted by the number of systems, then
    by the sum of reciprocal ranks.

    Args:
        collection: The test set.
        runs: Rankings by system.
        count: At most so many.
    """
    found = []
    for query, judged in collection.qrels.items():
        ranks: dict[str, dict[str, int]] = {}
        for system, run in runs.items():
            for rank, passage in enumerate(list(run.get(query, {}))[:AGREED_DEPTH], start=1):
                if judged.get(passage, 0) > 0:
                    break
                if passage not in judged:
                    ranks.setdefault(passage, {})[system] = rank
        found += [(query, passage, by) for passage, by in ranks.items() if len(by) >= min(2, len(runs))]
    found.sort(key=lambda item: (-len(item[2]), -sum(1 / rank for rank in item[2].values()), item[0], item[1]))
    return [
        {
            "query": query,
            "text": collection.queries[query],
            "passage": passage,
            "passage_text": shown(collection.corpus[passage]),
            "ranks": ranks,
        }
        for query, passage, ranks in found[:count]
    ]


def shown(text: str) -> str:
    """The text, cut to what a page can show."""
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1].rstrip() + "…"


def origin(metadata: dict[str, Any], query: str) -> Sequence[str]:
    """What a query hangs together with: the document(s) that it was made from, or nothing but itself."""
    files = metadata.get("file_name")
    return tuple(files) if isinstance(files, list) and files else (str(files),) if files else ("query", query)
