"""Which of the validated weights are near enough to the best, by the questions' own scores."""

import json
from pathlib import Path

import numpy as np
import pytest

from scripts.common.passages import Passage
from scripts.finetune.examples import Example, TrainingData
from scripts.finetune.selection import METRIC, Scores
from scripts.finetune.validation import QUERIES, Validation
from scripts.finetune.watch import Silent


def scores(folder: Path, **by_share: np.ndarray) -> Scores:
    """Validated weights as an interrupted run left them; names are shares in hundredths."""
    path = folder / "validation.jsonl"
    with path.open("w") as stream:
        for name, values in by_share.items():
            row = {"step": 20, "share": int(name[1:]) / 100, METRIC: float(values.mean())}
            stream.write(json.dumps({**row, "by_question": values.tolist()}) + "\n")
    return Scores(path, None, Silent())


def test_weights_that_differ_by_less_than_the_noise_are_close(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    base = random.random(100) * 0.5
    tuned = base + 0.1 + random.normal(0, 0.05, 100)
    half = tuned - 0.002 + random.normal(0, 0.05, 100)
    found = scores(tmp_path, s0=base, s50=half, s100=tuned)
    best = found.ranked()[0]
    assert {row["share"] for row in found.within(best, 2.0)} == {0.5, 1.0}
    assert {row["share"] for row in found.within(best, 30.0)} == {0.0, 0.5, 1.0}
    assert found.within(best, 0.0)[0] == best


def test_a_gain_on_few_questions_is_not_told_from_none(tmp_path: Path) -> None:
    base = np.array([1.0, 0.0, 0.5, 0.6])
    found = scores(tmp_path, s0=base, s100=base + np.array([0.0, 0.63, 0.0, -0.2]))
    best = found.ranked()[0]
    assert best["share"] == 1
    assert found.base in found.within(best, 1.0)


@pytest.mark.parametrize("errors", [0.0, 1.0])
def test_a_better_model_question_by_question_is_told_from_few(tmp_path: Path, errors: float) -> None:
    base = np.array([0.3, 0.4, 0.5, 0.6])
    found = scores(tmp_path, s0=base, s100=base + 0.01)
    assert found.base not in found.within(found.ranked()[0], errors)
    assert all("by_question" not in row for row in found.rows)


def test_of_many_questions_the_rare_kinds_all_validate() -> None:
    passages = {f"p{n}": Passage(f"text {n}", [f"{n}.txt"]) for n in range(500)}
    examples = [
        Example(f"question {n}", f"p{n}", (), frozenset({f"p{n}"}), "title" if n % 50 else "contextual")
        for n in range(500)
    ]
    validation = Validation.build(TrainingData(examples, passages), seed=0)
    assert len(validation.questions) == QUERIES < 500
    assert {f"question {n}" for n in range(0, 500, 50)} <= set(validation.questions)
    again = Validation.build(TrainingData(examples[::-1], passages), seed=1)
    assert set(again.questions) == set(validation.questions)
