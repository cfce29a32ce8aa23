"""Real texts of a test set, for the parity check and for calibration."""

from collections.abc import Sequence
from pathlib import Path

from scripts.common.beir import read_beir
from scripts.common.contract import Side


def sample_texts(test_set: str | Path, count: int) -> dict[Side, list[str]]:
    """Up to ``count`` texts by side, half of them queries where there are enough.

    They are spread evenly over the lengths, shortest and longest included: what goes wrong in an exported graph goes
    wrong at some lengths.
    """
    collection = read_beir(test_set)
    queries, passages = (
        [text for text in texts if text.strip()] for texts in (collection.queries.values(), collection.corpus.values())
    )
    share = max(min(len(queries), count // 2), count - len(passages), 1)
    return {"query": spread(queries, share), "passage": spread(passages, count - share)}


def spread(texts: Sequence[str], count: int) -> list[str]:
    """``count`` of the distinct texts at even steps of length, or all when they are fewer."""
    ordered = sorted(set(texts), key=lambda text: (len(text), text))
    if count >= len(ordered):
        return ordered
    if count <= 1:
        return ordered[len(ordered) // 2 :][:count]
    return [ordered[round(step * (len(ordered) - 1) / (count - 1))] for step in range(count)]
