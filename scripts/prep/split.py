"""Generated records to ``train.json``, ``val.json``, ``corpus/`` and ``eval_beir/``, divided by document."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.common.beir import write_beir
from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.common.job import job, log
from scripts.common.passages import Passage, searchable, write_corpus
from scripts.prep.assign import PARTS, assign, document_groups, read_groups
from scripts.prep.convert import Example, convert
from scripts.prep.frozen import plain, reuse, without_overlap
from scripts.prep.sources import read_records


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
    passages, examples, left_out = convert(
        records, quality_threshold=options["quality_threshold"], min_sub_score=options["min_sub_score"]
    )
    root, made = Path(output), len(examples)
    frozen = reuse(options["eval_beir_path"], root / "eval_beir") if options["eval_beir_path"] else None
    if frozen:
        examples, count = without_overlap(examples, passages, frozen)
        left_out["overlaps the frozen test set"] += count
        options = without_test(options)
    groups = read_groups(options, records)
    if options["split_near_duplicates"] is not None:
        groups += near_duplicate_groups(records, passages, examples, options["split_near_duplicates"])
    askable = collections.Counter(example.document for example in examples if not example.training_only)
    part_of = assign(askable, {example.document for example in examples} - set(askable), groups, options)
    parts: dict[str, list[Example]] = {part: [] for part in PARTS}
    for example in examples:
        parts[part_of[example.document]].append(example)
    keep_apart(parts, left_out)
    parts["train"] = train = few_positives(parts["train"], options["max_pos_docs"], left_out)
    tested = len(frozen.queries) if frozen else len({example.question for example in parts["test"]})
    said = warnings_of(options, {"train": len(train), "val": len(parts["val"]), "test": tested}, frozen=bool(frozen))
    for line in [*(f"left out {n} pairs: {reason}" for reason, n in left_out.most_common() if n), *said]:
        log.warning("%s", line)
    if not train:
        raise UserError(
            f"no training example is left of {made} pairs (what was left out and why stands above): lower "
            "prep.quality_threshold, raise prep.train_ratio, or generate more questions."
        )
    write_corpus(root / "corpus", passages, corpus_id)
    write_json(root / "train.json", training_file(train, corpus_id, 0))
    write_json(root / "val.json", training_file(parts["val"], corpus_id, len(train)))
    if not frozen:
        write_test_set(root / "eval_beir", passages, parts["test"], group_ids=options["use_group_id_in_eval"])
    counts = {
        "documents": {part: sum(value == part for value in part_of.values()) for part in PARTS},
        "examples": {"train": len(train), "val": len(parts["val"]), "test": len(parts["test"])},
        "passages": len(searchable(passages)),
        "training_only_passages": len(passages) - len(searchable(passages)),
        "left_out": {reason: count for reason, count in left_out.items() if count},
        "near_duplicate_groups": groups,
        "warnings": said,
        "part_of": part_of,
        "frozen_test_set": options["eval_beir_path"],
    }
    log.info("%(examples)s examples of %(documents)s documents, %(passages)d passages", counts)
    return counts


def keep_apart(parts: dict[str, list[Example]], left_out: collections.Counter[str]) -> None:
    """Take training-only pairs out of the test, and the test's questions and answers out of the rest.

    Documents may have a passage in common (a licence, a standard answer), and a question may have answers in several.
    A positive that answers a test question is a positive no more, but not a negative either; an example with no other
    one is dropped. Keeping such documents in one part would, through passages that most of them have, make one of all.
    """
    tested = [example for example in parts["test"] if not example.training_only]
    left_out["of a test document, but for training alone"] += len(parts["test"]) - len(tested)
    parts["test"] = tested
    asked = {plain(example.question) for example in tested}
    answers = {name for example in tested for name in example.positives}
    for part in ("train", "val"):
        unasked = [example for example in parts[part] if plain(example.question) not in asked]
        left_out["question also asked in the test"] += len(parts[part]) - len(unasked)
        parts[part] = [kept for example in unasked if (kept := _without(answers, example))]
        left_out["its answer is a test question's, too"] += len(unasked) - len(parts[part])


def _without(answers: set[str], example: Example) -> Example | None:
    """An example with none of ``answers`` among its positives; ``None`` if that leaves none."""
    positives = [name for name in example.positives if name not in answers]
    # of a training passage of its own, the chunk that it was cut from stands beside it
    if not positives or (example.training_only and not answers.isdisjoint(example.also_positive)):
        return None
    shared = [name for name in example.positives if name in answers]
    return dataclasses.replace(example, positives=positives, also_positive=[*example.also_positive, *shared])


def few_positives(examples: list[Example], most: int, left_out: collections.Counter[str]) -> list[Example]:
    """Examples with at most so many positives."""
    kept = [example for example in examples if len(example.positives) <= most]
    left_out["more positives than prep.max_pos_docs"] += len(examples) - len(kept)
    return kept


def warnings_of(options: dict[str, Any], sizes: dict[str, int], *, frozen: bool) -> list[str]:
    """What is too little, by the recipe's marks; ``sizes`` are numbers of questions by part."""
    train, test = sizes["train"], sizes["test"]
    said = []
    if 0 < train < 100:
        said.append(f"only {train} training examples: expect little; 100 are the least, 1000 are good")
    if (frozen or options["test_ratio"]) and test < 50:
        said.append(
            f"only {test} test queries: differences under several points mean nothing; 100 are better, 200 to 500 good"
        )
    if options["val_ratio"] and sizes["val"] < 20:
        said.append(f"only {sizes['val']} validation questions: the choice of a checkpoint rests on few")
    return said


def without_test(options: dict[str, Any]) -> dict[str, Any]:
    """Options under which all documents train or validate, in the proportion configured."""
    share = options["train_ratio"] + options["val_ratio"]
    train = options["train_ratio"] / share if share else 1.0
    return {**options, "train_ratio": train, "val_ratio": 1 - train if options["val_ratio"] else 0.0, "test_ratio": 0}


def near_duplicate_groups(
    records: Sequence[dict[str, Any]], passages: dict[str, Passage], examples: Sequence[Example], threshold: float
) -> list[list[str]]:
    """Documents that must not be divided because they, or the answers to their questions, are near-duplicates."""
    texts: dict[str, str] = {}
    for record in records:
        body = "\n".join(chunk["text"] for chunk in record["chunks"])
        texts[record["source_id"]] = f"{texts.get(record['source_id'], '')}\n{body}"
    positives: dict[str, set[str]] = {}
    for example in examples:
        for name in (*example.positives, *example.also_positive):
            positives.setdefault(name, set()).add(example.document)
    return document_groups(texts, positives, {name: passage.text for name, passage in passages.items()}, threshold)


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
            snakemake.params.source or snakemake.input.source,  # noqa: F821
            snakemake.params.output,  # noqa: F821
            corpus_id=snakemake.params.corpus_id,  # noqa: F821
            options=snakemake.params.options,  # noqa: F821
        )
        write_json(snakemake.output.report, report)  # noqa: F821
