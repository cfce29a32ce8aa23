"""Losses against their formulas, and the layout of a batch."""

import math

import pytest
import torch

from scripts.common.passages import Passage
from scripts.finetune.examples import Example, TrainingData
from scripts.finetune.layout import batch_layout, negatives_of
from scripts.finetune.loss import LossOptions, batch_loss, distillation, info_nce, teacher_matrix

ALL = torch.ones(2, 3, dtype=torch.bool)


def unit(*shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(1)), dim=-1)


def test_info_nce_is_its_formula() -> None:
    scores = torch.tensor([[0.9, 0.2, 0.4], [0.1, 0.3, 0.8]])
    allowed = torch.tensor([[True, True, False], [True, True, True]])
    first = -math.log(math.exp(0.9 / 0.1) / (math.exp(0.9 / 0.1) + math.exp(0.2 / 0.1)))
    second = -math.log(math.exp(0.3 / 0.1) / sum(math.exp(value / 0.1) for value in (0.1, 0.3, 0.8)))
    loss = info_nce(scores, torch.tensor([0, 1]), allowed, 0.1)
    assert float(loss) == pytest.approx((first + second) / 2, rel=1e-5)


def test_a_masked_passage_gets_no_gradient() -> None:
    passages = unit(3, 4).requires_grad_()
    allowed = torch.tensor([[True, True, False], [True, True, False]])
    batch_loss(unit(2, 4), passages, torch.tensor([0, 1]), allowed, LossOptions(0.05)).backward()
    assert passages.grad[2].abs().sum() == 0
    assert passages.grad[1].abs().sum() > 0


def test_temperature_is_for_unit_vectors_alone() -> None:
    queries, passages, target = unit(2, 4), unit(3, 4), torch.tensor([0, 1])
    scaled = batch_loss(queries, passages, target, ALL, LossOptions(0.05, normalized=False))
    assert float(scaled) == pytest.approx(float(info_nce(queries @ passages.T, target, ALL, 1.0)))


def test_distillation_is_the_divergence_over_known_passages() -> None:
    scores = torch.tensor([[0.9, 0.2, 0.4], [0.1, 0.3, 0.8]])
    teacher = torch.tensor([[12.0, 3.0, float("nan")], [float("nan"), float("nan"), 1.0]])
    ours = torch.softmax(torch.tensor([0.9, 0.2]) / 0.1, 0)
    theirs = torch.softmax(torch.tensor([12.0, 3.0]) / 4, 0)
    expected = float((theirs * (theirs / ours).log()).sum())
    assert float(distillation(scores, teacher, ALL, 0.1, 4.0)) == pytest.approx(expected, rel=1e-4)
    barred = torch.tensor([[True, False, True], [True, True, True]])
    assert float(distillation(scores, teacher, barred, 0.1, 4.0)) == 0
    assert float(distillation(teacher.nan_to_num(0.5), teacher.nan_to_num(0.5), ALL, 1, 1)) == pytest.approx(
        0, abs=1e-6
    )


def test_distillation_moves_scores_towards_the_teacher_and_stays_finite() -> None:
    scores = torch.tensor([[0.5, 0.5, 0.5]], requires_grad=True)
    distillation(scores, torch.tensor([[5.0, 1.0, float("nan")]]), ALL[:1], 0.05, 1.0).backward()
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[0, 0] < 0 < scores.grad[0, 1]
    assert scores.grad[0, 2] == 0


def test_the_teachers_term_is_weighted_into_the_loss() -> None:
    queries, passages, target = unit(2, 4), unit(3, 4), torch.tensor([0, 1])
    teacher = teacher_matrix([{"a": 3.0, "b": 1.0}, {"c": 2.0, "a": 0.0}], ["a", "b", "c"])
    plain = batch_loss(queries, passages, target, ALL, LossOptions(0.05), teacher)
    both = batch_loss(queries, passages, target, ALL, LossOptions(0.05, distill_weight=0.5), teacher)
    term = distillation(queries @ passages.T, teacher, ALL, 0.05, 1.0)
    assert float(both - plain) == pytest.approx(0.5 * float(term), rel=1e-4)


def test_matryoshka_is_the_mean_over_cut_vectors() -> None:
    queries, passages, target = unit(2, 8), unit(3, 8), torch.tensor([0, 1])
    cut = torch.nn.functional.normalize(queries[:, :4], dim=1), torch.nn.functional.normalize(passages[:, :4], dim=1)
    expected = (info_nce(queries @ passages.T, target, ALL, 0.05) + info_nce(cut[0] @ cut[1].T, target, ALL, 0.05)) / 2
    found = batch_loss(queries, passages, target, ALL, LossOptions(0.05, dimensions=(4, 8)))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


class FixedScores:
    """Base scores by hand."""

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows

    def of(self, *_: object) -> object:
        import numpy as np

        return np.array(self.rows, np.float32)


OPTIONS = {"train_n_passages": 2, "rotate_negatives": False, "in_batch_negatives": True, "in_batch_margin": None}


def make_data() -> tuple[list[Example], TrainingData]:
    passages = {
        "a": Passage("Text of A", ["one"]),
        "a2": Passage("text  of a\n", ["other"]),
        "b": Passage("Text of B", ["one", "two"]),
        "c": Passage("Text of C", ["three"]),
        "n": Passage("Text of N", ["one"]),
    }
    examples = [
        Example("qa", "a", ("n",), frozenset({"a"})),
        Example("qb", "b", ("c",), frozenset({"b"})),
        Example("qa", "a2", (), frozenset({"a", "a2"})),
        Example("qc", "c", ("n",), frozenset({"c"})),
    ]
    return examples, TrainingData(examples, passages)


def test_a_question_meets_no_answer_copy_or_passage_of_its_document() -> None:
    examples, data = make_data()
    layout = batch_layout(examples, data, OPTIONS)
    assert layout.names == ["a", "n", "b", "c", "a2"]
    assert layout.target.tolist() == [0, 2, 4, 3]
    allowed = [{name for name, flag in zip(layout.names, row, strict=True) if flag} for row in layout.allowed.tolist()]
    # n is of a's document but was mined for the question; b is too and was not; a2 is a copy of a
    assert allowed[0] == {"a", "n", "c"}
    assert allowed[1] == {"b", "c", "a2"}
    assert allowed[2] == {"a2", "b", "c", "n"}
    assert allowed[3] == {"c", "n", "a", "b", "a2"}


def test_without_in_batch_negatives_a_question_meets_its_own_list_alone() -> None:
    examples, data = make_data()
    layout = batch_layout(examples, data, {**OPTIONS, "in_batch_negatives": False})
    assert layout.allowed.sum(dim=1).tolist() == [2, 2, 1, 2]


def test_passages_above_the_margin_are_masked_but_not_the_mined_ones() -> None:
    examples, data = make_data()
    rows = [[0.8, 0.79, 0.1, 0.77, 0.0], [0.0] * 5, [0.0, 0.0, 0.0, 0.0, 0.5], [-0.1, 0.0, -0.2, -0.1, -0.05]]
    layout = batch_layout(examples, data, {**OPTIONS, "in_batch_margin": 0.95}, base=FixedScores(rows))
    allowed = [{name for name, flag in zip(layout.names, row, strict=True) if flag} for row in layout.allowed.tolist()]
    assert allowed[0] == {"a", "n"}  # c scores 0.77 > 0.95 * 0.8; n was mined
    # a negative score of the positive: the limit lies below it, at -0.105
    assert allowed[3] == {"c", "n", "b"}


def test_negatives_rotate_through_the_whole_list() -> None:
    example = Example("q", "p", tuple("abcde"), frozenset({"p"}))
    assert [negatives_of(example, 2, epoch, rotate=True) for epoch in range(3)] == [
        ("a", "b"),
        ("c", "d"),
        ("e", "a"),
    ]
    assert negatives_of(example, 2, 2, rotate=False) == ("a", "b")
    assert negatives_of(example, 9, 1, rotate=True) == tuple("abcde")
