"""Generated records to ``train.json``, ``val.json``, ``corpus/`` and ``eval_beir/``, divided by document."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.common.beir import write_beir
from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json
from scripts.common.job import job, log
from scripts.common.passages import Passage, searchable, write_corpus
from scripts.prep.convert import Example, convert
from scripts.prep.sources import read_records

PARTS = ("train", "val", "test")


def split(source: str | Path, output: str | Path, *, corpus_id: str, options: dict[str, Any]) -> dict[str, Any]:
    """Convert, split and write stage 1's first files; returns counts.

    Args:
        source: Question data, see :func:`scripts.prep.sources.read_records`.
        output: Folder of stage 1.
        corpus_id: Name of the corpus.
        options: Options of the ``prep`` section by name.

    Raises:
        UserError: Nothing is left to train on or, with a test share, to test on.
    """
    records = read_records(source)
    passages, examples, left_out = convert(records, quality_threshold=options["quality_threshold"])
    for reason, count in left_out.most_common():
        log.warning("left out %d pairs: %s", count, reason)
    part_of = assign(examples, read_groups(options), options)
    parts: dict[str, list[Example]] = {part: [] for part in PARTS}
    for example in examples:
        parts[part_of[example.document]].append(example)
    parts["test"] = [example for example in parts["test"] if not example.training_only]
    train = [example for example in parts["train"] if len(example.positives) <= options["max_pos_docs"]]
    if not train:
        raise UserError(
            f"no training example is left of {len(examples)} pairs: lower prep.quality_threshold, raise "
            "prep.train_ratio, or generate more questions."
        )
    root = Path(output)
    write_corpus(root / "corpus", passages, corpus_id)
    write_json(root / "train.json", training_file(train, corpus_id, 0))
    write_json(root / "val.json", training_file(parts["val"], corpus_id, len(train)))
    write_test_set(root / "eval_beir", passages, parts["test"], group_ids=options["use_group_id_in_eval"])
    counts = {
        "documents": {part: sum(value == part for value in part_of.values()) for part in PARTS},
        "examples": {"train": len(train), "val": len(parts["val"]), "test": len(parts["test"])},
        "passages": len(searchable(passages)),
        "training_only_passages": len(passages) - len(searchable(passages)),
        "left_out": dict(left_out),
    }
    if len(train) < 100:
        log.warning("only %d training examples: expect little; 100 are the least, 1000 are good", len(train))
    if options["test_ratio"] and len(parts["test"]) < 50:
        log.warning("only %d test queries: differences under several points mean nothing", len(parts["test"]))
    log.info("%(examples)s examples of %(documents)s documents, %(passages)d passages", counts)
    return counts


def assign(examples: Sequence[Example], groups: Sequence[Sequence[str]], options: dict[str, Any]) -> dict[str, str]:
    """Part (``train``, ``val`` or ``test``) by document.

    As in the recipe: documents are sorted, shuffled by seed and cut at the ratios. Documents with training-only pairs
    alone could give no test query and go to training.
    """
    askable = {example.document for example in examples if not example.training_only}
    group_of = {document: f"group {number}" for number, group in enumerate(groups) for document in group}
    units: dict[str, list[str]] = {}
    for document in sorted(askable):
        units.setdefault(group_of.get(document, document), []).append(document)
    names = sorted(units)
    random.Random(options["conversion_seed"]).shuffle(names)
    n_train, n_val = int(len(names) * options["train_ratio"]), int(len(names) * options["val_ratio"])
    if options["test_ratio"] and len(names) == n_train + n_val:
        raise UserError(
            f"{len(names)} documents with questions are too few to hold some out for testing (prep.test_ratio "
            f"{options['test_ratio']:g}). Generate questions for more documents, or set test_ratio to 0 and name a "
            "test set with eval.test_sets."
        )
    part_of = {example.document: "train" for example in examples}
    for position, name in enumerate(names):
        part = "train" if position < n_train else "val" if position < n_train + n_val else "test"
        part_of.update(dict.fromkeys(units[name], part))
    return part_of


def read_groups(options: dict[str, Any]) -> list[list[str]]:
    """Groups of documents that stay together, of ``prep.groups_json``."""
    if options["split_strategy"] != "groups":
        return []
    groups = read_json(options["groups_json"], "prep.groups_json")
    if not isinstance(groups, list) or not all(
        isinstance(group, list) and all(isinstance(name, str) for name in group) for group in groups
    ):
        raise UserError(f"prep.groups_json {options['groups_json']} must be a list of lists of document paths.")
    seen: set[str] = set()
    for name in (name for group in groups for name in group):
        if name in seen:
            raise UserError(f"prep.groups_json {options['groups_json']}: {name} stands in two groups; merge them.")
        seen.add(name)
    return groups


def training_file(examples: Sequence[Example], corpus_id: str, first: int) -> dict[str, Any]:
    """Examples in the form of ``train.json``, numbered from ``first``."""
    data = []
    for number, example in enumerate(examples, start=first):
        item: dict[str, Any] = {
            "question_id": f"q{number}",
            "question": example.question,
            "corpus_id": corpus_id,
            "pos_doc": [{"id": name} for name in example.positives],
            "neg_doc": [],
        }
        if example.also_positive:
            item["also_positive"] = example.also_positive
        item["query_type"] = example.metadata.get("query_type", "")
        data.append(item)
    return {"corpus": {"path": "./corpus/"}, "data": data}


def write_test_set(folder: Path, passages: dict[str, Passage], examples: Sequence[Example], *, group_ids: bool) -> None:
    """Write ``eval_beir/``: all searchable passages, numbered, and the test queries with their metadata."""
    names = {name: name if group_ids else f"d{number}" for number, name in enumerate(searchable(passages))}
    rows: list[dict[str, Any]] = []
    for name, row_id in names.items():
        row: dict[str, Any] = {"_id": row_id, "metadata": {}, "text": passages[name].text, "title": ""}
        if group_ids:
            row["group_id"] = passages[name].documents[0]
        rows.append(row)
    # the same question about several documents is one query with all their passages
    merged: dict[str, list[str]] = {}
    for example in examples:
        positives = merged.setdefault(example.question, [])
        positives += [name for name in example.positives if name not in positives]
    first = {example.question: example for example in reversed(examples)}
    queries = [
        {"_id": f"q{number}", "metadata": first[question].metadata, "text": question}
        for number, question in enumerate(merged)
    ]
    qrels = [(f"q{number}", names[name], 1) for number, positives in enumerate(merged.values()) for name in positives]
    write_beir(folder, rows, queries, qrels)


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        report = split(
            snakemake.input.source,  # noqa: F821
            snakemake.params.output,  # noqa: F821
            corpus_id=snakemake.params.corpus_id,  # noqa: F821
            options=snakemake.params.options,  # noqa: F821
        )
        write_json(snakemake.output.report, report)  # noqa: F821
