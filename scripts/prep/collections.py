"""Question data of other projects: test collections in BEIR layout, and data sets of the ``datasets`` library."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.common.beir import read_beir
from scripts.common.corpus import HUB
from scripts.common.errors import UserError
from scripts.common.job import log

# Names that sentence-transformers' data sets have for the two sides of a pair, the recipe's own first
QUESTION_COLUMNS = ("question", "query", "anchor", "sentence1")
PASSAGE_COLUMNS = ("passage", "positive", "answer", "context", "document_text", "response", "sentence2")
# Columns that say whether a pair belongs together, by 1 or 0
LABEL_COLUMNS = ("label", "score")
# How names of labels begin that say that a pair does not belong together
NO_NAMES = ("not", "no_", "non", "neg", "contra", "neutral")
_ADDRESS = re.compile(
    r"^hf://(?P<name>[^/@#:\s]+/[^/@#:\s]+)(@(?P<revision>[^#:]+))?(:(?P<config>[^#]+))?(#(?P<split>.+))?$"
)


def as_pair(row: Mapping[str, Any], place: str) -> dict[str, Any] | None:
    """``question``, ``passage`` and, if named, ``document`` of a row, whatever its columns are called.

    Returns:
        The pair; an empty one when the row's label says that it is none; ``None`` when the row has no such columns.

    Raises:
        UserError: A column holds something else than text, or the label is neither 0 nor 1.
    """
    question = next((name for name in QUESTION_COLUMNS if name in row), None)
    passage = next((name for name in PASSAGE_COLUMNS if name in row), None)
    if question is None or passage is None:
        return None
    for name in (question, passage):
        if not isinstance(row[name], str):
            raise UserError(f"{place}: column `{name}` must be text, but is {type(row[name]).__name__}.")
    label = next((row[name] for name in LABEL_COLUMNS if row.get(name) not in (None, "")), None)
    # own pairs may have any columns besides; only data sets of pairs with labels have the columns sentence1, sentence2
    labelled = label is not None and (question, passage) == ("sentence1", "sentence2")
    if labelled and not _belong_together(label, place):
        return {}
    return {"question": row[question], "passage": row[passage], "document": row.get("document")}


def _belong_together(label: Any, place: str) -> bool:
    try:
        number = float(label)
    except (TypeError, ValueError):
        raise UserError(f"{place}: the label {label!r} is no number.") from None
    if number not in (0, 1):
        raise UserError(
            f"{place}: the label {label!r} is neither 0 nor 1, and nothing says from where on a pair belongs together. "
            "Keep the pairs that do, and drop the column."
        )
    return number == 1


def is_beir(folder: Path) -> bool:
    """Whether a folder is a collection in BEIR layout."""
    return (folder / "corpus.jsonl").is_file() and (folder / "queries.jsonl").is_file()


def beir_records(folder: Path) -> list[dict[str, Any]]:
    """Records of a collection: each document one chunk, each query a pair of its best document, its other ones besides.

    Queries of ``qrels/test.tsv`` stay out when there are ``qrels/train.tsv`` or ``dev.tsv``: they are a test set for
    ``eval.test_sets``.

    Raises:
        UserError: A file is missing or a line wrong (see :func:`scripts.common.beir.read_beir`).
    """
    splits = sorted(path.stem for path in folder.glob("qrels/*.tsv"))
    if not splits:
        raise UserError(
            f"{folder} has corpus.jsonl and queries.jsonl, but no qrels/*.tsv to say what belongs together."
        )
    chosen = [split for split in splits if split != "test"] or splits
    log.info("%s: pairs of qrels/%s.tsv", folder, ", ".join(chosen))
    records: dict[str, dict[str, Any]] = {}
    for split in chosen:
        collection = read_beir(folder, split=split)
        for name, text in collection.corpus.items():
            if text and name not in records:
                chunks = [{"text": text, "chunk_id": 1}]
                records[name] = {
                    "source_id": name,
                    "file_name": [name],
                    "chunks": chunks,
                    "pairs": [],
                    "evaluations": None,
                }
        for query, judged in collection.qrels.items():
            relevant = sorted((name for name, score in judged.items() if score > 0), key=lambda n: (-judged[n], n))
            relevant = [name for name in relevant if name in records]
            if relevant:
                pair = {"question": collection.queries[query], "segment_ids": [1], "query_type": "own", "answer": ""}
                pair["also_in"] = [collection.corpus[name] for name in relevant[1:]]
                records[relevant[0]]["pairs"].append(pair)
    return list(records.values())


def is_saved_dataset(folder: Path) -> bool:
    """Whether ``datasets`` wrote a folder with ``save_to_disk``."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def dataset_rows(source: str | Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """``(place, row)`` of a data set: a folder, or ``hf://org/name[@revision][:configuration][#split]``.

    Without a split it is ``train``, or the only one there is.

    Raises:
        UserError: The data set cannot be had, or has no such split.
    """
    import datasets

    split = None
    try:
        if str(source).startswith(HUB):
            found = _ADDRESS.match(str(source))
            if found is None:
                raise UserError(
                    f"prep.sdg_input_path {source} is not of the form hf://org/name[@revision][:configuration][#split]."
                )
            split = found["split"]
            loaded = datasets.load_dataset(found["name"], found["config"], revision=found["revision"])
        elif is_saved_dataset(Path(source)):
            loaded = datasets.load_from_disk(str(source))
        else:
            loaded = datasets.load_dataset(str(source))
    except UserError:
        raise
    except Exception as error:  # the library raises whatever its readers raise
        first = next(iter(str(error).splitlines()), "")
        raise UserError(f"data set {source} cannot be read: {type(error).__name__}: {first}") from error
    if isinstance(loaded, datasets.DatasetDict):
        name = split or ("train" if "train" in loaded or len(loaded) > 1 else next(iter(loaded)))
        if name not in loaded:
            raise UserError(f"data set {source} has no split {name!r}; choose one with #split: {', '.join(loaded)}.")
        loaded, source = loaded[name], f"{source}, split {name}"
    _check_label_names(loaded.features, source)
    for number, row in enumerate(loaded, start=1):
        yield f"{source}, row {number}", row


def _check_label_names(features: Mapping[str, Any], source: str | Path) -> None:
    """Some data sets of sentence pairs have 0 for pairs that belong together (RTE: 1 is ``not_entailment``)."""
    for column in LABEL_COLUMNS:
        names = getattr(features.get(column), "names", None) or []
        if "sentence1" in features and len(names) > 1 and names[1].lower().startswith(NO_NAMES):
            raise UserError(
                f"data set {source}: label 1 of column `{column}` is {names[1]!r}, so 1 does not say that a pair "
                "belongs together. Keep the pairs that do, and drop the column."
            )
