"""Batches of texts of like length, bounded by tokens, so that little of the work is padding."""

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Group items into batches whose padded size stays within ``token_budget``.

    Args:
        lengths: Tokens of each item.
        token_budget: Tokens in a batch, padding included; an item longer than that gets a batch of its own.

    Returns:
        Index lists, longest items first (so that memory peaks at once, not after an hour), each index once.
    """
    batches: list[list[int]] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and (len(batches[-1]) + 1) * width <= token_budget:
            batches[-1].append(index)
        else:
            batches.append([index])
            width = lengths[index]
    return batches


def padded_tokens(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> int:
    """Tokens computed for these batches, padding included."""
    return sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
