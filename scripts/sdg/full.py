"""The recipe's full protocol: three calls a record, for artifacts, for questions and for a judge's verdicts.

Nothing that a model replies ends the run: what can be used is used, the rest is told in ``problems``. A document that
does not fit the model is halved until its parts do, with the questions spread over the parts.
"""

from collections.abc import Sequence
from typing import Any

from scripts.common.llm import ChatModel, RequestTooLongError
from scripts.sdg.asking import ask
from scripts.sdg.generated import ARTIFACT_TYPES, Generated
from scripts.sdg.lookups import lookup_count
from scripts.sdg.prompts import artifact_messages, judge_messages, question_messages
from scripts.sdg.protocol import (
    artifact_schema,
    judge_schema,
    pair_schema,
    read_artifacts,
    read_evaluations,
    read_pairs,
)
from scripts.sdg.sections import Chunk, documents_of, members, render

# Tokens: what a model may think before it answers, and what an artifact, a pair and a verdict take
THINKING, ARTIFACT, PAIR, VERDICT = 2000, 120, 400, 350

Models = dict[str, ChatModel]
Options = dict[str, Any]


def generate(record: dict[str, Any], models: Models, options: Options) -> Generated:
    """Artifacts, pairs and verdicts for one record.

    Args:
        record: A record of ``records.jsonl``.
        models: Chat models ``artifact_extraction``, ``qa_generation`` and ``quality_judge``.
        options: Options of the ``sdg`` section.

    Raises:
        UserError: An endpoint is dead or refuses.
    """
    chunks = {chunk["chunk_id"]: chunk for chunk in record["chunks"]}
    sections = [members(section, chunks) for section in record["sections_structured"]]
    result = Generated([], evaluations=[])
    _generate_part(sections, record["text"], options["num_pairs"], models, options, result)
    if not any(result.evaluations or []):
        result.evaluations = None
    return result


def _generate_part(
    sections: list[list[Chunk]], text: str, wanted: int, models: Models, options: Options, result: Generated
) -> None:
    """Add the pairs of a document, or of a part of it, to ``result``; halve what is too long."""
    chunks = [chunk for section in sections for chunk in section]
    if not wanted or not chunks:
        return
    place = f"segments {chunks[0]['chunk_id']} to {chunks[-1]['chunk_id']}"
    try:
        artifacts = _ask_artifacts(chunks, text, models["artifact_extraction"], options, result)
        if artifacts is None and not result.failures[-1]["replies"]:
            # no reply at all: questions asked now, without artifacts, would be asked for again after the next run
            return
        artifacts = artifacts or {}
        pairs = _ask_pairs(sections, artifacts, wanted, models["qa_generation"], options, result)
    except RequestTooLongError as error:
        if len(chunks) == 1:
            result.problems.append(f"{place}: too long for the model, no questions ({error})")
            result.failures.append({"call": "questions", "problems": [str(error)], "replies": []})
            return
        result.problems.append(f"{place}: too long for the model, asked in two halves")
        for half, share in zip(_halves(sections), ((wanted + 1) // 2, wanted // 2), strict=True):
            part = "\n\n".join(chunk["text"] for section in half for chunk in section)
            _generate_part(half, part, share, models, options, result)
        return
    for name, items in artifacts.items():
        result.artifacts[name] = [*result.artifacts.get(name, []), *items][: options["max_artifacts_per_type"]]
    result.pairs += pairs
    result.evaluations = [*(result.evaluations or []), *_judge(sections, pairs, models["quality_judge"], result)]


def _halves(sections: list[list[Chunk]]) -> tuple[list[list[Chunk]], list[list[Chunk]]]:
    """Two halves, cut between sections where there are several, else between segments."""
    if len(sections) > 1:
        middle = len(sections) // 2
        return sections[:middle], sections[middle:]
    middle = len(sections[0]) // 2
    return [sections[0][:middle]], [sections[0][middle:]]


def _ask_artifacts(
    chunks: Sequence[Chunk], text: str, model: ChatModel, options: Options, result: Generated
) -> dict[str, list[dict[str, str]]] | None:
    limit = options["max_artifacts_per_type"]
    return ask(
        model,
        artifact_messages(text, documents=documents_of(chunks), options=options),
        call="artifacts",
        result=result,
        max_tokens=THINKING + ARTIFACT * limit * len(ARTIFACT_TYPES),
        schema=artifact_schema(limit),
        read=lambda content: read_artifacts(content, limit),
        usable=lambda found: found is not None,
    )


def _ask_pairs(
    sections: Sequence[Sequence[Chunk]],
    artifacts: dict[str, list[dict[str, str]]],
    wanted: int,
    model: ChatModel,
    options: Options,
    result: Generated,
) -> list[dict[str, Any]]:
    chunks = [chunk for section in sections for chunk in section]
    known = {chunk["chunk_id"] for chunk in chunks}
    pairs = ask(
        model,
        question_messages(
            render(sections),
            artifacts,
            wanted=wanted,
            segments=len(chunks),
            documents=documents_of(chunks),
            options=options,
        ),
        call="questions",
        result=result,
        max_tokens=THINKING + PAIR * wanted,
        schema=pair_schema(wanted, sorted(known), options["max_hops"], lookups=lookup_count(wanted, options) > 0),
        read=lambda content: read_pairs(content, known, options),
        usable=bool,
    )
    if len(pairs) < wanted:
        result.problems.append(f"questions: {len(pairs)} of the {wanted} asked for")
    return pairs[:wanted]


def _judge(
    sections: Sequence[Sequence[Chunk]], pairs: list[dict[str, Any]], model: ChatModel, result: Generated
) -> list[dict[str, Any] | None]:
    """A verdict for each pair, ``None`` where there is none.

    The judge sees all segments that the question model saw, as far as they fit; else those that the pairs name, and a
    half of the pairs at a time.
    """
    if not pairs:
        return []
    try:
        return _ask_verdicts(render(sections), pairs, model, result)
    except RequestTooLongError:
        return _judge_by_cited(sections, pairs, model, result)


def _judge_by_cited(
    sections: Sequence[Sequence[Chunk]], pairs: list[dict[str, Any]], model: ChatModel, result: Generated
) -> list[dict[str, Any] | None]:
    named = {segment for pair in pairs for segment in pair["segment_ids"]}
    cited = [[chunk for chunk in section if chunk["chunk_id"] in named] for section in sections]
    try:
        return _ask_verdicts(render(filter(None, cited)), pairs, model, result)
    except RequestTooLongError as error:
        if len(pairs) == 1:
            result.problems.append(f"judge: too long for the model, no verdict ({error})")
            return [None]
    middle = len(pairs) // 2
    parts = (pairs[:middle], pairs[middle:])
    return [verdict for part in parts for verdict in _judge_by_cited(sections, part, model, result)]


def _ask_verdicts(
    sections: list[str], pairs: list[dict[str, Any]], model: ChatModel, result: Generated
) -> list[dict[str, Any] | None]:
    return ask(
        model,
        judge_messages(sections, pairs),
        call="judge",
        result=result,
        max_tokens=THINKING + VERDICT * len(pairs),
        schema=judge_schema(len(pairs)),
        read=lambda content: read_evaluations(content, len(pairs)),
        usable=any,
    )
