"""What generation will ask, of whom, before anything is sent."""

import math
from pathlib import Path
from typing import Any

from scripts.common.files import read_jsonl, write_json
from scripts.common.job import job, log
from scripts.sdg.simple import QUESTIONS_PER_CALL

# Calls of the full protocol: artifacts, questions, judge
FULL_CALLS = 3


def plan(records_file: str | Path, target: str | Path, *, options: dict[str, Any], models: dict[str, str]) -> None:
    """Write documents, chunks, calls, questions and a lower bound of the text that is sent.

    Args:
        records_file: JSON Lines from rule ``chunk``.
        target: JSON.
        options: ``style``, ``num_pairs``, ``sample_documents`` and ``preview`` are read.
        models: ``provider/model`` by role.
    """
    records = [record for _, record in read_jsonl(records_file, "records file")]
    usable = [record for record in records if record["chunks"]]
    limit = 1 if options["preview"] else options["sample_documents"] or len(usable)
    asked = min(limit, len(usable))
    simple = options["style"] == "simple"
    calls = asked * (math.ceil(options["num_pairs"] / QUESTIONS_PER_CALL) if simple else FULL_CALLS)
    summary = {
        "documents": len(records),
        "chunks": sum(len(record["chunks"]) for record in records),
        "characters": sum(len(record["text"]) for record in records),
        "documents_asked": asked,
        "calls_at_most": calls,
        "questions_asked": asked * options["num_pairs"],
        "models": models,
    }
    write_json(target, summary)
    log.info(
        "%d documents in %d chunks; at most %d calls for %d questions to %s",
        *(summary["documents"], summary["chunks"], calls, summary["questions_asked"]),
        ", ".join(sorted(set(models.values()))),
    )


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        plan(
            snakemake.input.records,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            options=snakemake.params.options,  # noqa: F821
            models=snakemake.params.models,  # noqa: F821
        )
