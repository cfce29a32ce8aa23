"""What became of the questions: counts by filter, a figure of them, where all came from, and the record's form."""

import collections
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.common.files import read_json, read_jsonl, sha256_file, write_json, write_text
from scripts.common.redaction import redacted

RECORD_SCHEMA = Path(__file__).parents[2] / "config" / "schema" / "record.schema.json"
DUPLICATES = ("asked before", "near duplicate", "near duplicate of another document's")
STEPS = ("asked", "generated", "deduplicated", "judged", "kept")


def summary(
    records: Sequence[Mapping[str, Any]],
    reasons: Sequence[Sequence[str | None]],
    failures: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Counts of ``sdg_report.json``.

    Args:
        records: Generated records, with ``generation.judged`` and marks still in them.
        reasons: Why each pair is dropped, by record.
        failures: The ledger.
    """
    dropped: collections.Counter[str] = collections.Counter()
    by_type: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    marked: collections.Counter[str] = collections.Counter()
    judged = 0
    for record, why in zip(records, reasons, strict=True):
        judged += sum(verdict is not None for verdict in record["generation"]["judged"] or [])
        for pair, reason in zip(record["qa_generation"]["pairs"], why, strict=True):
            by_type[pair["query_type"]]["kept" if reason is None else reason] += 1
            if reason is None:
                marked.update(pair.get("marks", []))
            else:
                dropped[reason] += 1
    generated = sum(len(record["qa_generation"]["pairs"]) for record in records)
    return {
        "documents": len(records),
        "asked": sum(record["generation"].get("asked", 0) for record in records),
        "generated": generated,
        "generated_without_llm": sum(
            bool(pair.get("llm_free")) for record in records for pair in record["qa_generation"]["pairs"]
        ),
        "deduplicated": generated - sum(dropped[reason] for reason in DUPLICATES),
        "judged": judged,
        "kept": generated - dropped.total(),
        "kept_by_query_type": {name: counts["kept"] for name, counts in sorted(by_type.items()) if counts["kept"]},
        "dropped_by_reason": dict(dropped.most_common()),
        "by_query_type": {name: dict(counts.most_common()) for name, counts in sorted(by_type.items())},
        "marked_of_kept": dict(marked),
        "documents_with_problems": sum(bool(record["generation"]["problems"]) for record in records),
        "failed_calls": len(failures),
        "failed_documents": sorted({failure["source_id"] for failure in failures}),
    }


def check_records(records: Sequence[Mapping[str, Any]]) -> None:
    """Hold records against the published JSON Schema; what differs is a fault of the workflow (``ValueError``)."""
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(read_json(RECORD_SCHEMA, "schema of the record"))
    for record in records:
        for error in validator.iter_errors(record):
            place = "/".join(map(str, error.absolute_path))
            raise ValueError(f"record {record['source_id']}, {place}: {error.message[:300]}")


def draw(report: Mapping[str, Any], target: str | Path) -> None:
    """The counts as bars: from asked to kept above, the reasons below."""
    rows = [(name, report[name], "#4477aa") for name in STEPS]
    rows += [(f"dropped: {reason}", count, "#cc6677") for reason, count in report["dropped_by_reason"].items()]
    widest = max([count for _, count, _ in rows] + [1])
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{28 * len(rows) + 20}" font-family="sans-serif" '
        f'font-size="13" role="img" aria-label="Questions from asked to kept">'
    ]
    for number, (label, count, colour) in enumerate(rows):
        top = 28 * number + 10
        width = round(380 * count / widest, 1)
        lines += [
            f'<text x="290" y="{top + 15}" text-anchor="end">{html.escape(label)}</text>',
            f'<rect x="300" y="{top}" width="{width}" height="20" fill="{colour}"/>',
            f'<text x="{306 + width}" y="{top + 15}">{count:,}</text>',
        ]
    write_text(target, "\n".join([*lines, "</svg>"]) + "\n")


def write_provenance(
    target: str | Path,
    *,
    config: Mapping[str, Any],
    inputs: Sequence[str | Path],
    records: str | Path,
    usage: Mapping[str, Any],
) -> None:
    """Write what made the records: configuration without secrets, digests of files, counts and usage by model."""
    sections = ("corpus_id", "corpus_dir", "allow_egress", "model", "llm", "sdg")
    rows = [row for _, row in read_jsonl(records, "records file")]
    write_json(
        target,
        {
            "schema_version": 1,
            "config": redacted({name: config[name] for name in sections if name in config}),
            "key_variables": sorted(
                {place["api_key_env"] for place in config["llm"]["providers"].values() if place.get("api_key_env")}
            ),
            "inputs": {str(path): {"sha256": sha256_file(path)} for path in inputs},
            "output": {"path": str(records), "sha256": sha256_file(records), "record_schema": RECORD_SCHEMA.name},
            "counts": {
                "documents": sum(len(row["bundle_members"]) for row in rows),
                "records": len(rows),
                "chunks": sum(len(row["chunks"]) for row in rows),
                "pairs": sum(len(row["deduplicated_qa_pairs"]) for row in rows),
            },
            "usage_of_all_runs": usage,
        },
    )
