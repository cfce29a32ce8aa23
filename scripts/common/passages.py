"""The training corpus: passage ids from content, and the parquet file that holds them."""

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import atomic_path, write_json


@dataclasses.dataclass
class Passage:
    """A passage of the training corpus.

    Attributes:
        text: The text; identical texts are one passage.
        documents: The documents it occurs in.
        training_only: Made for a training pair (a sentence is cut out); never searched, mined or tested.
    """

    text: str
    documents: list[str]
    training_only: bool = False


def passage_id(text: str) -> str:
    """``d_`` and 16 hex digits of the text's SHA-256, as the recipe names passages."""
    return "d_" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write_corpus(folder: str | Path, passages: dict[str, Passage], corpus_id: str) -> None:
    """Write ``train.parquet`` (the recipe's ``id`` and ``text``, and what we know besides) and its metadata."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table(
        {
            "id": pa.array(list(passages), pa.string()),
            "text": pa.array([passage.text for passage in passages.values()], pa.string()),
            "documents": pa.array([passage.documents for passage in passages.values()], pa.list_(pa.string())),
            "training_only": pa.array([passage.training_only for passage in passages.values()], pa.bool_()),
        }
    )
    with atomic_path(Path(folder, "train.parquet")) as temporary:
        parquet.write_table(table, temporary)
    write_json(Path(folder, "merlin_metadata.json"), {"corpus_id": corpus_id, "class": "TextQADataset"})


def read_corpus(path: str | Path) -> dict[str, Passage]:
    """Passages by id, of a ``train.parquet`` or a folder with one; upstream's files lack our extra columns.

    Raises:
        UserError: The file is missing, is no parquet file, lacks ``id`` or ``text``, or has a row without them or with
            the id of another one.
    """
    import pyarrow as pa
    from pyarrow import parquet

    file = Path(path, "train.parquet") if Path(path).is_dir() else Path(path)
    try:
        table = parquet.read_table(file)
    except FileNotFoundError as error:
        raise UserError(f"corpus file {file} does not exist.") from error
    except pa.ArrowInvalid as error:
        raise UserError(f"corpus file {file} is not a parquet file: {error}") from error
    missing = {"id", "text"} - set(table.column_names)
    if missing:
        raise UserError(f"corpus file {file} has no column {' and '.join(sorted(missing))}.")
    columns = {name: table[name].to_pylist() for name in table.column_names}
    rows = len(table)
    first: dict[str, int] = {}
    for row, (name, text) in enumerate(zip(columns["id"], columns["text"], strict=True), start=1):
        if name is None or not isinstance(text, str):
            wrong = "id is null" if name is None else f"text is {'null' if text is None else type(text).__name__}"
            raise UserError(f"corpus file {file}, row {row}: {wrong}.")
        if first.setdefault(str(name), row) != row:
            raise UserError(f"corpus file {file}, row {row}: id {name} is also that of row {first[str(name)]}.")
    documents = columns.get("documents", [[] for _ in range(rows)])
    only = columns.get("training_only", [False] * rows)
    return {
        name: Passage(text, list(docs or []), bool(flag))
        for name, text, docs, flag in zip(first, columns["text"], documents, only, strict=True)
    }


def searchable(passages: dict[str, Passage]) -> list[str]:
    """Ids of the passages that a search may return."""
    return [name for name, passage in passages.items() if not passage.training_only]


def collect(texts: Iterable[tuple[str, str]]) -> dict[str, Passage]:
    """Passages by id of ``(text, document)`` items, in order of first occurrence."""
    found: dict[str, Passage] = {}
    for text, document in texts:
        passage = found.setdefault(passage_id(text), Passage(text, []))
        if document not in passage.documents:
            passage.documents.append(document)
    return found
