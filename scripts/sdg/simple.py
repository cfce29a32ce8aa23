"""Plain questions from models too small for the full protocol.

A 135M model asked freely gives about one usable question in ten: it answers instead of asking, repeats the prompt, or
runs on. What helps is a grammar (strict JSON Schema with a pattern for each question), so that every reply is a list
of questions, at a third of the tokens. Which of them are any good is for the checks of ``scripts/sdg/sdg.py``.
"""

import json
import math
import re
from typing import Any

from scripts.common.llm import ChatModel, Messages, RequestTooLongError
from scripts.sdg.asking import ask
from scripts.sdg.generated import Generated, make_pair
from scripts.sdg.lookups import KEYWORD, as_keywords, is_chosen

# Characters of a question after its first word; one of so many was ended by the grammar and not by the model
LONGEST = 140
_OPENINGS = ("What", "How", "(Which|Why|When|Where|Is|Does|Can)")
QUESTIONS_PER_CALL = len(_OPENINGS)
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
_WHOLE = re.compile(r'"question_\d"\s*:\s*"((?:[^"\\]|\\["\\/bfnrt])*)"')
SYSTEM = (
    "You write search questions. Each question can be answered by the passage, names its subject, "
    "and is understood without seeing the passage."
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        f"question_{number}": {"type": "string", "pattern": f"^{opening} [a-zA-Z0-9 ,'()/_.-]{{20,{LONGEST}}}\\?$"}
        for number, opening in enumerate(_OPENINGS, start=1)
    },
    "required": [f"question_{number}" for number in range(1, QUESTIONS_PER_CALL + 1)],
    "additionalProperties": False,
}


def generate(record: dict[str, Any], models: dict[str, ChatModel], options: dict[str, Any]) -> Generated:
    """Ask for ``num_pairs`` plain questions, spread over a document's segments.

    Args:
        record: A record of ``records.jsonl``.
        models: ``models["qa_generation"]`` is asked.
        options: ``num_pairs`` and ``lookup_share`` are read.
    """
    result = Generated([])
    wanted = options["num_pairs"]
    for chunk in spread(record["chunks"], math.ceil(wanted / QUESTIONS_PER_CALL)):
        count = min(QUESTIONS_PER_CALL, wanted - len(result.pairs))
        questions = _ask(chunk, models["qa_generation"], result)
        result.pairs += [_pair(text, chunk["chunk_id"], options["lookup_share"]) for text in questions[:count]]
    return result


def _pair(question: str, segment: int, share: float) -> dict[str, Any]:
    """A question, or for a share of them its keywords: what a small model writes by itself are sentences."""
    keywords = as_keywords(question) if is_chosen(question, share) else None
    if keywords:
        return make_pair(keywords, [segment], query_type=KEYWORD)
    # white space was made one between words
    cut = {"cut_off": True} if len(question.partition(" ")[2]) > LONGEST - 3 else {}
    return make_pair(question, [segment], query_type="contextual", **cut)


def _ask(chunk: dict[str, Any], model: ChatModel, result: Generated) -> list[str]:
    place = f"segment {chunk['chunk_id']}"
    for length in MAX_CHARACTERS:
        try:
            return ask(
                model,
                messages(chunk["text"], length),
                call=place,
                result=result,
                max_tokens=MAX_TOKENS,
                schema=SCHEMA,
                read=read_questions,
                usable=bool,
            )
        except RequestTooLongError:
            continue
    result.problems.append(f"{place}: too long for the model, no questions")
    result.failures.append({"call": place, "problems": ["too long for the model"], "replies": []})
    return []


def messages(text: str, length: int = MAX_CHARACTERS[0]) -> Messages:
    """The prompt for one segment, of which the first ``length`` characters are shown."""
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"Passage:\n{text[:length]}\n\nWrite three short questions."},
    ]


def read_questions(content: str) -> tuple[list[str], list[str]]:
    """The questions of a reply, and what is wrong with it; of one that was cut off, those that are whole."""
    try:
        value = json.loads(content)
    except ValueError:
        whole = _WHOLE.findall(content)
        return [_one_line(json.loads(f'"{text}"', strict=False)) for text in whole], ["the reply is no JSON"]
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        return [], ["the reply is not a JSON object of questions"]
    return [_one_line(text) for text in value.values()], []


def _one_line(text: str) -> str:
    asked = _PREFACE.sub("", " ".join(text.split()))
    return asked[:1].upper() + asked[1:]


def spread(items: list[Any], count: int) -> list[Any]:
    """``count`` items evenly spread over a list, in order; all of them when there are fewer."""
    if count >= len(items):
        return list(items)
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]
