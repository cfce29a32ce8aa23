"""What generation will ask, of whom, before anything is sent."""

import math
from pathlib import Path
from typing import Any

from scripts.common.files import read_jsonl, write_json
from scripts.common.job import job, log
from scripts.sdg import prompts, simple
from scripts.sdg.sampling import sampled
from scripts.sdg.sections import documents_of

# Calls of the full protocol: artifacts, questions, judge
FULL_CALLS = 3


def plan(records_file: str | Path, target: str | Path, *, options: dict[str, Any], models: dict[str, str]) -> None:
    """Write documents, chunks, calls, questions and a lower bound of the text that is sent.

    Args:
        records_file: JSON Lines from rule ``chunk``.
        target: JSON.
        options: Options of the ``sdg`` section that decide what is asked.
        models: ``provider/model`` by role.
    """
    records = [record for _, record in read_jsonl(records_file, "records file")]
    names = sampled(records, options)
    asked = [record for record in records if record["source_id"] in names]
    count = count_simple if options["style"] == "simple" else count_full
    counts = [count(record, options) for record in asked]
    totals = {
        name: sum(item[name] for item in counts) for name in ("calls", "calls_at_most", "questions", "characters")
    }
    summary = {
        "documents": sum(len(record["bundle_members"]) for record in records),
        "records": len(records),
        "chunks": sum(len(record["chunks"]) for record in records),
        "characters": sum(len(record["text"]) for record in records),
        "documents_asked": sum(len(record["bundle_members"]) for record in asked),
        "records_asked": len(asked),
        "calls": totals["calls"],
        "calls_at_most": totals["calls_at_most"],
        "questions_asked": totals["questions"],
        "prompt_characters_at_least": totals["characters"],
        "models": models,
    }
    write_json(target, summary)
    log.info(
        "%d documents in %d chunks; %d to %d calls for %d questions, with %d or more characters of prompt, to %s",
        *(summary["documents"], summary["chunks"], summary["calls"], summary["calls_at_most"]),
        *(summary["questions_asked"], summary["prompt_characters_at_least"]),
        ", ".join(sorted(set(models.values()))),
    )


def count_simple(record: dict[str, Any], options: dict[str, Any]) -> dict[str, int]:
    """Calls, questions and characters of prompt for one record: one call a segment, none is repeated."""
    wanted = options["num_pairs"]
    chunks = simple.spread(record["chunks"], math.ceil(wanted / simple.QUESTIONS_PER_CALL))
    return {
        "calls": len(chunks),
        "calls_at_most": len(chunks),
        "questions": min(wanted, len(chunks) * simple.QUESTIONS_PER_CALL),
        "characters": sum(_characters(simple.messages(chunk["text"])) for chunk in chunks),
    }


def count_full(record: dict[str, Any], options: dict[str, Any]) -> dict[str, int]:
    """The same for the full protocol.

    Each call is repeated once when its reply cannot be used. A document that does not fit the model is asked about in
    parts, which is known only once the endpoint has refused it, and comes on top. What artifacts and pairs add to the
    later prompts is not known either: the characters are a lower bound.
    """
    shown, documents = record["sections_structured"], documents_of(record["chunks"])
    asked = [
        prompts.artifact_messages(record["text"], documents=documents, options=options),
        prompts.question_messages(
            shown,
            {},
            wanted=options["num_pairs"],
            segments=len(record["chunks"]),
            documents=documents,
            options=options,
        ),
        prompts.judge_messages(shown, []),
    ]
    return {
        "calls": FULL_CALLS,
        "calls_at_most": 2 * FULL_CALLS,
        "questions": options["num_pairs"],
        "characters": sum(map(_characters, asked)),
    }


def _characters(messages: list[dict[str, str]]) -> int:
    return sum(len(message["content"]) for message in messages)


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        plan(
            snakemake.input.records,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            options=snakemake.params.options,  # noqa: F821
            models=snakemake.params.models,  # noqa: F821
        )
