"""Which documents train, validate and test: by whole groups, so that no near-duplicate sits on both sides."""

import collections
import difflib
import hashlib
import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import read_json, sha256_text
from scripts.common.job import log
from scripts.common.near_duplicates import Groups, near_duplicates

PARTS = ("train", "val", "test")


def assign(
    askable: Mapping[str, int], others: Iterable[str], groups: Sequence[Sequence[str]], options: dict[str, Any]
) -> dict[str, str]:
    """Part (``train``, ``val`` or ``test``) by document.

    With ``split_assignment`` ``shuffle``, as in the recipe, groups are sorted, shuffled by seed and cut at the ratios;
    one more document may then move all others. With ``hash`` a document's name decides, of a group the name with the
    lowest digest, so that a new document moves no other, with two exceptions. Joining a group of k, it moves that group
    in at most one of k + 1 cases (and two groups that it joins become one); that the test could only grow by this is
    not had without groups of many versions of a document ending there too often. And while ``min_test_questions`` asks
    for a larger test than the ratio gives, new documents move the border: with their questions fewer documents are
    needed, and those nearest to the border go back to validation and training.

    Args:
        askable: Documents with questions that may be asked in a test, and how many each has.
        others: Documents with training-only pairs alone; they go with their group, or train and validate in the
            proportion of the two ratios: of a large corpus of which few documents were asked about, validation would
            otherwise have too few questions to choose by.
        groups: Documents that must stay together.
        options: ``train_ratio``, ``val_ratio``, ``test_ratio``, ``min_test_questions``, ``conversion_seed``,
            ``split_assignment``.

    Raises:
        UserError: There are too few documents to hold some out.
    """
    documents = dict.fromkeys([*others, *askable])
    unit_of = _units(documents, groups, options["split_assignment"])
    questions: collections.Counter[str] = collections.Counter()
    for document, count in askable.items():
        questions[unit_of[document]] += count
    order, train, held_out = _cut(questions, options)
    if len(order) > 1:
        train, held_out = _none_empty(len(order), train, held_out, options)
    train, held_out = _enough_questions([questions[name] for name in order], train, held_out, options)
    if options["test_ratio"] and held_out == len(order):
        raise UserError(
            f"{len(order)} documents (or groups of near-duplicates) with questions are too few to hold some out for "
            f"testing (prep.test_ratio {options['test_ratio']:g}). Generate questions for more documents, or set "
            "test_ratio to 0 and name a test set with eval.test_sets."
        )
    part_of_unit = {
        name: "train" if position < train else "val" if position < held_out else _last(options)
        for position, name in enumerate(order)
    }
    part_of_unit |= _without_test(set(unit_of.values()) - part_of_unit.keys(), options)
    return {document: part_of_unit[unit_of[document]] for document in documents}


def _units(documents: Iterable[str], groups: Sequence[Sequence[str]], assignment: str) -> dict[str, str]:
    """Name of its group by document: the first of its names or, of ``hash``, the one with the lowest digest.

    The first in order would make one new name that sorts before all others move the group.
    """
    joined = Groups()
    for group in groups:
        for name in group[1:]:
            joined.join(group[0], name)
    members: dict[str, list[str]] = {}
    for name in dict.fromkeys([*documents, *itertools.chain.from_iterable(groups)]):
        members.setdefault(joined.find(name), []).append(name)
    named = {root: min(names, key=sha256_text) if assignment == "hash" else root for root, names in members.items()}
    return {document: named[joined.find(document)] for document in documents}


def _without_test(units: Iterable[str], options: dict[str, Any]) -> dict[str, str]:
    """``train`` or ``val`` by group, where none can test."""
    both = options["train_ratio"] + options["val_ratio"]
    share = options["train_ratio"] / both if both else 1.0
    scaled = {**options, "train_ratio": share, "val_ratio": 1 - share}
    order, train, _ = _cut(units, scaled)
    train = max(train, 1) if options["train_ratio"] else train
    return {name: "train" if position < train else "val" for position, name in enumerate(order)}


def _cut(units: Iterable[str], options: dict[str, Any]) -> tuple[list[str], int, int]:
    """Groups in the order of the split, and where validation and test begin."""
    return (_hashed if options["split_assignment"] == "hash" else _shuffled)(units, options)


def _shuffled(units: Iterable[str], options: dict[str, Any]) -> tuple[list[str], int, int]:
    names = sorted(units)
    random.Random(options["conversion_seed"]).shuffle(names)
    train = int(len(names) * options["train_ratio"])
    return names, train, train + int(len(names) * options["val_ratio"])


def _hashed(units: Iterable[str], options: dict[str, Any]) -> tuple[list[str], int, int]:
    places = {name: place(name, options["conversion_seed"]) for name in units}
    borders = options["train_ratio"], options["train_ratio"] + options["val_ratio"]
    train, held_out = (sum(at < border for at in places.values()) for border in borders)
    return sorted(places, key=places.__getitem__), train, held_out


def _none_empty(units: int, train: int, held_out: int, options: dict[str, Any]) -> tuple[int, int]:
    """Borders that leave neither training nor test empty: of few documents, chance may do so."""
    if options["test_ratio"]:
        train, held_out = min(train, units - 1), min(held_out, units - 1)
    if options["train_ratio"]:
        train, held_out = max(train, 1), max(held_out, 1)
    return train, held_out


def _enough_questions(questions: Sequence[int], train: int, held_out: int, options: dict[str, Any]) -> tuple[int, int]:
    """Borders that give the test ``min_test_questions``, out of at most half of the documents."""
    if not options["test_ratio"]:
        return train, held_out
    validating = held_out - train
    while sum(questions[held_out:]) < options["min_test_questions"] and held_out - 1 >= len(questions) / 2:
        held_out -= 1
    return min(train, max(held_out - validating, 1)), held_out


def _last(options: dict[str, Any]) -> str:
    # without a test share, what rounding leaves over must not be held out
    return "test" if options["test_ratio"] else "val" if options["val_ratio"] else "train"


def place(name: str, seed: int) -> float:
    """A name's place in [0, 1), by SHA-256 of seed and name."""
    digest = hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def document_groups(
    texts: Mapping[str, str], positives: Mapping[str, set[str]], passage_texts: Mapping[str, str], threshold: float
) -> list[list[str]]:
    """Groups of documents that are near-duplicates, or whose questions have near-duplicate answers.

    Args:
        texts: Document text by name.
        positives: Documents by id of the passage that answers one of their questions.
        passage_texts: Passage text by id.
        threshold: Lowest overlap, see :func:`scripts.common.near_duplicates.near_duplicates`.
    """
    joined = near_duplicates(texts, threshold)
    answers = {name: passage_texts[name] for name in positives}
    for documents in positives.values():
        names = sorted(documents)
        for name in names[1:]:
            joined.join(names[0], name)
    for group in near_duplicates(answers, threshold).lists():
        for name in group[1:]:
            joined.join(min(positives[group[0]]), min(positives[name]))
    groups = joined.lists()
    if groups:
        largest = max(map(len, groups))
        log.info("%d groups of near-duplicate documents, the largest of %d, stay together", len(groups), largest)
        if largest > len(texts) / 3:
            log.warning(
                "%d of %d documents are near-duplicates of one another: the split is lopsided", largest, len(texts)
            )
    return groups


def read_groups(options: dict[str, Any], records: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Groups of documents that stay together, of ``prep.groups_json``, as source ids.

    Args:
        options: ``split_strategy`` and ``groups_json``.
        records: The records, which a group names by ``source_id`` or by one of ``file_name``.

    Raises:
        UserError: The file is not a list of lists of names, names one twice, or names no document there is.
    """
    if options["split_strategy"] != "groups":
        return []
    file = options["groups_json"]
    groups = read_json(file, "prep.groups_json")
    if not isinstance(groups, list) or not all(
        isinstance(group, list) and group and all(isinstance(name, str) for name in group) for group in groups
    ):
        raise UserError(f"prep.groups_json {file} must be a list of lists of document names.")
    twice = [name for name, count in collections.Counter(itertools.chain.from_iterable(groups)).items() if count > 1]
    if twice:
        raise UserError(f"prep.groups_json {file}: {twice[0]} stands there twice; merge its groups.")
    sources: dict[str, list[str]] = {}
    for record in records:
        for name in {record["source_id"], *record["file_name"]}:
            sources.setdefault(name, []).append(record["source_id"])
    unknown = [name for group in groups for name in group if name not in sources]
    if unknown:
        close = difflib.get_close_matches(unknown[0], sources, n=1, cutoff=0.4) or sorted(sources)[:1]
        total = sum(map(len, groups))
        said = (
            f"prep.groups_json {file}: {len(unknown)} of {total} names are of no document, {unknown[0]} for one (a "
            f"document is called {close[0]}, say)"
        )
        if len(unknown) == total:
            raise UserError(f"{said}. Name documents by source_id or file_name, as the questions' records have them.")
        log.warning("%s", said)
    found = [[source for name in group for source in sources.get(name, ())] for group in groups]
    return [group for group in found if group]
