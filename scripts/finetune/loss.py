"""The losses: of vectors, targets and masks alone, whatever model and batch they come from."""

import dataclasses
from collections.abc import Sequence

import torch
from torch.nn import functional


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """What a batch's loss depends on besides its vectors.

    Attributes:
        temperature: Divisor of the scores.
        normalized: Whether vectors have unit length; the recipe divides by the temperature only then.
        dimensions: Shorter vector lengths that are trained too.
        distill_weight: Weight of the divergence from the teacher.
        distill_temperature: Divisor of the teacher's scores.
    """

    temperature: float
    normalized: bool = True
    dimensions: tuple[int, ...] = ()
    distill_weight: float = 0.0
    distill_temperature: float = 1.0


def batch_loss(
    queries: torch.Tensor,
    passages: torch.Tensor,
    target: torch.Tensor,
    allowed: torch.Tensor,
    options: LossOptions,
    teacher: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of a batch: contrastive, plus the teacher's term, averaged over the trained vector lengths.

    With ``dimensions``, the mean over the full and the cut vectors (Kusupati et al. 2022, "Matryoshka Representation
    Learning", arXiv:2205.13147); a cut vector is scaled to unit length again where the full one has it.

    Args:
        queries: ``[queries, width]``.
        passages: ``[passages, width]``.
        target: ``[queries]`` column of each query's positive.
        allowed: ``[queries, passages]`` bool, true for the positive and the negatives of each query.
        options: Temperature and weights.
        teacher: ``[queries, passages]`` scores of a teacher, NaN where unknown.
    """
    temperature = options.temperature if options.normalized else 1.0
    lengths = [None, *(length for length in options.dimensions if length < queries.shape[1])]
    losses = []
    for length in lengths:
        scores = similarity(queries.float(), passages.float(), length, options.normalized)
        loss = info_nce(scores, target, allowed, temperature)
        if options.distill_weight and teacher is not None:
            term = distillation(scores, teacher, allowed, temperature, options.distill_temperature)
            loss = loss + options.distill_weight * term
        losses.append(loss)
    return torch.stack(losses).mean()


def similarity(queries: torch.Tensor, passages: torch.Tensor, length: int | None, normalized: bool) -> torch.Tensor:
    """Inner products ``[queries, passages]`` of the first ``length`` components (``None``: all)."""
    if length is None:
        return queries @ passages.T
    queries, passages = queries[:, :length], passages[:, :length]
    if normalized:
        queries, passages = functional.normalize(queries, dim=-1), functional.normalize(passages, dim=-1)
    return queries @ passages.T


def info_nce(scores: torch.Tensor, target: torch.Tensor, allowed: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean of ``-log(exp(s+/t) / sum_j exp(s_j/t))`` over the allowed passages of each query.

    InfoNCE (van den Oord, Li and Vinyals 2018, "Representation Learning with Contrastive Predictive Coding",
    arXiv:1807.03748), as the recipe trains with.
    """
    logits = (scores.float() / temperature).masked_fill(~allowed, float("-inf"))
    return functional.cross_entropy(logits, target)


def distillation(
    scores: torch.Tensor,
    teacher: torch.Tensor,
    allowed: torch.Tensor,
    temperature: float,
    teacher_temperature: float,
) -> torch.Tensor:
    """Mean over queries of ``KL(softmax(teacher / teacher_temperature) || softmax(scores / temperature))``.

    Over the passages that are allowed and that the teacher scored; queries with fewer than two of these say nothing and
    count for nothing. Knowledge distillation (Hinton, Vinyals and Dean 2015, arXiv:1503.02531) on lists of passages
    (Ren et al. 2021, "RocketQAv2", arXiv:2110.07367).
    """
    known = allowed & torch.isfinite(teacher)
    useful = known.sum(dim=1) >= 2
    if not useful.any():
        return scores.sum() * 0.0
    known = known[useful]
    outside = torch.finfo(torch.float32).min
    ours = (scores[useful].float() / temperature).masked_fill(~known, outside)
    theirs = (teacher[useful].float() / teacher_temperature).masked_fill(~known, outside)
    terms = functional.kl_div(
        functional.log_softmax(ours, dim=1), functional.log_softmax(theirs, dim=1), reduction="none", log_target=True
    )
    return terms.masked_fill(~known, 0.0).sum(dim=1).mean()


def teacher_matrix(
    rows: Sequence[dict[str, float]], names: Sequence[str], device: torch.device | str = "cpu"
) -> torch.Tensor:
    """``[queries, passages]`` float32 of a teacher's scores by passage id, NaN where it has none."""
    matrix = torch.full((len(rows), len(names)), float("nan"))
    for number, row in enumerate(rows):
        for position, name in enumerate(names):
            if name in row:
                matrix[number, position] = row[name]
    return matrix.to(device)
