"""Which documents train, validate and test: by whole groups, so that no near-duplicate sits on both sides."""

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.common.job import log
from scripts.common.near_duplicates import Groups, near_duplicates

PARTS = ("train", "val", "test")


def assign(
    askable: Iterable[str], others: Iterable[str], groups: Sequence[Sequence[str]], options: dict[str, Any]
) -> dict[str, str]:
    """Part (``train``, ``val`` or ``test``) by document.

    With ``split_assignment`` ``shuffle``, as in the recipe, groups are sorted, shuffled by seed and cut at the ratios;
    one more document may then move all others. With ``hash`` each group's name decides, so that a new document moves
    no other (unless it is a near-duplicate and joins two groups).

    Args:
        askable: Documents with questions that may be asked in a test.
        others: Documents with training-only pairs alone; they go with their group, or to training.
        groups: Documents that must stay together.
        options: ``train_ratio``, ``val_ratio``, ``test_ratio``, ``conversion_seed``, ``split_assignment``.

    Raises:
        UserError: There are too few documents to hold some out.
    """
    joined = Groups()
    for group in groups:
        for name in group[1:]:
            joined.join(group[0], name)
    units = sorted({joined.find(document) for document in askable})
    part_of_unit = (_hashed if options["split_assignment"] == "hash" else _shuffled)(units, options)
    if options["test_ratio"] and "test" not in part_of_unit.values():
        raise UserError(
            f"{len(units)} documents (or groups of near-duplicates) with questions are too few to hold some out for "
            f"testing (prep.test_ratio {options['test_ratio']:g}). Generate questions for more documents, or set "
            "test_ratio to 0 and name a test set with eval.test_sets."
        )
    documents = dict.fromkeys([*others, *askable])
    return {document: part_of_unit.get(joined.find(document), "train") for document in documents}


def _shuffled(units: list[str], options: dict[str, Any]) -> dict[str, str]:
    names = list(units)
    random.Random(options["conversion_seed"]).shuffle(names)
    n_train, n_val = int(len(names) * options["train_ratio"]), int(len(names) * options["val_ratio"])
    return {
        name: "train" if position < n_train else "val" if position < n_train + n_val else _last(options)
        for position, name in enumerate(names)
    }


def _hashed(units: list[str], options: dict[str, Any]) -> dict[str, str]:
    places = {name: place(name, options["conversion_seed"]) for name in units}
    first, second = options["train_ratio"], options["train_ratio"] + options["val_ratio"]
    parts = {name: "train" if at < first else "val" if at < second else _last(options) for name, at in places.items()}
    # of few documents, chance may leave a part empty: the nearest to its border joins it
    if options["test_ratio"] and len(units) > 1 and "test" not in parts.values():
        parts[max(places, key=places.__getitem__)] = "test"
    if options["train_ratio"] and len(units) > 1 and "train" not in parts.values():
        parts[min(places, key=places.__getitem__)] = "train"
    return parts


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
    joined = Groups()
    for one, other, _ in near_duplicates(texts, threshold):
        joined.join(one, other)
    answers = {name: passage_texts[name] for name in positives}
    for documents in positives.values():
        names = sorted(documents)
        for name in names[1:]:
            joined.join(names[0], name)
    for one, other, _ in near_duplicates(answers, threshold):
        joined.join(min(positives[one]), min(positives[other]))
    groups = joined.lists()
    if groups:
        largest = max(map(len, groups))
        log.info("%d groups of near-duplicate documents, the largest of %d, stay together", len(groups), largest)
        if largest > len(texts) / 3:
            log.warning(
                "%d of %d documents are near-duplicates of one another: the split is lopsided", largest, len(texts)
            )
    return groups


def read_groups(options: dict[str, Any]) -> list[list[str]]:
    """Groups of documents that stay together, of ``prep.groups_json``."""
    if options["split_strategy"] != "groups":
        return []
    groups = read_json(options["groups_json"], "prep.groups_json")
    if not isinstance(groups, list) or not all(
        isinstance(group, list) and group and all(isinstance(name, str) for name in group) for group in groups
    ):
        raise UserError(f"prep.groups_json {options['groups_json']} must be a list of lists of document paths.")
    seen: set[str] = set()
    for name in (name for group in groups for name in group):
        if name in seen:
            raise UserError(f"prep.groups_json {options['groups_json']}: {name} stands in two groups; merge them.")
        seen.add(name)
    return groups
