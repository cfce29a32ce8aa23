"""Chunks of the user's own making, such as the dump of a vector database, instead of a folder of documents."""

from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import read_jsonl, without_half_pairs
from scripts.sdg.sections import sections

GAP = "\n\n"
_TEXT = ("text", "content", "page_content")
_DOCUMENT = ("document", "source_id", "source", "doc_id", "file_name", "title", "id")


def read_own_chunks(path: str | Path, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Records of a JSON Lines file with one chunk a line, kept as they are.

    A line has the chunk under ``text`` (or ``content``, ``page_content``) and its document under ``document`` (or
    ``source_id``, ``source``, ``doc_id``, ``file_name``), itself or inside ``metadata``; a chunk without a document is
    one of its own. ``title`` names a document. Chunks of a document follow each other in the file's order.

    Raises:
        UserError: A line is malformed, or there is none.
    """
    documents: dict[str, list[str]] = {}
    titles: dict[str, str] = {}
    for number, row in read_jsonl(path, "sdg.chunks_file"):
        place = f"sdg.chunks_file {path}, line {number}"
        if not isinstance(row, dict):
            raise UserError(f"{place}: expected an object, found {type(row).__name__}.")
        metadata = row["metadata"] if isinstance(row.get("metadata"), dict) else {}
        text = next((row[name] for name in _TEXT if isinstance(row.get(name), str)), None)
        if text is None or not text.strip():
            raise UserError(f"{place}: no chunk under any of {', '.join(_TEXT)}.")
        values = {**metadata, **row}
        name = next((values[name] for name in _DOCUMENT if isinstance(values.get(name), str | int)), f"line {number}")
        name = without_half_pairs(str(name))
        documents.setdefault(name, []).append(without_half_pairs(text.strip()))
        if isinstance(values.get("title"), str):
            titles.setdefault(name, " ".join(without_half_pairs(values["title"]).split()))
    if not documents:
        raise UserError(f"sdg.chunks_file {path} is empty.")
    return [_record(name, texts, titles.get(name, ""), options) for name, texts in sorted(documents.items())]


def _record(name: str, texts: list[str], title: str, options: dict[str, Any]) -> dict[str, Any]:
    chunks: list[dict[str, Any]] = []
    position = words = 0
    for number, text in enumerate(texts):
        count = len(text.split())
        chunks.append(
            {
                "text": text,
                "start": words,
                "end": words + count,
                "char_start": position,
                "char_end": position + len(text),
                "sentence_count": 1,
                "word_count": count,
                "chunk_id": number + 1,
                "doc_chunk_index": number,
            }
        )
        position, words = position + len(text) + len(GAP), words + count
    return {
        "file_name": [name],
        "source_id": name,
        "title": title,
        "text": GAP.join(texts),
        "chunks": chunks,
        "sections_structured": sections(chunks, options["num_sections"]),
        "bundle_id": "",
        "bundle_members": [name],
        "is_multi_doc": False,
    }
