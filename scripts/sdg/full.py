"""The recipe's full protocol: three calls a record, for artifacts, for questions and for a judge's verdicts.

Nothing that a model replies ends the run: what can be used is used, the rest is told in ``problems``. A document that
does not fit the model is halved until its parts do, with the questions spread over the parts.
"""

from collections.abc import Sequence
from typing import Any

from scripts.common.llm import ChatModel, RequestTooLongError
from scripts.sdg.asking import FRESH, ask, note_rest
from scripts.sdg.generated import ARTIFACT_TYPES, Generated
from scripts.sdg.lookups import lookup_count
from scripts.sdg.prompts import artifact_messages, judge_messages, others_than, question_messages
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
    """The pairs of a document; where fewer come than were asked for, those that are missing are asked for once more."""
    chunks = [chunk for section in sections for chunk in section]
    known = {chunk["chunk_id"] for chunk in chunks}

    def ask_for(count: int, have: Sequence[dict[str, Any]], fresh: int) -> list[dict[str, Any]]:
        messages = question_messages(
            render(sections),
            artifacts,
            wanted=count,
            segments=len(chunks),
            documents=documents_of(chunks),
            options=options,
        )
        return ask(
            model,
            others_than(messages, have),
            call="questions",
            result=result,
            max_tokens=THINKING + PAIR * count,
            schema=pair_schema(count, sorted(known), options["max_hops"], lookups=lookup_count(count, options) > 0),
            read=lambda content: read_pairs(content, known, options),
            usable=bool,
            fresh=fresh,
        )[:count]

    pairs = ask_for(wanted, [], FRESH)
    more = pairs
    # what earlier runs were told of the rest, and then one request
    while more and len(pairs) < wanted:
        before = result.sent
        try:
            more = ask_for(wanted - len(pairs), pairs, 1)
        except RequestTooLongError:
            break
        pairs += more
        if result.sent > before:
            break
    if pairs and len(pairs) < wanted:
        note_rest(result, "questions", f"{len(pairs)} of the {wanted} asked for")
    return pairs


def _judge(
    sections: Sequence[Sequence[Chunk]], pairs: list[dict[str, Any]], model: ChatModel, result: Generated
) -> list[dict[str, Any] | None]:
    """A verdict for each pair, ``None`` where there is none.

    The judge sees all segments that the question model saw, as far as they fit; else those that the pairs name, and a
    half of the pairs at a time.
    """
    if not pairs:
        return []
    verdicts = _judge_as_fits(sections, pairs, model, result, FRESH)
    more = any(verdicts)
    # as with questions: what earlier runs were told of the rest, and then one request
    while more and (missing := [place for place, verdict in enumerate(verdicts) if verdict is None]):
        before = result.sent
        again = _judge_as_fits(sections, [pairs[place] for place in missing], model, result, 1)
        for place, verdict in zip(missing, again, strict=True):
            verdicts[place] = verdict
        more = any(again) and result.sent == before
    if any(verdicts) and (left := verdicts.count(None)):
        note_rest(result, "judge", f"{left} of {len(pairs)} pairs have no verdict")
    return verdicts


def _judge_as_fits(
    sections: Sequence[Sequence[Chunk]], pairs: list[dict[str, Any]], model: ChatModel, result: Generated, fresh: int
) -> list[dict[str, Any] | None]:
    try:
        return _ask_verdicts(render(sections), pairs, model, result, fresh)
    except RequestTooLongError:
        return _judge_by_cited(sections, pairs, model, result, fresh)


def _judge_by_cited(
    sections: Sequence[Sequence[Chunk]], pairs: list[dict[str, Any]], model: ChatModel, result: Generated, fresh: int
) -> list[dict[str, Any] | None]:
    named = {segment for pair in pairs for segment in pair["segment_ids"]}
    cited = [[chunk for chunk in section if chunk["chunk_id"] in named] for section in sections]
    try:
        return _ask_verdicts(render(filter(None, cited)), pairs, model, result, fresh)
    except RequestTooLongError as error:
        if len(pairs) == 1:
            note_rest(result, "judge", f"too long for the model, no verdict ({error})")
            return [None]
    middle = len(pairs) // 2
    parts = (pairs[:middle], pairs[middle:])
    return [verdict for part in parts for verdict in _judge_by_cited(sections, part, model, result, fresh)]


def _ask_verdicts(
    sections: list[str], pairs: list[dict[str, Any]], model: ChatModel, result: Generated, fresh: int
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
        fresh=fresh,
    )
