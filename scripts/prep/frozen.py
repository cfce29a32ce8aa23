"""A test set that stays as it is while the training data changes, and training data that gives none of it away."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from scripts.common.beir import TestSet, read_beir
from scripts.common.files import atomic_path
from scripts.common.near_duplicates import ShingleIndex
from scripts.common.passages import Passage
from scripts.common.progress import progress
from scripts.prep.convert import Example

FILES = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
# Training passages that overlap an answer of the test by this much are taken for the same passage, and so are those of
# which this much stands in it, or the other way round. Passages that a template made have a half in common.
SAME = 0.8


def reuse(folder: str | Path, target: Path) -> TestSet:
    """Copy a frozen test set to ``target``; :class:`UserError` when it is not sound."""
    test = read_beir(folder)
    for name in FILES:
        with atomic_path(target / name) as temporary:
            shutil.copyfile(Path(folder, name), temporary)
    return test


class Answers:
    """The passages judged relevant of a test set, to find passages that give one away.

    Such a passage is, but for a fifth of all five-word shingles, the same; or all but a fifth of the shorter of the two
    stands in the other (the same document in other chunks).
    """

    def __init__(self, test: TestSet) -> None:
        relevant = {name for judged in test.qrels.values() for name, score in judged.items() if score > 0}
        texts = [test.corpus[name] for name in sorted(relevant)]
        self._index = ShingleIndex(texts)
        self._texts = {plain(text) for text in texts} - {""}

    def given_away_by(self, text: str) -> bool:
        """Whether this text is an answer of the test, or much of one."""
        return plain(text) in self._texts or any(
            max(same, part) >= SAME for _, same, part in self._index.overlaps(text)
        )


def without_overlap(
    examples: Sequence[Example], passages: dict[str, Passage], test: TestSet
) -> tuple[list[Example], int]:
    """Examples that share neither a question nor an answer with the test set, and how many were removed."""
    questions = {plain(text) for text in test.queries.values()}
    names = dict.fromkeys(name for example in examples for name in (*example.positives, *example.also_positive))
    given_away = passages_of_test({name: passages[name] for name in names}, test)
    kept = [
        example
        for example in examples
        if plain(example.question) not in questions and given_away.isdisjoint(example.positives + example.also_positive)
    ]
    return kept, len(examples) - len(kept)


def passages_of_test(passages: dict[str, Passage], test: TestSet) -> set[str]:
    """Ids of the passages that give an answer of the test away, see :class:`Answers`."""
    answers = Answers(test)
    bar = progress(len(passages), "overlap with the test", "passage")
    found = set()
    for name, passage in passages.items():
        if answers.given_away_by(passage.text):
            found.add(name)
        bar.update(1)
    bar.close()
    return found


def plain(text: str) -> str:
    """A question without case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", text.casefold()))
