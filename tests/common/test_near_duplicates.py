"""Near-duplicates: the same groups as comparing all pairs gives, in time and memory that do not grow with the pairs."""

import random

import pytest

from scripts.common import near_duplicates as module
from scripts.common.near_duplicates import Groups, ShingleIndex, contained, near_duplicates, overlap, shingles


def revised(seed: int, originals: int, copies: int) -> dict[str, str]:
    """Texts of 60 words, each one of a few originals with up to three words changed, so that they form chains."""
    chooser = random.Random(seed)
    texts = [[f"w{chooser.randrange(300)}" for _ in range(60)] for _ in range(originals)]
    found = {}
    for number in range(copies):
        words = list(chooser.choice(texts))
        for _ in range(chooser.randrange(4)):
            words[chooser.randrange(60)] = f"x{chooser.randrange(9)}"
        found[f"{number:03}"] = " ".join(words)
    return found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("threshold", [0.7, 0.8, 1.0])
def test_groups_are_those_of_all_pairs(seed: int, threshold: float) -> None:
    texts = {**revised(seed, originals=8, copies=60), "empty": "", "marks": "?!"}
    wanted = Groups()
    sets = {name: shingles(text) for name, text in texts.items()}
    for one, own in sets.items():
        for other, theirs in sets.items():
            if one < other and overlap(own, theirs) >= threshold:
                wanted.join(one, other)
    assert wanted.lists()
    assert near_duplicates(texts, threshold).lists() == wanted.lists()


def test_of_a_template_no_square_of_pairs_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = 0

    def counted(one: frozenset[int], other: frozenset[int]) -> float:
        nonlocal measured
        measured += 1
        return overlap(one, other)

    monkeypatch.setattr(module, "overlap", counted)
    body = " ".join(f"word{number}" for number in range(120))
    texts = {str(number): f"name{number} {body} made by author{number}" for number in range(600)}
    assert len(near_duplicates(texts, 0.8).lists()[0]) == 600
    assert measured < 2 * 600, "179,700 pairs there are"


def test_the_index_measures_what_texts_have_in_common() -> None:
    texts = list(revised(1, originals=3, copies=20).values())
    index = ShingleIndex(texts)
    asked = texts[0] + " and more words at the end of it all, so that it is longer than the other"
    found = {number: (same, part) for number, same, part in index.overlaps(asked)}
    own = shingles(asked)
    for number, text in enumerate(texts):
        other = shingles(text)
        if own & other:
            assert found.pop(number) == (overlap(own, other), contained(len(own & other), len(own), len(other)))
    assert not found
    assert contained(3, 3, 100) == 0, "of so few words chance decides"
