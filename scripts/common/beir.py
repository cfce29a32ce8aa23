"""Test collections in BEIR layout (Thakur et al. 2021): corpus.jsonl, queries.jsonl, qrels/test.tsv."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import atomic_path, read_jsonl, write_jsonl

QRELS_HEADER = "query-id\tcorpus-id\tscore"


@dataclasses.dataclass(frozen=True)
class TestSet:
    """A test collection.

    Attributes:
        corpus: Passage text by id, title in front.
        queries: Query text by id; only queries that have judgements.
        qrels: Judged scores by query and passage id.
        metadata: Query metadata by id.
    """

    __test__ = False  # not a test class, whatever pytest thinks

    corpus: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    metadata: dict[str, dict[str, Any]]


def passage_text(row: dict[str, Any]) -> str:
    """``title text`` as BEIR joins them; queries have no title."""
    return f"{row.get('title') or ''} {row['text']}".strip()


def read_beir(folder: str | Path, split: str = "test") -> TestSet:
    """Read and check a collection with the judgements of ``qrels/<split>.tsv``.

    Raises:
        UserError: A file is missing, a line malformed, an id unknown or twice, or nothing is judged.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"test set {root} does not exist (BEIR layout: corpus.jsonl, queries.jsonl, qrels/test.tsv).")
    corpus, _ = _read_texts(root / "corpus.jsonl", allow_empty=True)
    queries, metadata = _read_texts(root / "queries.jsonl", allow_empty=False)
    qrels = _read_qrels(root / "qrels" / f"{split}.tsv", queries, corpus)
    judged = {
        query: text for query, text in queries.items() if any(score > 0 for score in qrels.get(query, {}).values())
    }
    if not judged:
        raise UserError(f"test set {root}: no query has a relevant passage in qrels/{split}.tsv.")
    return TestSet(corpus, judged, {query: qrels[query] for query in judged}, metadata)


def write_beir(
    folder: str | Path,
    corpus: Iterable[dict[str, Any]],
    queries: Iterable[dict[str, Any]],
    qrels: Iterable[tuple[str, str, int]],
) -> None:
    """Write a collection: corpus and query rows (``_id``, ``text``, ``metadata``, ``title``) and judged triples."""
    root = Path(folder)
    write_jsonl(root / "corpus.jsonl", corpus)
    write_jsonl(root / "queries.jsonl", queries)
    with atomic_path(root / "qrels" / "test.tsv") as temporary:
        lines = [QRELS_HEADER, *(f"{query}\t{passage}\t{score}" for query, passage, score in qrels)]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _read_texts(path: Path, *, allow_empty: bool) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    texts: dict[str, str] = {}
    metadata: dict[str, dict[str, Any]] = {}
    for number, row in read_jsonl(path, "test set file"):
        if not isinstance(row, dict) or "_id" not in row or not isinstance(row.get("text"), str):
            raise UserError(f"{path}, line {number}: a row needs _id and text.")
        name, text = str(row["_id"]), passage_text(row)
        if name in texts:
            raise UserError(f"{path}, line {number}: id {name} stands there twice.")
        if not text and not allow_empty:
            raise UserError(f"{path}, line {number}: query {name} is empty.")
        if not isinstance(row.get("metadata") or {}, dict):
            raise UserError(f"{path}, line {number}: metadata of {name} must be an object.")
        texts[name] = text
        metadata[name] = row.get("metadata") or {}
    return texts, metadata


def _read_qrels(path: Path, queries: dict[str, str], corpus: dict[str, str]) -> dict[str, dict[str, int]]:
    if not path.is_file():
        raise UserError(f"test set file {path} does not exist.")
    qrels: dict[str, dict[str, int]] = {}
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"test set file {path} is not UTF-8 ({error}); save it as UTF-8.") from error
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip() or (number == 1 and line.split("\t")[0] == "query-id"):
            continue
        try:
            query, passage, raw = line.rstrip("\r").split("\t")
            score = int(raw)
        except ValueError:
            raise UserError(
                f"{path}, line {number}: expected query-id, corpus-id and a whole score, by tabs."
            ) from None
        for name, known, kind in ((query, queries, "query"), (passage, corpus, "passage")):
            if name not in known:
                raise UserError(f"{path}, line {number}: {kind} {name} is not in the collection.")
        if passage in qrels.setdefault(query, {}):
            raise UserError(f"{path}, line {number}: query {query} and passage {passage} are judged twice.")
        qrels[query][passage] = score
    return qrels
