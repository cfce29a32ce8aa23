"""A test set that stays as it is while the training data changes, and training data that gives none of it away."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from scripts.common.beir import TestSet, read_beir
from scripts.common.files import atomic_path
from scripts.common.near_duplicates import overlap, shingles
from scripts.common.passages import Passage
from scripts.prep.convert import Example

FILES = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
# Training passages that overlap an answer of the test by this much are taken for the same passage
SAME = 0.8


def reuse(folder: str | Path, target: Path) -> TestSet:
    """Copy a frozen test set to ``target``; :class:`UserError` when it is not sound."""
    test = read_beir(folder)
    for name in FILES:
        with atomic_path(target / name) as temporary:
            shutil.copyfile(Path(folder, name), temporary)
    return test


def without_overlap(
    examples: Sequence[Example], passages: dict[str, Passage], test: TestSet
) -> tuple[list[Example], int]:
    """Examples that share neither a question nor an answer with the test set, and how many were removed.

    A shared answer is a positive that is, but for a fifth of its five-word shingles, a passage judged relevant.
    """
    questions = {plain(text) for text in test.queries.values()}
    relevant = {name for judged in test.qrels.values() for name, score in judged.items() if score > 0}
    answers = [shingles(test.corpus[name]) for name in relevant]
    by_shingle: dict[int, list[int]] = {}
    for number, found in enumerate(answers):
        for shingle in found:
            by_shingle.setdefault(shingle, []).append(number)

    def gives_away(name: str) -> bool:
        own = shingles(passages[name].text)
        near = {number for shingle in own for number in by_shingle.get(shingle, ())}
        return any(overlap(own, answers[number]) >= SAME for number in near)

    known: dict[str, bool] = {}
    kept = []
    for example in examples:
        for name in (*example.positives, *example.also_positive):
            if name not in known:
                known[name] = gives_away(name)
        shares = any(known[name] for name in (*example.positives, *example.also_positive))
        if plain(example.question) not in questions and not shares:
            kept.append(example)
    return kept, len(examples) - len(kept)


def plain(text: str) -> str:
    """A question without case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", text.casefold()))
