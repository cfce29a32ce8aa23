"""Asking until a reply can be used, and keeping what could not."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from scripts.common.llm import ChatModel, Messages
from scripts.common.llm_traffic import FailedRequestError
from scripts.sdg.generated import Generated

# Requests for one reply in one run, the first and one more
FRESH = 2
# What a reader may raise that meets what no model should write
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)

Value = TypeVar("Value")


def ask(
    model: ChatModel,
    messages: Messages,
    *,
    call: str,
    result: Generated,
    max_tokens: int,
    schema: dict[str, Any],
    read: Callable[[str], tuple[Value, list[str]]],
    usable: Callable[[Value], bool],
    form: str = "",
    fresh: int = FRESH,
) -> Value:
    """What the first usable reply says.

    Attempts differ by seed, and the later ones say what was wrong with the one before. Those that are in the reply
    store are looked at first, so another run goes on where this one ends: it sends something only for what has no
    usable reply yet. What is wrong goes to ``result.problems``; raw replies of which none could be used, and requests
    that got no reply, go to ``result.failures`` as well.

    Args:
        model: Is asked.
        messages: Chat messages.
        call: What is asked for, as the ledger names it.
        result: Receives problems and failures.
        max_tokens: Length limit of a reply.
        schema: JSON Schema of a reply.
        read: Value of a reply, and what is wrong with it; of an empty reply the value that stands for none.
        usable: Whether a value is worth having.
        form: The form of a reply in words, where ``messages`` do not tell it.
        fresh: Requests in this run.
    """
    unusable: list[dict[str, str]] = []
    sent, current = 0, messages
    while True:
        attempt: dict[str, Any] = {"max_tokens": max_tokens, "schema": schema, "seed": len(unusable)}
        new = not model.was_asked(current, **attempt)
        if new and sent == fresh:
            break
        sent += new
        result.sent += new
        try:
            reply = model.ask(current, **attempt, form=form)
        except FailedRequestError as error:
            _fail(result, call, [str(error)], unusable)
            return read("")[0]
        try:
            value, wrong = read(reply["content"])
        except _UNREADABLE as error:
            # the reply is stored, so a run that ended here would end here for good
            value, wrong = read("")[0], [f"the reply cannot be read ({type(error).__name__}: {error})"]
        if reply["finish_reason"] == "length":
            wrong = [*wrong, "the reply was cut off by the length limit"]
        if usable(value):
            result.problems += [f"{call}: {text}" for text in wrong]
            return value
        unusable.append({name: reply[name] for name in ("content", "finish_reason")})
        current = corrected(messages, wrong)
    _fail(result, call, [f"asked {len(unusable)} times in vain: {text}" for text in wrong], unusable)
    return value


def note_rest(result: Generated, call: str, text: str) -> None:
    """Put into problems and ledger that a part of what was asked for did not come."""
    _fail(result, call, [text], [])


def _fail(result: Generated, call: str, wrong: list[str], replies: list[dict[str, str]]) -> None:
    result.problems += [f"{call}: {text}" for text in wrong]
    result.failures.append({"call": call, "problems": wrong, "replies": replies})


def corrected(messages: Messages, wrong: Sequence[str]) -> Messages:
    """The same request with what was wrong with the last reply.

    It goes into the last message, not into one of its own: some chat templates refuse two user messages in a row.
    """
    faults = "\n".join(f"- {text}" for text in wrong[:10])
    last = messages[-1]
    return [
        *messages[:-1],
        {**last, "content": f"{last['content']}\n\nAn earlier reply to this could not be used:\n{faults}\nAvoid that."},
    ]
