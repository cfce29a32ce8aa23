"""Documents to records: chunks that fit the embedding model, sections as the generator sees them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts.common.contract import join_prefix
from scripts.common.corpus import HUB, parse_extensions
from scripts.common.errors import UserError
from scripts.common.files import write_json, write_jsonl
from scripts.common.job import job, log
from scripts.common.models import resolve_model
from scripts.common.progress import progress
from scripts.common.tokens import fast_tokenizer
from scripts.sdg.documents import Document, fetch_from_hub, read_documents
from scripts.sdg.sentences import Span, chunk_spans

# A title is a first paragraph of at most so many words on one line
TITLE_WORDS = 25


def chunk_corpus(
    corpus_dir: str,
    records_file: str | Path,
    report_file: str | Path,
    *,
    options: dict[str, Any],
    model: dict[str, Any],
) -> None:
    """Write one record a document, with its chunks, and a report of what was read and what was left out.

    Args:
        corpus_dir: Local folder or ``hf://`` address.
        records_file: JSON Lines, the recipe's record without its generated fields.
        report_file: JSON with counts, warnings and the files left out with reasons.
        options: Options of the ``sdg`` section by name.
        model: Options of the ``model`` section; its tokenizer and passage length bound a chunk.
    """
    folder = fetch_from_hub(corpus_dir) if corpus_dir.startswith(HUB) else Path(corpus_dir)
    documents, skipped = read_documents(
        folder,
        parse_extensions(options["file_extensions"]),
        min_length=options["min_text_length"],
        max_bytes=options["max_file_size"],
        limit=options["num_files"],
    )
    for item in skipped:
        log.warning("left out %s: %s", item.name, item.reason)
    fits = length_check(resolve_model(model["base_model"], model["revision"]), model)
    bar = progress(len(documents), "chunk", "doc")
    records = []
    for document in documents:
        records.append(make_record(document, options, fits))
        bar.update()
    bar.close()
    write_jsonl(records_file, records)
    report = summary(records, skipped=[vars(item) for item in skipped])
    for warning in report["warnings"]:
        log.warning("%s", warning)
    log.info("%d documents, %d chunks", report["documents"], report["chunks"])
    write_json(report_file, report)


def length_check(folder: Path, model: dict[str, Any]) -> Callable[[str], bool]:
    """A test whether a passage fits ``passage_max_length``, prefix and special tokens included.

    Raises:
        UserError: Prefix and special tokens leave no room.
    """
    tokenizer = fast_tokenizer(folder)
    prefix, longest = join_prefix(model["passage_prefix"]), model["passage_max_length"]
    room = longest - len(tokenizer.encode(prefix).ids)
    if room < 4:
        raise UserError(
            f"model.passage_max_length ({longest}) leaves {room} tokens beside the prefix {prefix!r}; raise it."
        )
    # A token has at least one byte, so a text of few bytes fits; one of very many does not
    return lambda text: (
        len(text.encode()) <= room
        or (len(text) <= 60 * longest and len(tokenizer.encode(prefix + text).ids) <= longest)
    )


def make_record(document: Document, options: dict[str, Any], fits: Callable[[str], bool]) -> dict[str, Any]:
    """The record of one document, in the recipe's format, with ``title`` and character spans beside it."""
    spans = chunk_spans(document.text, sentences_per_chunk=options["sentences_per_chunk"], fits=fits)
    chunks = [make_chunk(document.text, sentences, number) for number, sentences in enumerate(spans, start=1)]
    return {
        "file_name": [document.name],
        "source_id": document.name,
        "title": title(document.text),
        "text": document.text,
        "chunks": chunks,
        "sections_structured": sections(chunks, options["num_sections"]),
        "bundle_id": "",
        "bundle_members": [document.name],
        "is_multi_doc": False,
    }


def make_chunk(text: str, sentences: Sequence[Span], number: int) -> dict[str, Any]:
    """A chunk: the verbatim source span; ``start`` and ``end`` count words, ``char_start`` and ``char_end`` characters."""
    first, last = sentences[0][0], sentences[-1][1]
    words_before, words = len(text[:first].split()), len(text[first:last].split())
    return {
        "text": text[first:last],
        "start": words_before,
        "end": words_before + words,
        "char_start": first,
        "char_end": last,
        "sentence_count": len(sentences),
        "word_count": words,
        "chunk_id": number,
        "doc_chunk_index": number - 1,
    }


def sections(chunks: Sequence[dict[str, Any]], count: int) -> list[str]:
    """Chunks as the generator sees them, in ``count`` sections (the last takes the rest)."""
    size = max(1, len(chunks) // count)
    found = []
    for number in range(min(count, len(chunks))):
        part = chunks[number * size : (number + 1) * size if number < count - 1 else None]
        lines = [f"Segment {chunk['chunk_id']} (00:00:00 - 00:00:00): {chunk['text']}" for chunk in part]
        found.append("\n".join([f"=== Section {number + 1} ===", *lines]))
    return found


def title(text: str) -> str:
    """The first paragraph when it is one short line that more text follows, without Markdown's heading mark."""
    first, _, rest = text.strip().partition("\n")
    words = first.lstrip("# ").strip()
    alone = first.startswith("#") or rest.startswith("\n")
    return words if alone and rest.strip() and 0 < len(words.split()) <= TITLE_WORDS else ""


def summary(records: Sequence[dict[str, Any]], skipped: list[dict[str, str]]) -> dict[str, Any]:
    """Counts and the recipe's preflight warnings."""
    short = sum("shorter than" in item["reason"] for item in skipped)
    warnings = []
    if len(records) < 20:
        warnings.append(f"only {len(records)} documents: 50 to 100 are the least for a useful model")
    if short > (len(records) + len(skipped)) / 2:
        warnings.append(f"{short} of {len(records) + len(skipped)} files are shorter than sdg.min_text_length")
    return {
        "documents": len(records),
        "characters": sum(len(record["text"]) for record in records),
        "chunks": sum(len(record["chunks"]) for record in records),
        "skipped": skipped,
        "warnings": warnings,
    }


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        chunk_corpus(
            snakemake.params.corpus_dir or snakemake.input.corpus,  # noqa: F821
            snakemake.output.records,  # noqa: F821
            snakemake.output.report,  # noqa: F821
            options=snakemake.params.options,  # noqa: F821
            model=snakemake.params.model,  # noqa: F821
        )
