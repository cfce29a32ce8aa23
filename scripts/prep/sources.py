"""Question data from the workflow, from both generations of the recipe, or of the user's own making.

The reader is lenient in what the formats leave open (extra fields, a file name as text, other enum strings) and exact
about what is wrong: file, line and field.
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.common.corpus import HUB
from scripts.common.errors import UserError
from scripts.common.files import read_json, read_jsonl
from scripts.common.job import log
from scripts.prep.collections import (
    PASSAGE_COLUMNS,
    QUESTION_COLUMNS,
    as_pair,
    beir_records,
    dataset_rows,
    is_beir,
    is_saved_dataset,
)

HALF_PAIR = re.compile("[\ud800-\udfff]")
Located = tuple[str, dict[str, Any]]


def read_records(source: str | Path) -> list[dict[str, Any]]:
    """Records of a file, folder or ``generation_result.json``.

    Accepted: JSON (a list or one record), JSON Lines, parquet, own pairs as CSV, TSV or any of these with columns
    ``question`` and ``passage`` (or as sentence-transformers names them; optionally ``document``), a collection in BEIR
    layout, and data sets of the ``datasets`` library, here or on the hub.

    Raises:
        UserError: Nothing is there, formats are mixed, or a record is malformed.
    """
    if not str(source).startswith(HUB) and is_beir(Path(source)):
        return whole(beir_records(Path(source)))
    records = []
    pairs: list[Located] = []
    unlabelled = 0
    for place, row in _all_rows(source):
        if not isinstance(row, Mapping):
            raise UserError(f"{place}: expected an object, found {type(row).__name__}.")
        if "chunks" in row:
            records.append(check_record(dict(row), place))
        elif (pair := as_pair(row, place)) is not None:
            if pair:
                pairs.append((place, pair))
            else:
                unlabelled += 1
        else:
            raise UserError(
                f"{place}: neither a generated record (it has no `chunks`) nor an own pair (columns `question` and "
                f"`passage`, or {', '.join(QUESTION_COLUMNS[1:])} with {', '.join(PASSAGE_COLUMNS[1:])}); its columns "
                f"are {', '.join(map(str, row)) or 'none'}."
            )
    if unlabelled:
        log.info("%d pairs whose label is below 1 are no positives", unlabelled)
    records += own_pairs(pairs)
    if not records:
        raise UserError(f"{source} holds no record.")
    return whole(records)


def whole(value: Any) -> Any:
    """A value with U+FFFD for each half of a surrogate pair in its texts.

    JSON that was cut between the two has such; neither parquet nor a tokenizer takes them.
    """
    if isinstance(value, str):
        return value if value.isascii() else HALF_PAIR.sub("\ufffd", value)
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, list) else value


def source_files(source: str) -> list[str]:
    """The files that :func:`read_records` reads; none of a data set on the hub. Opens no more than a manifest.

    Raises:
        UserError: A folder mixes formats or holds none, or a manifest is wrong.
    """
    path = Path(source)
    if source.startswith(HUB):
        return []
    if not path.exists():
        return [source]
    if is_beir(path):
        found = [path / "corpus.jsonl", path / "queries.jsonl", *sorted(path.glob("qrels/*.tsv"))]
    elif _is_dataset(path):
        found = [file for file in sorted(path.rglob("*")) if file.is_file()]
    else:
        manifest = path / "generation_result.json" if path.is_dir() else path
        found = _files(path)
        if manifest.name == "generation_result.json" and manifest.is_file():
            found = [manifest, *found]
    return list(map(str, found))


def _is_dataset(folder: Path) -> bool:
    """Whether a folder is for the ``datasets`` library to read."""
    return folder.is_dir() and (is_saved_dataset(folder) or not _present(folder)) and any(folder.iterdir())


def _all_rows(source: str | Path) -> Iterator[tuple[str, Any]]:
    folder = Path(source)
    if str(source).startswith(HUB) or _is_dataset(folder):
        yield from dataset_rows(source)
        return
    for path in _files(folder):
        yield from _rows(path)


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        manifest = source / "generation_result.json"
        return [_manifest_target(manifest)] if manifest.is_file() else _folder_files(source)
    if not source.is_file():
        raise UserError(f"prep.sdg_input_path {source} does not exist. Run stage 0 first, or correct the path.")
    return [_manifest_target(source)] if source.name == "generation_result.json" else [source]


def _present(folder: Path) -> dict[str, list[Path]]:
    """Files of a folder by format."""
    kinds = {suffix: sorted(folder.glob(f"*{suffix}")) for suffix in (".json", ".jsonl", ".parquet", ".csv", ".tsv")}
    return {suffix: files for suffix, files in kinds.items() if files}


def _folder_files(folder: Path) -> list[Path]:
    batches = sorted(folder.glob("generated_batch*.json"))
    present = _present(folder)
    if not present:
        raise UserError(f"{folder} holds no .json, .jsonl, .parquet or .csv file.")
    if batches and set(present) == {".json"}:
        return batches
    if len(present) > 1:
        raise UserError(f"{folder} mixes formats ({', '.join(present)}). Name the one file or folder to read.")
    return next(iter(present.values()))


def _manifest_target(path: Path) -> Path:
    manifest = read_json(path, "generation manifest")
    if not isinstance(manifest, dict):
        raise UserError(f"Invalid generation manifest {path}: expected an object.")
    if manifest.get("schema_version") != 1:
        raise UserError(f"Unsupported generation manifest schema {manifest.get('schema_version')!r} in {path}.")
    if not manifest.get("output_path"):
        raise UserError(f"Generation manifest {path} has no output_path.")
    target = path.parent / manifest["output_path"]
    if not target.is_file():
        raise UserError(f"Generation output referenced by {path} does not exist: {target}")
    return target


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        try:
            table = parquet.read_table(path)
        except pa.ArrowInvalid as error:
            raise UserError(f"{path} is not a parquet file: {error}") from error
        for number, row in enumerate(table.to_pylist(), start=1):
            yield f"{path}, row {number}", row
    elif path.suffix in {".csv", ".tsv"}:
        yield from _csv_rows(path, "\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".jsonl":
        for number, row in read_jsonl(path, "question file"):
            yield f"{path}, line {number}", row
    else:
        yield from _json_rows(path)


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, delimiter=delimiter, strict=True)
        before = 1
        try:
            for row in reader:
                # a quoted cell may hold line ends; named is the line that the row begins in
                place, before = f"{path}, line {before + 1}", reader.line_num
                if None in row or None in row.values():
                    missing = list(row.values()).count(None)
                    more = row.pop(None, [])  # type: ignore[call-overload]
                    raise UserError(
                        f"{place}: {len(row) + len(more) - missing} cells, but the header names {len(row)}."
                    )
                yield place, row
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, after line {before}: not UTF-8 ({error.reason}). Save it as UTF-8.") from error
        except csv.Error as error:
            raise UserError(f"{path}, line {before + 1}: {error}.") from error


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Records of a JSON file, a list or one record, each with the line that it begins in."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from error
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        # the first generation also wrote JSON Lines under the name .json
        if not _is_json(next(iter(text.strip().splitlines()), "")):
            raise UserError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}.") from error
        for number, row in read_jsonl(path, "question file"):
            yield f"{path}, line {number}", row
        return
    rows = value if isinstance(value, list) else [value]
    for number, (row, line) in enumerate(zip(rows, _lines_of(text, value), strict=True), start=1):
        yield f"{path}, line {line} (record {number})", row


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _lines_of(text: str, value: Any) -> Iterator[int]:
    """Line in which each item of a list begins, of valid JSON; of anything else, in which that does."""
    if not isinstance(value, list):
        yield 1 + text[: len(text) - len(text.lstrip())].count("\n")
        return
    decoder, position, line, counted = json.JSONDecoder(), text.index("[") + 1, 1, 0
    for _ in value:
        while text[position] in " \t\r\n,":
            position += 1
        line, counted = line + text.count("\n", counted, position), position
        yield line
        position = decoder.raw_decode(text, position)[1]


def check_record(row: dict[str, Any], place: str) -> dict[str, Any]:
    """A record with the fields that conversion reads, whatever generation wrote it.

    Numbers of chunks may be text; of an evaluation that is null there is no score.

    Raises:
        UserError: A field is not what it must be; the message names place and field.
    """
    names = row.get("file_name") or row.get("source_id") or ""
    names = [names] if isinstance(names, str) else [str(name) for name in _list(names, f"{place}: file_name")]
    chunks = _list(row.get("chunks"), f"{place}: chunks")
    for number, chunk in enumerate(chunks, start=1):
        if not isinstance(chunk, dict) or not isinstance(chunk.get("text"), str) or "chunk_id" not in chunk:
            raise UserError(f"{place}, chunk {number}: every chunk needs `text` and `chunk_id`.")
        chunk["chunk_id"] = _chunk_id(chunk["chunk_id"], f"{place}, chunk {number}: chunk_id")
    pairs = _list(row.get("deduplicated_qa_pairs"), f"{place}: deduplicated_qa_pairs")
    for number, pair in enumerate(pairs, start=1):
        where = f"{place}, pair {number}"
        if not isinstance(pair, dict) or not isinstance(pair.get("question"), str):
            raise UserError(f"{where}: every pair needs a `question`.")
        segments = _list(pair.get("segment_ids"), f"{where}: segment_ids")
        pair["segment_ids"] = [_chunk_id(segment, f"{where}: segment_ids") for segment in segments]
    evaluations = _evaluations(row.get("qa_evaluations"), place)
    source = str(row.get("source_id") or "||".join(names))
    return {"source_id": source, "file_name": names, "chunks": chunks, "pairs": pairs, "evaluations": evaluations}


def _evaluations(value: Any, place: str) -> list[dict[str, Any]] | None:
    """Evaluations in the order of the pairs; ``None`` where nothing was judged."""
    value = _from_json(value, f"{place}: qa_evaluations")
    if value is None:
        return None
    if isinstance(value, dict):
        value = value.get("evaluations")
    found = []
    for number, judged in enumerate(_list(value, f"{place}: qa_evaluations"), start=1):
        # a null among them is of a judge that failed: no score, which is not the same as no judge
        verdict = {} if _nothing(judged) else judged
        if not isinstance(verdict, dict):
            raise UserError(
                f"{place}, evaluation {number}: expected an object with `overall`, found {type(verdict).__name__}."
            )
        found.append(verdict)
    return found


def _chunk_id(value: Any, what: str) -> int | str:
    """A number, however written, as a number: parquet and CSV tools make floats and texts of them."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UserError(f"{what} is {value!r}, but must be a number or text.")
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _list(value: Any, what: str) -> list[Any]:
    value = _from_json(value, what)
    if value is None:
        return []
    if not isinstance(value, list):
        raise UserError(f"{what} is {value!r}, but must be a list."[:300])
    return value


def _from_json(value: Any, what: str) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"{what} is text that is no JSON ({error}).") from error
    return None if _nothing(value) else value


def _nothing(value: Any) -> bool:
    """Whether a value is null, or the NaN that pandas writes in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def own_pairs(rows: list[Located]) -> list[dict[str, Any]]:
    """Records of own pairs; the passages of a named document form one record, unnamed ones stand alone."""
    records: dict[str, dict[str, Any]] = {}
    for place, row in rows:
        question, passage = (str(row.get(name) or "").strip() for name in ("question", "passage"))
        if not question or not passage:
            raise UserError(f"{place}: `question` and `passage` must not be empty.")
        name = str(row.get("document") or passage)
        record = records.setdefault(
            name,
            {"source_id": name, "file_name": [name[:80]], "chunks": [], "pairs": [], "evaluations": None},
        )
        known = {chunk["text"]: chunk["chunk_id"] for chunk in record["chunks"]}
        if passage not in known:
            known[passage] = len(record["chunks"]) + 1
            record["chunks"].append({"text": passage, "chunk_id": known[passage]})
        record["pairs"].append(
            {"question": question, "segment_ids": [known[passage]], "query_type": "own", "answer": ""}
        )
    return list(records.values())
