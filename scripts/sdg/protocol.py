"""The forms of the full protocol's replies, and readers that keep what is good of a reply and say what is not.

The JSON Schemas are written by hand rather than derived from the pydantic models: they are part of a reply's key, and
another release of pydantic must not make paid replies unfindable. The models are the looser of the two. Endpoints that
follow no schema write ``"8/10"`` for 8 and ``multi-hop`` for ``multi_hop``, which nobody should pay for again.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator

from scripts.sdg.generated import ARTIFACT_TYPES
from scripts.sdg.lookups import LOOKUPS

MULTI_HOP = "multi_hop"
QUERY_WEIGHTS = {MULTI_HOP: 3, "structural": 2, "contextual": 2}
REASONING_TYPES = ("factual", "relational", "inferential", "temporal", "procedural", "visual", "causal")
DIMENSIONS = ("relevance", "accuracy", "context_support", "clarity")
# Much longer than any question somebody types; what is longer is a model that ran on
QUESTION_CHARACTERS = 600

_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
# The escapes of a whole pair, or of one half
_HALF_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_END_OF_THINKING = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


def _line(value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) else value


def _name(value: Any) -> Any:
    return re.sub(r"[\s-]+", "_", value.strip().lower()) if isinstance(value, str) else value


def _number(value: Any) -> Any:
    """``"8"``, ``"8/10"`` and ``"Segment 8"`` as 8; anything else as it is."""
    # digits without end are no number that Python would read
    if isinstance(value, str) and (found := re.fullmatch(r"[^\d-]*(\d{1,9}(?:\.\d{1,9})?)(?:\s*/\s*\d+)?\W*", value)):
        return float(found[1]) if "." in found[1] else int(found[1])
    return value


def _whole(value: Any) -> Any:
    value = _number(value)
    return round(value) if isinstance(value, float) and math.isfinite(value) else value


def _graded(value: Any) -> Any:
    """A score, where one of 0 stands for the lowest there is: judges that forget the scale begin at 0."""
    value = _number(value)
    return 1 if isinstance(value, int | float) and 0 <= value < 1 else value


def _scored(value: Any) -> Any:
    """A bare score as the object it should have been."""
    return value if isinstance(value, dict) else {"score": value}


Line = Annotated[str, BeforeValidator(_line)]
Ids = list[Annotated[int, BeforeValidator(_number)]]


class Artifact(BaseModel):
    """Something a document is about."""

    text: Annotated[Line, Field(min_length=1)]
    description: Line = ""
    importance: Line = ""


class Hop(BaseModel):
    """One step of a question that joins several segments."""

    segment_ids: Annotated[Ids, Field(min_length=1)]
    summary: Line = ""


class Pair(BaseModel):
    """A question with its answer, as the model writes it."""

    question: Annotated[Line, Field(min_length=1, max_length=QUESTION_CHARACTERS)]
    answer: Annotated[Line, Field(min_length=1)]
    question_complexity: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=5)]
    query_type: Annotated[str, BeforeValidator(_name)]
    reasoning_type: Annotated[str, BeforeValidator(_name)]
    segment_ids: Ids = []
    hop_contexts: list[Hop] = []

    @field_validator("query_type")
    @classmethod
    def _known_query_type(cls, value: str) -> str:
        return _one_of(value, [*QUERY_WEIGHTS, *LOOKUPS])

    @field_validator("reasoning_type")
    @classmethod
    def _known_reasoning_type(cls, value: str) -> str:
        return _one_of(value, REASONING_TYPES)


class Score(BaseModel):
    """A judge's score of one dimension."""

    score: Annotated[int, BeforeValidator(_whole), BeforeValidator(_graded), Field(ge=1, le=10)]
    justification: str = ""


Scored = Annotated[Score, BeforeValidator(_scored)]


class Overall(BaseModel):
    """A judge's overall score."""

    score: Annotated[float, BeforeValidator(_graded), Field(ge=1, le=10, allow_inf_nan=False)]
    assessment: str = ""


class Evaluation(BaseModel):
    """A judge's verdict on one pair."""

    relevance: Scored
    accuracy: Scored
    context_support: Scored
    clarity: Scored
    overall: Annotated[Overall, BeforeValidator(_scored)]
    improvements: str = ""


def _one_of(value: str, known: Any) -> str:
    if value not in known:
        raise ValueError(f"is none of {', '.join(known)}")
    return value


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _list(items: Any, least: int = 0, most: int | None = None) -> dict[str, Any]:
    """Small models do not stop by themselves: a list has a bound wherever one is known."""
    bounds = {} if most is None else {"minItems": least, "maxItems": most}
    return {"type": "array", "items": items, **bounds}


_TEXT, _INTEGER = {"type": "string"}, {"type": "integer"}
_SCORE = _object(score={"type": "integer", "minimum": 1, "maximum": 10}, justification=_TEXT)
# A document with more segments has their ids as integers, not as a list of choices, which endpoints bound
_CHOICES = 200


def artifact_schema(limit: int) -> dict[str, Any]:
    """JSON Schema of a reply with at most ``limit`` artifacts of each type."""
    item = _object(text=_TEXT, description=_TEXT, importance=_TEXT)
    return _object(**{name: _list(item, 0, limit) for name in ARTIFACT_TYPES})


def pair_schema(wanted: int, known: Sequence[int], max_hops: int, *, lookups: bool) -> dict[str, Any]:
    """JSON Schema of a reply with ``wanted`` pairs about the segments ``known``.

    The query types of lookups are in it where some are asked for.
    """
    segment = {"type": "integer", "enum": list(known)} if len(known) <= _CHOICES else _INTEGER
    segments = _list(segment, 1, max(max_hops, min(len(known), 2 * max_hops)))
    hop = _object(hop_number=_INTEGER, segment_ids=segments, summary=_TEXT)
    return _object(
        pairs=_list(
            _object(
                question=_TEXT,
                answer=_TEXT,
                question_complexity={"type": "integer", "minimum": 1, "maximum": 5},
                query_type={"type": "string", "enum": [*QUERY_WEIGHTS, *(LOOKUPS if lookups else ())]},
                reasoning_type={"type": "string", "enum": list(REASONING_TYPES)},
                segment_ids=segments,
                hop_contexts=_list(hop, 1, max_hops),
            ),
            wanted,
            wanted,
        )
    )


def judge_schema(count: int) -> dict[str, Any]:
    """JSON Schema of a reply with ``count`` verdicts."""
    return _object(
        evaluations=_list(
            _object(
                pair={"type": "integer", "minimum": 1, "maximum": count},
                **dict.fromkeys(DIMENSIONS, _SCORE),
                overall=_object(score={"type": "number", "minimum": 1, "maximum": 10}, assessment=_TEXT),
                improvements=_TEXT,
            ),
            count,
            count,
        )
    )


def largest_remainder(weights: Mapping[str, float], total: int, turn: int = 0) -> dict[str, int]:
    """Whole numbers in proportion to ``weights`` that sum to ``total``; what is left goes to the largest fractions.

    Args:
        weights: Shares by name.
        total: Sum of the result.
        turn: Of equal fractions those count first that come behind so many others: with another turn for each document
            no name goes short in all of them.
    """
    whole = sum(weights.values())
    shares = {name: total * weight / whole for name, weight in weights.items()}
    counts = {name: int(share) for name, share in shares.items()}
    names = list(shares)
    first = turn % len(names) if names else 0
    by_fraction = sorted(names[first:] + names[:first], key=lambda name: counts[name] - shares[name])
    for name in by_fraction[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def spoken(content: str) -> str:
    """A reply without the thinking before it, and with no half of a surrogate pair, which no file can hold."""
    text = _THINKING.sub("", content)
    text = _END_OF_THINKING.sub("", text)  # some servers leave out the opening mark
    return _HALF_PAIR.sub(lambda match: match[0] if len(match[0]) > 6 else "\\ufffd", text)


def read_json_reply(content: str, *keys: str) -> Any:
    """The JSON value of a reply, or ``None``.

    Thinking before the answer, code fences and talk around it are passed over. Of several values the longest counts
    (the others are quoted examples). Of a reply that was cut off, the whole items of the lists ``keys`` are kept.
    """
    text = spoken(content)
    best: tuple[int, Any] = (0, None)
    position = 0
    while (match := re.compile(r"[{\[]").search(text, position)) is not None:
        value, end = _decode(text, match.start())
        if end - match.start() > best[0]:
            best = (end - match.start(), value)
        # inside a value that was read there is nothing to look for
        position = max(end, match.start() + 1)
    if isinstance(best[1], dict) and any(key in best[1] for key in keys):
        return best[1]
    lists = {key: re.search(rf'"{key}"\s*:\s*\[', text) for key in keys}
    return {key: _items(text, start.end()) for key, start in lists.items() if start} or best[1]


def _decode(text: str, start: int) -> tuple[Any, int]:
    try:
        # strict=False: models break lines inside strings
        return json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, start


def _items(text: str, position: int) -> list[Any]:
    found = []
    while (match := re.compile(r"\s*,?\s*(?=\{)").match(text, position)) is not None:
        value, end = _decode(text, match.end())
        if end == match.end():
            break
        found.append(value)
        position = end
    return found


def read_artifacts(content: str, limit: int) -> tuple[dict[str, list[dict[str, str]]] | None, list[str]]:
    """Lists by artifact type, at most ``limit`` each, and what was wrong; ``None`` when it is no such reply."""
    value = read_json_reply(content, *ARTIFACT_TYPES)
    if not isinstance(value, dict) or not any(isinstance(value.get(name), list) for name in ARTIFACT_TYPES):
        return None, ["the reply is not a JSON object with the eight lists"]
    found: dict[str, list[dict[str, str]]] = {}
    wrong: list[str] = []
    for name in ARTIFACT_TYPES:
        items = value.get(name) if isinstance(value.get(name), list) else []
        good = []
        for item in items:
            try:
                good.append(Artifact.model_validate({"text": item} if isinstance(item, str) else item).model_dump())
            except ValidationError as error:
                wrong.append(f"{name}: {_explain(error)}")
        found[name] = good[:limit]
    return found, wrong


def read_pairs(content: str, known: set[int], options: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The sound pairs of a reply in the recipe's format, and what was wrong with the others.

    Args:
        content: The reply.
        known: Segment ids that may be named.
        options: ``min_hops``, ``max_hops`` and ``min_complexity`` are read.
    """
    value = read_json_reply(content, "pairs")
    items = value.get("pairs") if isinstance(value, dict) else value
    if not isinstance(items, list):
        return [], ["the reply is not a JSON object with a list `pairs`"]
    pairs: list[dict[str, Any]] = []
    wrong: list[str] = []
    for number, item in enumerate(items, start=1):
        try:
            pair = Pair.model_validate(item)
            pairs.append(_finished(pair, known, options))
        except ValidationError as error:
            wrong.append(f"pair {number}: {_explain(error)}")
        except ValueError as error:
            wrong.append(f"pair {number}: {error}")
    return pairs, wrong or ([] if pairs else ["the list `pairs` is empty"])


def _finished(pair: Pair, known: set[int], options: Mapping[str, Any]) -> dict[str, Any]:
    """A pair in the recipe's format; ``ValueError`` where it contradicts the document or the options."""
    multi = pair.query_type == MULTI_HOP
    hops = pair.hop_contexts
    if multi and not hops:
        hops = [Hop(segment_ids=[segment]) for segment in dict.fromkeys(pair.segment_ids)]
    # the ids of a multi-hop question are the union of its hops' ids, whichever of the two the model forgot some in
    named = [*pair.segment_ids, *(segment for hop in (hops if multi else []) for segment in hop.segment_ids)]
    segments = list(dict.fromkeys(named))
    if not segments:
        raise ValueError("names no segment")
    if unknown := [segment for segment in segments if segment not in known]:
        raise ValueError(f"names segments that are not there: {', '.join(map(str, unknown))}")
    if pair.question_complexity < options["min_complexity"] and pair.query_type not in LOOKUPS:
        raise ValueError(f"question_complexity is {pair.question_complexity}, below {options['min_complexity']}")
    if multi and not options["min_hops"] <= len(hops) <= options["max_hops"]:
        raise ValueError(f"has {len(hops)} hops, not {options['min_hops']} to {options['max_hops']}")
    if not multi:
        hops = [Hop(segment_ids=segments, summary=hops[0].summary if hops else "")]
    return {
        **pair.model_dump(exclude={"segment_ids", "hop_contexts"}),
        "segment_ids": segments,
        "hop_count": len(hops),
        "hop_contexts": [
            {"hop_number": number, "segment_ids": list(dict.fromkeys(hop.segment_ids)), "summary": hop.summary}
            for number, hop in enumerate(hops, start=1)
        ],
    }


def read_evaluations(content: str, count: int) -> tuple[list[dict[str, Any] | None], list[str]]:
    """``count`` verdicts in the pairs' order, ``None`` where there is none that can be read, and what was wrong."""
    value = read_json_reply(content, "evaluations")
    items = value.get("evaluations") if isinstance(value, dict) else value
    found: list[dict[str, Any] | None] = [None] * count
    if not isinstance(items, list):
        return found, ["the reply is not a JSON object with a list `evaluations`"]
    wrong: list[str] = []
    numbered = all(isinstance(item, dict) and _number(item.get("pair")) in range(1, count + 1) for item in items)
    if not numbered and len(items) != count:
        return found, [f"{len(items)} verdicts without the pairs' numbers for {count} pairs"]
    for place, item in enumerate(items, start=1):
        number = int(_number(item["pair"])) if numbered else place
        try:
            found[number - 1] = Evaluation.model_validate(_with_overall(item)).model_dump()
        except ValidationError as error:
            wrong.append(f"pair {number}: {_explain(error)}")
    missing = sum(verdict is None for verdict in found) - len(wrong)
    return found, [*wrong, f"{missing} pairs have no verdict"] if missing > 0 else wrong


def _with_overall(item: Any) -> Any:
    """A verdict whose overall score was forgotten gets the mean of its four scores."""
    if not isinstance(item, dict) or "overall" in item:
        return item
    scores = [_number(_scored(item.get(name)).get("score")) for name in DIMENSIONS]
    if not all(isinstance(score, int | float) for score in scores):
        return item
    return {**item, "overall": {"score": sum(scores) / len(scores), "assessment": "mean of the four scores"}}


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]
