"""Pairs that need no LLM beside a model's questions, in the share that the configuration allows."""

import hashlib
from collections.abc import Sequence
from typing import Any

TOO_MANY = "more than sdg.llm_free_share"


def limit_llm_free(records: Sequence[dict[str, Any]], reasons: list[list[str | None]], share: float) -> None:
    """Give the LLM-free pairs beyond ``share`` of all kept pairs their reason, in place.

    Which stay is decided by hash, so they are spread over all documents and are the same in every run.

    Args:
        records: With ``qa_generation.pairs``.
        reasons: Why each pair is dropped, ``None`` for those kept, by record and pair.
        share: Largest share, 0 to 1; 1 is no limit.
    """
    if share >= 1:
        return
    others, free = 0, []
    for number, record in enumerate(records):
        for position, pair in enumerate(record["qa_generation"]["pairs"]):
            if reasons[number][position] is not None:
                continue
            if pair.get("llm_free"):
                name = f"{record['source_id']}\n{pair['query_type']}\n{pair['question']}"
                free.append((hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest(), number, position))
            else:
                others += 1
    # rounding keeps what floating point would otherwise lose of a whole number
    for _, number, position in sorted(free)[int(round(others * share / (1 - share), 6)) :]:
        reasons[number][position] = TOO_MANY
