"""What generation gives for one record, whatever the style."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from scripts.common.errors import UserError

ARTIFACT_TYPES = (
    "key_concepts",
    "relationships",
    "themes",
    "entities",
    "processes",
    "insights",
    "technical_terms",
    "contextual_factors",
)


@dataclasses.dataclass
class Generated:
    """Pairs of one record.

    Attributes:
        pairs: Question-answer pairs in the recipe's format.
        evaluations: A judge's verdicts in the pairs' order and number, ``None`` for a pair that got none; or ``None``
            where there is no judge.
        artifacts: Lists by artifact type; empty where none were asked for.
        problems: What went wrong, for the report; the record stays in the corpus all the same.
        sent: Requests of this run; what the reply store had is not among them.
        failures: Calls that came to nothing (``call``, ``problems``, and ``replies`` as they came), for the ledger.
    """

    pairs: list[dict[str, Any]]
    evaluations: list[dict[str, Any] | None] | None = None
    artifacts: dict[str, list[dict[str, str]]] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    sent: int = 0
    failures: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def make_pair(
    question: str, segment_ids: list[int], *, query_type: str, answer: str = "", complexity: int = 1, **extra: Any
) -> dict[str, Any]:
    """A single-hop pair in the recipe's format."""
    return {
        "question": question,
        "answer": answer,
        "question_complexity": complexity,
        "query_type": query_type,
        "reasoning_type": "factual",
        "segment_ids": segment_ids,
        "hop_count": 1,
        "hop_contexts": [{"hop_number": 1, "segment_ids": segment_ids, "summary": ""}],
        **extra,
    }


def check_share(empty: Sequence[str], asked: int, share: float, cure: str) -> None:
    """:class:`UserError` when more than the share of the documents asked about got no question."""
    if len(empty) > share * asked:
        raise UserError(
            f"{len(empty)} of {asked} documents got no question ({', '.join(empty[:5])}), more than "
            f"sdg.max_failed_share ({share:g}) allows; {cure}, or raise that option."
        )
