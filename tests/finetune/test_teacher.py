"""The fused teacher: what it scores, and on which scale."""

from pathlib import Path

import numpy as np
import pytest

from scripts.common.contract import Contract
from scripts.common.encoder import TorchEncoder
from scripts.common.passages import Passage
from scripts.finetune.examples import Example, TrainingData
from scripts.finetune.teacher import FusionTeacher

TEXTS = {
    "d_pump": "The coolant pump keeps the reactor at an even temperature.",
    "d_valve": "Error E4711 means that the relief valve is stuck.",
    "d_tea": "Tea is best brewed with water just off the boil.",
}


@pytest.fixture
def data() -> TrainingData:
    passages = {name: Passage(text, [name]) for name, text in TEXTS.items()}
    passages["d_cut"] = Passage("Keeps the reactor even.", ["d_pump"], training_only=True)
    examples = [
        Example("E4711", "d_valve", (), frozenset({"d_valve"})),
        Example("what cools the plant", "d_cut", (), frozenset({"d_cut", "d_pump"})),
    ]
    return TrainingData(examples, passages)


def teacher_of(data: TrainingData, folder: Path, model: Path, weight: float) -> FusionTeacher:
    contract = Contract.load(model / "contract.json")
    encoder = TorchEncoder(contract, model, device="cpu")
    return FusionTeacher(folder, data, encoder, lexical_weight=weight, language="english")


def test_scores_are_standardised_over_the_corpus(data: TrainingData, tmp_path: Path, tiny_model: Path) -> None:
    scores = teacher_of(data, tmp_path, tiny_model, 0).scores("what cools the plant")
    assert scores.shape == (3,)
    assert scores.mean() == pytest.approx(0, abs=1e-6)
    assert scores.std() == pytest.approx(1, abs=1e-5)


def test_words_count_by_their_weight(data: TrainingData, tmp_path: Path, tiny_model: Path) -> None:
    without, with_words = (teacher_of(data, tmp_path, tiny_model, weight).scores("E4711") for weight in (0, 2))
    # of three passages only the second has the word: standardised (2, -1, -1) over the root of 2
    np.testing.assert_allclose(with_words - without, 2 * np.array([-1, 2, -1]) / np.sqrt(2), atol=1e-4)


def test_a_cut_passage_has_the_score_of_its_whole(data: TrainingData, tmp_path: Path, tiny_model: Path) -> None:
    (found,) = teacher_of(data, tmp_path, tiny_model, 0.5)([data.examples[1]], ["d_cut", "d_pump", "d_tea", "d_gone"])
    assert set(found) == {"d_cut", "d_pump", "d_tea"}
    assert found["d_cut"] == found["d_pump"]
