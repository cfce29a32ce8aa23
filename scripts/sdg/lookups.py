"""What users really type: keywords, short questions and identifiers, as a share of the questions asked for."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from scripts.sdg.filters import content_words

KEYWORD, SHORT, IDENTIFIER = "keyword", "short", "identifier"
LOOKUPS = (KEYWORD, SHORT, IDENTIFIER)
HELP = {
    KEYWORD: "two to six keywords as typed into a search box, no sentence",
    SHORT: "a question of at most six words",
    IDENTIFIER: "a name, code, version, command or option from the segments with at most three words around it",
}


def lookup_count(wanted: int, options: Mapping[str, Any]) -> int:
    """How many of ``wanted`` questions are lookups."""
    return round(options["lookup_share"] * wanted)


def as_keywords(question: str) -> str | None:
    """A question's keywords in its order and spelling, or ``None`` where there are fewer than two."""
    wanted = set(content_words(question))
    words = [word for word in re.findall(r"[\w'.-]*\w", question) if word.lower() in wanted]
    words = list(dict.fromkeys(words))[:6]
    return " ".join(words) if len(words) > 1 else None


def is_chosen(question: str, share: float) -> bool:
    """Whether a question is among the given share, by its hash: the same in every run."""
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:4], "big") < share * 2**32
