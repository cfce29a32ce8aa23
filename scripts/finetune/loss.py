"""The contrastive loss and the scores that enter it."""

from collections.abc import Sequence

import torch

from scripts.finetune.examples import Example, TrainingData


def info_nce(scores: torch.Tensor, target: torch.Tensor, allowed: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean of ``-log(exp(s+/t) / sum_j exp(s_j/t))`` over the allowed passages of each query.

    InfoNCE (van den Oord, Li and Vinyals 2018, "Representation Learning with Contrastive Predictive Coding",
    arXiv:1807.03748), as the recipe trains with.

    Args:
        scores: ``[queries, passages]`` similarities.
        target: ``[queries]`` column of each query's positive.
        allowed: ``[queries, passages]`` bool, true for the positive and the negatives of each query.
        temperature: Divisor of the scores.
    """
    logits = (scores.float() / temperature).masked_fill(~allowed, float("-inf"))
    return torch.nn.functional.cross_entropy(logits, target)


def batch_layout(
    batch: Sequence[Example], data: TrainingData, n_passages: int, *, in_batch: bool
) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Which passages a batch needs, and which of them each query is scored against.

    Every passage is encoded once, however many queries share it. With in-batch negatives a query meets all passages of
    the batch except those known to answer it and, unless mined for it, those of its positive's documents.

    Returns:
        Passage ids, target columns ``[queries]``, allowed ``[queries, passages]``.
    """
    listed = [(example.positive, *example.negatives[: n_passages - 1]) for example in batch]
    names = list(dict.fromkeys(name for row in listed for name in row))
    column = {name: number for number, name in enumerate(names)}
    allowed = torch.zeros(len(batch), len(names), dtype=torch.bool)
    documents = [data.documents(name) for name in names] if in_batch else []
    for number, (example, row) in enumerate(zip(batch, listed, strict=True)):
        if in_batch:
            own = data.documents(example.positive)
            for position, name in enumerate(names):
                allowed[number, position] = name not in example.answers and own.isdisjoint(documents[position])
        for name in row:
            allowed[number, column[name]] = True
    target = torch.tensor([column[example.positive] for example in batch])
    return names, target, allowed
