"""Documents to records: chunks that fit the embedding model, sections as the generator sees them."""

import re
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
from scripts.sdg import bundles
from scripts.sdg.documents import Document, Skipped, fetch_from_hub, read_documents
from scripts.sdg.duplicates import exact_duplicates, near_duplicates
from scripts.sdg.headings import headings
from scripts.sdg.own_chunks import read_own_chunks
from scripts.sdg.sections import sections
from scripts.sdg.sentences import chunk_spans

# A title is a first paragraph of at most so many words on one line
TITLE_WORDS = 25
_FRONT_MATTER = re.compile(r"---[ \t]*\n.*?^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_FRONT_TITLE = re.compile(r"^title[ \t]*:[ \t]*(?P<title>[^\s>|][^\n]*)$", re.MULTILINE | re.IGNORECASE)
_OVERLINE = re.compile(r"\A(?P<ruler>([=\-~^*+#\"'])\2{2,})[ \t]*\n(?P<title>[^\n]+\n(?P=ruler)[ \t]*\n)")


def chunk_corpus(
    corpus_dir: str,
    records_file: str | Path,
    report_file: str | Path,
    groups_file: str | Path,
    *,
    options: dict[str, Any],
    model: dict[str, Any],
) -> None:
    """Write one record a document or bundle, with its chunks, and a report of what was read and what was left out.

    Args:
        corpus_dir: Local folder or ``hf://`` address.
        records_file: JSON Lines, the recipe's record without its generated fields.
        report_file: JSON with counts, warnings, duplicates and the files left out with reasons.
        groups_file: JSON with near duplicates in groups, in the form of ``prep.groups_json``.
        options: Options of the ``sdg`` section by name.
        model: Options of the ``model`` section; its tokenizer and passage length bound a chunk.
    """
    if options["chunks_file"]:
        records, skipped, warnings = own_records(options, model)
    else:
        records, skipped, warnings = document_records(corpus_dir, options, model)
    write_jsonl(records_file, records)
    report = summary(records, [vars(item) for item in skipped], warnings)
    texts = {record["source_id"]: record["text"] for record in records}
    report["exact_duplicates"] = exact_duplicates(texts)
    report["near_duplicates"] = near_duplicates(texts, options["near_duplicate_threshold"])
    if report["near_duplicates"]:
        count = sum(map(len, report["near_duplicates"]))
        report["warnings"].append(
            f"{count} documents are (nearly) the same as others ({', '.join(report['near_duplicates'][0][:3])}, say): "
            "their questions have several right answers. They stay together in training or test with "
            f"prep.split_strategy=groups and prep.groups_json={groups_file}"
        )
    for warning in report["warnings"]:
        log.warning("%s", warning)
    log.info("%d documents, %d chunks", report["documents"], report["chunks"])
    write_json(report_file, report)
    write_json(groups_file, report["near_duplicates"])


Read = tuple[list[dict[str, Any]], list[Skipped], list[str]]


def own_records(options: dict[str, Any], model: dict[str, Any]) -> Read:
    """Records of ``sdg.chunks_file``; chunks that exceed the model's length are kept and told."""
    records = read_own_chunks(options["chunks_file"], options)[: options["num_files"]]
    fits = length_check(resolve_model(model["base_model"], model["revision"]), model)
    long = sum(not fits(chunk["text"]) for record in records for chunk in record["chunks"])
    warning = f"{long} chunks are longer than model.passage_max_length; what is beyond it will not be searched"
    return records, [], [warning] if long else []


def document_records(corpus_dir: str, options: dict[str, Any], model: dict[str, Any]) -> Read:
    """Records of a folder of documents, what was left out, and warnings."""
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
    groups, warnings = [[document] for document in documents], []
    if options["multi_doc"]:
        groups, warnings = bundled(documents, folder, options)
    warnings += [f"{document.name}: {document.fault}" for document in documents if document.fault]
    fits = length_check(resolve_model(model["base_model"], model["revision"]), model)
    bar = progress(len(documents), "chunk", "doc")
    records = []
    for group in groups:
        records.append(make_record(group, options, fits))
        bar.update(len(group))
    bar.close()
    return records, skipped, warnings


def bundled(
    documents: Sequence[Document], folder: Path, options: dict[str, Any]
) -> tuple[list[list[Document]], list[str]]:
    """The documents in bundles, and warnings; :class:`UserError` says what is wrong with the manifest."""
    path = options["multi_doc_manifest"]
    by_name = {document.name: document for document in documents}
    groups, left_out = bundles.group(
        list(by_name),
        bundles.read_manifest(path) if path else [],
        size=options["bundle_size"],
        largest=options["max_docs_per_bundle"],
        exists=lambda name: (folder / name).is_file(),
    )
    warnings = []
    if left_out:
        shown = ", ".join(left_out[:5])
        warnings.append(f"{len(left_out)} documents of sdg.multi_doc_manifest are left out of the corpus: {shown}")
    return [[by_name[name] for name in group] for group in groups], warnings


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


def make_record(group: Sequence[Document], options: dict[str, Any], fits: Callable[[str], bool]) -> dict[str, Any]:
    """The record of a document or bundle, in the recipe's format, with ``title`` and character spans beside it.

    A chunk never reaches from one document into the next.
    """
    text, starts = bundles.join([document.text for document in group])
    names = [document.name for document in group]
    several = len(group) > 1
    count_words = word_counter(text)
    chunks: list[dict[str, Any]] = []
    for number, (document, start) in enumerate(zip(group, starts, strict=True), start=1):
        spans = chunk_spans(
            document.text, sentences_per_chunk=options["sentences_per_chunk"], fits=fits, name=document.name
        )
        place = {"doc_id": number, "doc_path": document.name} if several else {}
        for index, sentences in enumerate(spans):
            first, last = start + sentences[0][0], start + sentences[-1][1]
            chunks.append(
                {
                    "text": text[first:last],
                    "start": count_words(first),
                    "end": count_words(last),
                    "char_start": first,
                    "char_end": last,
                    "sentence_count": len(sentences),
                    "word_count": len(text[first:last].split()),
                    "chunk_id": len(chunks) + 1,
                    "doc_chunk_index": index,
                    **place,
                }
            )
    return {
        "file_name": names,
        "source_id": bundles.bundle_id(names) if several else names[0],
        "title": title(group[0].text),
        "text": text,
        "chunks": chunks,
        "sections_structured": sections(chunks, options["num_sections"], options["bundle_strategy"]),
        "bundle_id": bundles.bundle_id(names) if several else "",
        "bundle_members": names,
        "is_multi_doc": several,
    }


def word_counter(text: str) -> Callable[[int], int]:
    """How many words start before a position; positions must be asked in order, so that each is counted once."""
    position = words = 0

    def count(end: int) -> int:
        nonlocal position, words
        if end > position:
            inside_word = position > 0 and not text[position - 1].isspace() and not text[position].isspace()
            words += len(text[position:end].split()) - inside_word
            position = end
        return words

    return count


def title(text: str) -> str:
    """A document's title, or an empty text.

    That of its front matter; else its first paragraph when it is one short line that more text follows, without what
    marks it as a heading in Markdown or reST.
    """
    front = _FRONT_MATTER.match(text)
    named = _FRONT_TITLE.search(front[0]) if front else None
    if named:
        return " ".join(named["title"].strip("\"' \t").split())
    body = text[front.end() :].strip() if front else text.strip()
    # reST's rulers may stand above a title, too
    body = _OVERLINE.sub(r"\g<title>", body, count=1)
    first, _, rest = body.partition("\n")
    words = first.lstrip("# ").strip()
    alone = first.startswith("#") or rest.startswith("\n")
    found = headings(body)
    if found and found[0].start == 0 and found[0].text == words:
        alone, rest = True, body[found[0].end :]
    return words if alone and rest.strip() and 0 < len(words.split()) <= TITLE_WORDS else ""


def summary(
    records: Sequence[dict[str, Any]], skipped: Sequence[dict[str, str]], warnings: Sequence[str]
) -> dict[str, Any]:
    """Counts and the recipe's preflight warnings beside those there are."""
    documents = sum(len(record["bundle_members"]) for record in records)
    short = sum("shorter than" in item["reason"] for item in skipped)
    warnings = list(warnings)
    if documents < 20:
        warnings.append(f"only {documents} documents: 50 to 100 are the least for a useful model")
    if short > (documents + len(skipped)) / 2:
        warnings.append(f"{short} of {documents + len(skipped)} files are shorter than sdg.min_text_length")
    return {
        "documents": documents,
        "records": len(records),
        "characters": sum(len(record["text"]) for record in records),
        "chunks": sum(len(record["chunks"]) for record in records),
        "skipped": list(skipped),
        "warnings": warnings,
    }


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        chunk_corpus(
            snakemake.params.corpus_dir or snakemake.input.corpus,  # noqa: F821
            snakemake.output.records,  # noqa: F821
            snakemake.output.report,  # noqa: F821
            snakemake.output.groups,  # noqa: F821
            options=snakemake.params.options,  # noqa: F821
            model=snakemake.params.model,  # noqa: F821
        )
