"""Prompts of the full protocol: what a document is about, questions about it, a judge's view of them.

Where these ask for something else than the recipe does, on purpose:

- The recipe has every question connect several parts. People also look up single facts, so only ``multi_hop`` and
  ``structural`` questions connect parts here; a ``contextual`` one may rest on one segment.
- The recipe asks a seventh of the questions about what is seen, of plain text too, and a model then invents pictures.
  ``visual`` has its share where the text speaks of a figure, table or screen, or where ``reasoning_counts`` says so.
- A question that joins segments needs two of them: a document of one segment gets none, whatever the proportions.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from scripts.common.files import sha256_text
from scripts.common.llm import Messages
from scripts.sdg.generated import ARTIFACT_TYPES
from scripts.sdg.lookups import HELP, LOOKUPS, lookup_count
from scripts.sdg.protocol import DIMENSIONS, MULTI_HOP, QUERY_WEIGHTS, REASONING_TYPES, largest_remainder

_VISIBLE = re.compile(
    r"!\[|\|\s*:?-{3,}|\b(figures?|fig\.|tables?|diagrams?|charts?|graphs?|plots?|images?|photos?|screenshots?|screens?|"
    r"illustrations?|drawings?|maps?|icons?|colou?rs?)\b",
    re.IGNORECASE,
)
ARTIFACT_HELP = {
    "key_concepts": "ideas that the reader has to grasp",
    "relationships": "how two or more things act on, contain or depend on each other",
    "themes": "subjects that come back in several places",
    "entities": "people, organisations, products, places and other named things",
    "processes": "procedures, sequences of steps, changes over time",
    "insights": "conclusions that the text draws or clearly allows",
    "technical_terms": "words of the field, with what they mean here",
    "contextual_factors": "conditions, limits and background that decide when something holds",
}
QUERY_HELP = {
    MULTI_HOP: "can be answered only by putting together facts from {hops} separate segments",
    "structural": "asks how parts of the matter are organised, compared or related",
    "contextual": "asks for something a reader would look up, with the circumstances that make the answer definite",
}
REASONING_HELP = {
    "factual": "a fact that is stated",
    "relational": "how things compare or connect",
    "inferential": "what follows from the facts given",
    "temporal": "order, duration, dates or versions",
    "procedural": "how something is done, step by step",
    "visual": "what a figure, table or screen that the text describes shows",
    "causal": "why something happens or what it brings about",
}
DIMENSION_HELP = {
    "relevance": (
        "would somebody who needs this matter ask it?",
        "10: a real information need; 5: possible but of little use; 1: nobody would ask it",
    ),
    "accuracy": (
        "is the answer right by the segments?",
        "10: right and complete; 5: partly right, or a part is missing; 1: wrong",
    ),
    "context_support": (
        "do the segments named by the pair hold the whole answer?",
        "10: all of it; 5: half of it, or other segments are needed; 1: nothing of it",
    ),
    "clarity": (
        "is the question understood by someone who has not seen the text?",
        "10: at once and in one way; 5: only with guessing; 1: not at all, or it speaks of the text itself",
    ),
}


def artifact_messages(text: str, *, documents: int, options: Mapping[str, Any]) -> Messages:
    """Ask for the artifacts of a text.

    Args:
        text: The document, or as much of it as fits.
        documents: How many documents the text has.
        options: ``max_artifacts_per_type`` is read.
    """
    types = "\n".join(f"- {name}: {ARTIFACT_HELP[name]}" for name in ARTIFACT_TYPES)
    links = (
        f"\nThe text holds {documents} documents. Prefer relationships, themes and insights that link them."
        if documents > 1
        else ""
    )
    form = {name: [{"text": "…", "description": "…", "importance": "…"}] for name in ARTIFACT_TYPES[:1]}
    return _messages(
        "You analyse documents so that good search questions can be written about them. You use nothing but the text, "
        "and you answer with JSON alone.",
        f"List what the text below is about, in its own language, at most {options['max_artifacts_per_type']} items of "
        f"each type, the most useful first. An empty list is right where the text offers nothing.\n{types}{links}\n\n"
        "Each item has `text` (a few words), `description` (one sentence) and `importance` (one sentence: why it "
        f"matters here).\nForm, with all eight lists: {_json(form)}\n\n<text>\n{text}\n</text>",
    )


def question_messages(
    sections: Sequence[str],
    artifacts: Mapping[str, Sequence[Mapping[str, str]]],
    *,
    wanted: int,
    segments: int,
    documents: int,
    options: Mapping[str, Any],
) -> Messages:
    """Ask for ``wanted`` pairs about the segments of some sections.

    Args:
        sections: What the model sees, segments with their ids.
        artifacts: Items by artifact type.
        wanted: Number of pairs.
        segments: How many segments the sections hold.
        documents: How many documents they come from.
        options: Options of the ``sdg`` section.
    """
    queries, reasoning = type_counts(sections, wanted, segments, options)
    fewest, most = options["min_hops"], options["max_hops"]
    # one hop is accepted where the options say so, but a question about one segment joins nothing
    fewest = min(max(fewest, 2), most)
    hops = f"{fewest} to {most}" if most > fewest else str(most)
    kinds = "\n".join(
        f"- {count} of query_type {name}: {(QUERY_HELP | HELP)[name].format(hops=hops)}"
        for name, count in queries.items()
        if count
    )
    ways = "\n".join(
        f"- {count} of reasoning_type {name}: {REASONING_HELP[name]}" for name, count in reasoning.items() if count
    )
    known = "\n".join(f"- {item['text']}: {item['description']}" for items in artifacts.values() for item in items)
    across = (
        f"\n- The segments come from {documents} documents; let {MULTI_HOP} questions join different ones."
        if documents > 1
        else ""
    )
    form = {
        "pairs": [
            {
                "question": "…",
                "answer": "…",
                "question_complexity": options["min_complexity"],
                "query_type": MULTI_HOP,
                "reasoning_type": "factual",
                "segment_ids": [1, 4],
                "hop_contexts": [
                    {"hop_number": 1, "segment_ids": [1], "summary": "…"},
                    {"hop_number": 2, "segment_ids": [4], "summary": "…"},
                ],
            }
        ]
    }
    return _messages(
        "You write questions that people would type into a search engine over these documents, with their answers. "
        "You use nothing but the segments given, and you answer with JSON alone.",
        f"Write exactly {wanted} question-answer pairs about the segments below, in their language.\n\n"
        f"Split the {wanted} pairs by query_type:\n{kinds}\n"
        f"and, independently of that, by reasoning_type:\n{ways}\n\n"
        "Rules:\n"
        "- A question is understood by someone who has never seen the text. It names its subject, and never mentions a "
        "text, document, passage, segment, section, context or transcript.\n"
        "- Write as people search: in your own words, some questions short, no two about the same thing.\n"
        "- The answer is complete, and every part of it is in the segments named.\n"
        f"- question_complexity is {options['min_complexity']} to 5 (5: several facts must be weighed)"
        f"{', 1 for lookups' if lookup_count(wanted, options) else ''}.\n"
        "- segment_ids are the numbers of exactly the segments that the answer needs.\n"
        f"- A {MULTI_HOP} question has one entry of hop_contexts for each step, and its segment_ids are those of all "
        f"steps together; any other question has a single entry.{across}\n"
        f"Form: {_json(form)}\n\n" + (f"What the text is about:\n{known}\n\n" if known else "") + "\n\n".join(sections),
    )


def others_than(messages: Messages, have: Sequence[Mapping[str, Any]]) -> Messages:
    """The same request, with the questions that there are already."""
    if not have:
        return messages
    listed = "\n".join(f"- {pair['question']}" for pair in have)
    *before, last = messages
    return [*before, {**last, "content": f"{last['content']}\n\nThere are these already; write others:\n{listed}"}]


def judge_messages(sections: Sequence[str], pairs: Sequence[Mapping[str, Any]]) -> Messages:
    """Ask for a verdict on each pair, numbered from 1."""
    scales = "\n".join(f"- {name}: {DIMENSION_HELP[name][0]} {DIMENSION_HELP[name][1]}" for name in DIMENSIONS)
    shown = [
        {"pair": number, **{name: pair[name] for name in ("question", "answer", "segment_ids")}}
        for number, pair in enumerate(pairs, start=1)
    ]
    score = {"score": 8, "justification": "…"}
    overall = {"score": 7.5, "assessment": "…"}
    form = {"evaluations": [{"pair": 1, **dict.fromkeys(DIMENSIONS, score), "overall": overall, "improvements": "…"}]}
    return _messages(
        "You are a strict judge of question-answer pairs that will train and test a search engine. You answer with "
        "JSON alone.",
        "Judge each pair by the segments below. Give four whole-number scores from 1 to 10, each with a justification "
        f"of one sentence:\n{scales}\n"
        "`overall` has a score from 1.0 to 10.0, no higher than you would defend before the people who wrote the "
        "documents, and an assessment of one sentence. `improvements` says what would make the "
        f"pair better.\nForm, one entry for each pair: {_json(form)}\n\n"
        + "\n\n".join(sections)
        + "\n\nPairs:\n"
        + "\n".join(map(_json, shown)),
    )


def type_counts(
    sections: Sequence[str], wanted: int, segments: int, options: Mapping[str, Any]
) -> tuple[dict[str, int], dict[str, int]]:
    """How many pairs of each query type and of each reasoning type to ask for; both sum to ``wanted``.

    Lookups come first; the recipe's query types share what is left. Which of equals get one more differs from document
    to document.
    """
    lookups = lookup_count(wanted, options)
    queries: dict[str, float] = dict(options["query_counts"] or QUERY_WEIGHTS)
    if segments < 2:
        queries = {name: weight for name, weight in queries.items() if name != MULTI_HOP}
    if not any(queries.values()):
        queries = {"contextual": 1}
    reasoning: dict[str, float] = dict(options["reasoning_counts"] or dict.fromkeys(REASONING_TYPES, 1))
    if not options["reasoning_counts"] and not any(map(_VISIBLE.search, sections)):
        del reasoning["visual"]
    turn = int(sha256_text("\n".join(sections))[:8], 16)
    counts = largest_remainder(queries, wanted - lookups, turn)
    if lookups:
        counts |= largest_remainder(dict.fromkeys(LOOKUPS, 1), lookups, turn)
    return counts, largest_remainder(reasoning, wanted, turn)


def _messages(system: str, user: str) -> Messages:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
