"""Plain questions from models too small for the full protocol.

A 135M model asked freely gives about one usable question in ten: it answers instead of asking, repeats the prompt, or
runs on. What helps is a grammar (strict JSON Schema with a pattern for each question), so that every reply is a list
of questions, at a third of the tokens. Where a sentence of the segment says something that can be asked for, the
grammar gives the question's opening too, and the model says what it is about (``scripts/sdg/statements.py``). Which of
the others are any good is for the checks of ``scripts/sdg/sdg.py``.
"""

import itertools
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from scripts.common.llm import ChatModel, Messages, RequestTooLongError
from scripts.sdg.answers import without_heading
from scripts.sdg.asking import ask
from scripts.sdg.generated import Generated, make_pair
from scripts.sdg.lookups import KEYWORD, as_keywords, is_chosen
from scripts.sdg.protocol import read_json_reply, spoken
from scripts.sdg.question_form import MARKS, QUESTIONS_PER_CALL, fills_the_form, is_english, schema_for
from scripts.sdg.statements import STATEMENT, Statement, contexts, told_of

MAX_TOKENS = 220
# Longer segments are cut: a small model forgets the task; and cut again where scripts with more tokens than letters
# do not fit its context
MAX_CHARACTERS = (1500, 750, 375)
# Politeness that nobody types into a search box; what follows it is a question by itself
_PREFACE = re.compile(
    r"^(?:can|could|would|will) you (?:please )?(?:explain|describe|clarify|tell (?:me|us)|say|elaborate on|discuss) "
    r"(?=(?:how|what|why|when|where|which|who|whether) )",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"^\d+[.)] ")
_WHOLE = re.compile(r'"question_\d"\s*:\s*"((?:[^"\\]|\\["\\/bfnrt])*)"')
# A line with a question, with the number, bullet or quotes that models put around one
_LINE = re.compile(
    rf"""^[^\S\n]*(["'*_#]*(?:(?:question|q)?[ _]?\d+["'*_]*[^\S\n]*[.):]|[*•·-](?=[^\S\n]))[^\S\n]*)?["'*_]*"""
    rf"""(\S[^\n]*?[{MARKS}])["'*_,]*[^\S\n]*$""",
    re.MULTILINE | re.IGNORECASE,
)
SYSTEM = (
    "You write search questions. Each question can be answered by the passage, names its subject, "
    "and is understood without seeing the passage."
)
# For endpoints that hold replies to no schema
FORM = (
    'Answer with a JSON object of this form alone: {"question_1": "first question?", "question_2": "second question?", '
    '"question_3": "third question?"}'
)


def generate(record: dict[str, Any], models: dict[str, ChatModel], options: dict[str, Any]) -> Generated:
    """Ask for ``num_pairs`` plain questions, spread over a document's segments.

    Args:
        record: A record of ``records.jsonl``.
        models: ``models["qa_generation"]`` is asked.
        options: ``num_pairs`` and ``lookup_share`` are read.
    """
    result = Generated([])
    wanted = options["num_pairs"]
    title = title_of(record)
    for chunk, said in chosen(record["chunks"], title, wanted):
        count = min(QUESTIONS_PER_CALL, wanted - len(result.pairs))
        questions = _ask(chunk, said, title, models["qa_generation"], result)
        result.pairs += [_pair(text, chunk["chunk_id"], said, options["lookup_share"]) for text in questions[:count]]
    return result


def title_of(record: dict[str, Any]) -> str:
    """A document's title on one line, which may be empty."""
    return " ".join(record.get("title", "").split())


def chosen(chunks: Sequence[dict[str, Any]], title: str, wanted: int) -> list[tuple[dict[str, Any], list[Statement]]]:
    """The segments that so many questions are asked about, spread over a document, each with its first statements.

    Of neighbours, the one with most statements is taken.
    """
    count = min(math.ceil(wanted / QUESTIONS_PER_CALL), len(chunks))
    bounds = [number * len(chunks) // count for number in range(count + 1)] if count else []
    runs = [chunks[start:end] for start, end in itertools.pairwise(bounds)]
    found = []
    for run in runs:
        said = [told_of(without_heading(chunk["text"]), title)[:QUESTIONS_PER_CALL] for chunk in run]
        middle = len(run) // 2
        best = max(range(len(run)), key=lambda place: (len(said[place]), -abs(place - middle)))
        found.append((run[best], said[best]))
    return found


def _pair(question: str, segment: int, said: Sequence[Statement], share: float) -> dict[str, Any]:
    """A question, or for a share of them its keywords: what a small model writes by itself are sentences.

    One that has the opening of a statement has it as its answer.
    """
    begun = [statement for statement in said if question.startswith(statement.opening)]
    answer = max(begun, key=lambda statement: len(statement.opening)).sentence if begun else ""
    keywords = as_keywords(question) if is_chosen(question, share) else None
    if keywords:
        return make_pair(keywords, [segment], query_type=KEYWORD, answer=answer)
    if begun:
        return make_pair(question, [segment], query_type=STATEMENT, answer=answer)
    cut = {"cut_off": True} if fills_the_form(question) else {}
    return make_pair(question, [segment], query_type="contextual", **cut)


def _ask(
    chunk: dict[str, Any], said: Sequence[Statement], title: str, model: ChatModel, result: Generated
) -> list[str]:
    place = f"segment {chunk['chunk_id']}"
    openings = [(statement.opening, contexts(title, statement.opening), statement.bare) for statement in said]
    for length in MAX_CHARACTERS:
        try:
            return ask(
                model,
                messages(chunk["text"], title, length),
                call=place,
                result=result,
                max_tokens=MAX_TOKENS,
                schema=schema_for(chunk["text"][:length], openings),
                form=FORM,
                read=read_questions,
                usable=bool,
            )
        except RequestTooLongError:
            continue
    result.problems.append(f"{place}: too long for the model, no questions")
    result.failures.append({"call": place, "problems": ["too long for the model"], "replies": []})
    return []


def messages(text: str, title: str = "", length: int = MAX_CHARACTERS[0]) -> Messages:
    """The prompt for one segment, of which the first ``length`` characters are shown, behind its document's title."""
    shown = text[:length]
    task = "Write three short questions" + ("" if is_english(shown) else " in the language of the passage")
    head = f"{title}\n\n" if title and title not in " ".join(shown.split()) else ""
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"Passage:\n{head}{shown}\n\n{task}."},
    ]


def read_questions(content: str) -> tuple[list[str], list[str]]:
    """The questions of a reply, and what is wrong with it.

    A reply that follows its schema is a JSON object of questions; of one that was cut off, those that are whole count.
    Models that no schema holds write JSON of another form, or a line for each question, which is as good.
    """
    content = spoken(content)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and value and all(isinstance(text, str) for text in value.values()):
        return [_one_line(text) for text in value.values()], []
    if found := _in_json(read_json_reply(content, "questions")):
        return [_one_line(text) for text in found], []
    if found := _WHOLE.findall(content):
        return [_one_line(json.loads(f'"{text}"', strict=False)) for text in found], ["the reply is no JSON"]
    lines = _LINE.findall(content)
    if found := [text for mark, text in lines if mark] or [text for _, text in lines]:
        return [_one_line(text) for text in found], []
    return [], ["the reply is no JSON" if value is None else "the reply is not a JSON object of questions"]


def _in_json(value: Any) -> list[str]:
    """All texts inside a JSON value that end with a question mark, in order; however deep it is."""
    found, waiting = [], [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str) and item.rstrip().endswith(tuple(MARKS)):
            found.append(item)
        elif isinstance(item, dict | list):
            waiting += reversed(item.values() if isinstance(item, dict) else item)
    return found


def _one_line(text: str) -> str:
    asked = _PREFACE.sub("", _NUMBER.sub("", " ".join(text.split())))
    return asked[:1].upper() + asked[1:]
