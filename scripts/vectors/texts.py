"""The texts of a file that the workflow embeds, whatever its format."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from scripts.common.beir import passage_text
from scripts.common.errors import UserError
from scripts.common.files import read_json, read_jsonl


def read_texts(files: Iterable[str | Path]) -> list[str]:
    """All texts to embed in these files, each once, in order.

    ``train.json``-shaped files give questions, parquet corpora and BEIR files their texts, generated shards their
    questions, chunked records their chunks.
    """
    return list(dict.fromkeys(text for path in files for text in _texts(Path(path))))


def _texts(path: Path) -> Iterator[str]:
    if path.suffix == ".parquet":
        from pyarrow import parquet

        yield from parquet.read_table(path, columns=["text"])["text"].to_pylist()
    elif path.suffix == ".json":
        yield from (item["question"] for item in read_json(path, "training file")["data"])
    elif path.suffix == ".jsonl":
        for number, row in read_jsonl(path):
            yield from _row_texts(row, path, number)
    else:
        raise UserError(f"{path}: texts to embed come as .jsonl, .json or .parquet.")


def _row_texts(row: dict[str, Any], path: Path, number: int) -> Iterator[str]:
    if "qa_generation" in row:
        yield from (pair["question"] for pair in row["qa_generation"]["pairs"])
    elif "chunks" in row:
        yield from (chunk["text"] for chunk in row["chunks"])
    elif "_id" in row and "text" in row:
        yield passage_text(row)
    else:
        raise UserError(f"{path}, line {number}: neither a record, nor a generated record, nor a BEIR row.")
