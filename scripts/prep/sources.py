"""Question data from the workflow, from both generations of the recipe, or of the user's own making.

The reader is lenient in what the formats leave open (extra fields, a file name as text, other enum strings) and exact
about what is wrong: file, line and field.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import read_json, read_jsonl

Located = tuple[str, dict[str, Any]]


def read_records(source: str | Path) -> list[dict[str, Any]]:
    """Records of a file, folder or ``generation_result.json``.

    Accepted: JSON (a list or one record), JSON Lines, parquet, and own pairs as CSV, TSV or JSON Lines with columns
    ``question`` and ``passage`` (and optionally ``document``).

    Raises:
        UserError: Nothing is there, formats are mixed, or a record is malformed.
    """
    records = []
    pairs: list[Located] = []
    for path in _files(Path(source)):
        for place, row in _rows(path):
            if not isinstance(row, dict):
                raise UserError(f"{place}: expected an object, found {type(row).__name__}.")
            if "chunks" in row:
                records.append(check_record(row, place))
            elif "question" in row and "passage" in row:
                pairs.append((place, row))
            else:
                raise UserError(
                    f"{place}: neither a generated record (it has no `chunks`) nor an own pair "
                    "(`question` and `passage`)."
                )
    records += own_pairs(pairs)
    if not records:
        raise UserError(f"{source} holds no record.")
    return records


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        manifest = source / "generation_result.json"
        return [_manifest_target(manifest)] if manifest.is_file() else _folder_files(source)
    if not source.is_file():
        raise UserError(f"prep.sdg_input_path {source} does not exist. Run stage 0 first, or correct the path.")
    return [_manifest_target(source)] if source.name == "generation_result.json" else [source]


def _folder_files(folder: Path) -> list[Path]:
    kinds = {suffix: sorted(folder.glob(f"*{suffix}")) for suffix in (".json", ".jsonl", ".parquet", ".csv", ".tsv")}
    batches = sorted(folder.glob("generated_batch*.json"))
    present = {suffix: files for suffix, files in kinds.items() if files}
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
        from pyarrow import parquet

        for number, row in enumerate(parquet.read_table(path).to_pylist(), start=1):
            yield f"{path}, row {number}", row
    elif path.suffix in {".csv", ".tsv"}:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
            for row in reader:
                yield f"{path}, line {reader.line_num}", row
    elif path.suffix == ".jsonl":
        for number, row in read_jsonl(path, "question file"):
            yield f"{path}, line {number}", row
    else:
        yield from _json_rows(path)


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError):
        # the first generation also wrote JSON Lines under the name .json
        for number, row in read_jsonl(path, "question file"):
            yield f"{path}, line {number}", row
        return
    for number, row in enumerate(value if isinstance(value, list) else [value], start=1):
        yield f"{path}, record {number}", row


def check_record(row: dict[str, Any], place: str) -> dict[str, Any]:
    """A record with the fields that conversion reads, whatever generation wrote it."""
    names = row.get("file_name") or row.get("source_id") or ""
    names = [names] if isinstance(names, str) else [str(name) for name in names]
    chunks = _json_field(row.get("chunks"), f"{place}: chunks")
    for chunk in chunks:
        if not isinstance(chunk, dict) or not isinstance(chunk.get("text"), str) or "chunk_id" not in chunk:
            raise UserError(f"{place}: every chunk needs `text` and `chunk_id`.")
    pairs = _json_field(row.get("deduplicated_qa_pairs"), f"{place}: deduplicated_qa_pairs")
    evaluations = _json_field(row.get("qa_evaluations"), f"{place}: qa_evaluations")
    if isinstance(evaluations, dict):
        evaluations = evaluations.get("evaluations") or []
    for pair in pairs:
        if not isinstance(pair, dict) or not isinstance(pair.get("question"), str):
            raise UserError(f"{place}: every pair needs a `question`.")
    source = str(row.get("source_id") or "||".join(names))
    return {"source_id": source, "file_name": names, "chunks": chunks, "pairs": pairs, "evaluations": evaluations}


def _json_field(value: Any, what: str) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"{what} is text that is no JSON ({error}).") from error
    return [] if value is None else value


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
