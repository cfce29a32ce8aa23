"""The form that plain questions are held to: openings and signs, by the passage they are asked about.

Where sentences of the passage say what can be asked for, the openings are theirs (``scripts/sdg/statements.py``).

A grammar that knows English alone makes a model write English about any text, and "C" where the passage has "C++".
One that knows every sign lets a small model wander. So the form has what the passage has: its letters and signs, and
the openings of English questions where it is English.
"""

import re
from collections.abc import Sequence
from typing import Any

from scripts.sdg.filters import UNSPACED

# Characters of a question after its first word; one of so many was ended by the grammar and not by the model
LONGEST = 140
_OPENINGS = ("What", "How", "(Which|Why|When|Where|Is|Does|Can)")
QUESTIONS_PER_CALL = len(_OPENINGS)
# Between an opening that a passage gives and what it is about
_LINK = "(in|of|for|on)"
_LETTERS = "a-zA-Z0-9"
_SIGNS = " ,'()/_.-"
# Signs of names as in C++, C#, a::b, --option=value, R&D, user@host, 50%; a colon only inside a name
_SIGN_OF_NAME = re.compile(r"[+#=&@%]|(?<=\S):(?=\S)")
# Letters, with the marks that stand above and below them, beyond ASCII: ranges that are added where the passage has
# one of them. Latin; Greek to Georgian and the scripts of India and South East Asia; Chinese, Japanese, Korean
_MORE_LETTERS = (
    "\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
    "\u0370-\u037d\u037f-\u1dff\u1f00-\u1ffe",
    "\u3001\u3005-\u300f\u3040-\u318f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uff08\uff09\uff0c",
)
MARKS = "?\uff1f\u061f"
_SCRIPTS_OF_MARKS = {"\uff1f": UNSPACED, "\u061f": re.compile("[\u0600-\u06ff]")}
# The words that a text cannot do without; those of two languages are told apart by which are more
_ENGLISH = frozenset("the of and is for that with are by this from which it be not can".split())
_OTHER = frozenset(
    "der die das und ist nicht mit für den von zu ein eine wird auf le la les des est une et que pour dans sur du el "
    "los las por con una del se para il di che per non della sono het een van en niet och att som är det på ett og er "
    "til af o os da do em um uma com não i w z na jest nie oraz je se ve bir bu yang dan untuk ja ei on että".split()
)
_WORD = re.compile(r"[^\W\d_]+")


def is_english(text: str) -> bool:
    """Whether questions about a text should be in English; so where nothing speaks for another language."""
    words = _WORD.findall(text.lower())
    english, other = (sum(word in known for word in words) for known in (_ENGLISH, _OTHER))
    letters = [letter for word in words for letter in word]
    foreign = sum(not letter.isascii() for letter in letters) / max(1, len(letters))
    return foreign < 0.3 if english > other else english == other and foreign < 0.03


def schema_for(passage: str, openings: Sequence[tuple[str, Sequence[str], bool]] = ()) -> dict[str, Any]:
    """JSON Schema of a reply with three questions about a passage.

    Args:
        passage: The text.
        openings: All of the first questions but their ends, each with what may come behind it (``contexts``), and
            whether one of these must.
    """
    alphabet = _LETTERS + "".join(more for more in _MORE_LETTERS if re.search(f"[{more}]", passage))
    signs = "".join(sorted(set(_SIGN_OF_NAME.findall(passage)))) + _SIGNS
    if is_english(passage):
        patterns = [f"^{opening} [{alphabet}{signs}]{{20,{LONGEST}}}\\?$" for opening in _OPENINGS]
    else:
        shortest = 4 if UNSPACED.search(passage) else 12
        marks = "".join(mark for mark, script in _SCRIPTS_OF_MARKS.items() if script.search(passage))
        patterns = [f"^[{alphabet}\u00bf][{alphabet}{signs}]{{{shortest},{LONGEST}}}[?{marks}]$"] * QUESTIONS_PER_CALL
    patterns[: len(openings)] = [_completed(*opening) for opening in openings[:QUESTIONS_PER_CALL]]
    names = [f"question_{number}" for number in range(1, QUESTIONS_PER_CALL + 1)]
    return {
        "type": "object",
        "properties": {
            name: {"type": "string", "pattern": pattern} for name, pattern in zip(names, patterns, strict=True)
        },
        "required": names,
        "additionalProperties": False,
    }


def _completed(opening: str, contexts: Sequence[str], must: bool) -> str:
    ends = "|".join(map(_literal, contexts))
    return f"^{_literal(opening)}" + (f"( {_LINK} ({ends})){'' if must else '?'}" if ends else "") + r"\?$"


def _literal(text: str) -> str:
    """A text as a pattern that every endpoint's kind of regular expressions reads the same way."""
    return re.sub(r"[][\\.*+?(){}|^$/]", r"\\\g<0>", text)


def fills_the_form(question: str) -> bool:
    """Whether a question is as long as its form lets it be, so that it was cut off."""
    opening = re.match(rf"(?:{'|'.join(_OPENINGS)}) ", question)
    # white space was made one between words
    return len(question) - (opening.end() if opening else 1) > LONGEST - 3
