"""More training pairs without a language model: section headings, defined terms and identifiers as queries.

They are what people type when they look something up, and every technical document states the answers itself.
"""

import re
from collections.abc import Iterator
from typing import Any

from scripts.sdg.filters import length_in_words
from scripts.sdg.generated import make_pair
from scripts.sdg.headings import headings

HEADING, DEFINITION, IDENTIFIER = "heading", "definition", "identifier"
EXTRA_TYPES = (HEADING, DEFINITION, IDENTIFIER)
Chunk = dict[str, Any]
Found = tuple[str, Chunk, str | None]

_REST_WORDS = 20
# Headings that say nothing without the document's title
_GENERIC = frozenset(
    "abstract arguments attributes background conclusion contents description discussion example examples faq features "
    "general installation introduction methods notes options overview parameters raises references requirements "
    "results returns see setup summary syntax usage".split()
)
_DEFINITION = re.compile(
    r"(?:^|(?<=[.!?\n]))\s*(?P<term>(?:[Aa]n? |[Tt]he )?(?:[\w'’/-]+ ){0,4}?[\w'’/()-]+) "
    r"(?:is|are|means|denotes|refers to|is defined as|stands for) (?:an?|the|any|one)\b"
)
_NO_TERM = frozenset(
    "a all an and another as at both but each for he here how i if in it its no not of on one or our she such that the "
    "their there these they this those to we what when where which who why with you".split()
)
# A name that is not a plain word: snake_case, CamelCase, dotted.names, --options, CODE-12, X509
_IDENTIFIER = re.compile(
    r"(?<![\w.-])(--[a-z][\w-]{2,}|[A-Za-z]\w*(?:[._]\w+)+(?:\(\))?|[A-Z][a-z]+(?:[A-Z][a-z0-9]*)+|"
    r"[A-Z]{2,}[-_]?\d[\w-]*)(?![\w-])"
)


def extra_pairs(record: dict[str, Any], count: int, *, training_only: bool) -> list[dict[str, Any]]:
    """At most ``count`` pairs of a record, one of each kind in turn, in the document's order.

    Args:
        record: A record with chunks.
        count: Pairs.
        training_only: ``False`` makes test queries of them too; their passages are then whole chunks.
    """
    sources = [
        (HEADING, _headings(record)),
        (DEFINITION, _definitions(record)),
        (IDENTIFIER, _identifiers(record)),
    ]
    pairs: list[dict[str, Any]] = []
    seen = {record.get("title", "").lower()}
    while sources and len(pairs) < count:
        query_type, found = sources.pop(0)
        for query, chunk, passage in found:
            if query.lower() not in seen:
                seen.add(query.lower())
                own = {"passage": passage} if passage and training_only else {}
                mark = {"training_only": True} if training_only else {}
                pairs.append(make_pair(query, [chunk["chunk_id"]], query_type=query_type, **mark, **own))
                sources.append((query_type, found))
                break
    return pairs


def _headings(record: dict[str, Any]) -> Iterator[Found]:
    """Each heading with the chunk in which its text begins; a heading that says little with the title before it."""
    title, chunks = record.get("title", ""), record["chunks"]
    for heading in headings(record["text"], record["file_name"][0]):
        after = heading.end + len(record["text"][heading.end :]) - len(record["text"][heading.end :].lstrip())
        chunk = next((chunk for chunk in chunks if chunk["char_start"] <= after < chunk["char_end"]), None)
        words = re.findall(r"\w+", heading.text.lower())
        if chunk is None or not words or heading.text == title:
            continue
        if length_in_words(heading.text, r"\w+") < 2 or words[0] in _GENERIC:
            if not title or record["is_multi_doc"]:
                continue
            query = f"{title} {heading.text}"
        else:
            query = heading.text
        rest = chunk["text"].replace(record["text"][heading.start : heading.end], "", 1).strip()
        if length_in_words(rest) >= _REST_WORDS:
            yield query, chunk, rest


def _definitions(record: dict[str, Any]) -> Iterator[Found]:
    for chunk in record["chunks"]:
        for match in _DEFINITION.finditer(chunk["text"]):
            term = " ".join(re.sub(r"^(an?|the) ", "", match["term"], flags=re.IGNORECASE).split())
            words = term.lower().split()
            if words and not _NO_TERM & set(words) and len(term) > 3 and length_in_words(chunk["text"]) >= _REST_WORDS:
                yield f"what is {term}", chunk, None


def _identifiers(record: dict[str, Any]) -> Iterator[Found]:
    """Identifiers that one chunk of the document has, and no other."""
    where: dict[str, list[Chunk]] = {}
    for chunk in record["chunks"]:
        for name in dict.fromkeys(match[1] for match in _IDENTIFIER.finditer(chunk["text"])):
            where.setdefault(name, []).append(chunk)
    for name, chunks in where.items():
        if len(chunks) == 1 and len(name) > 4 and length_in_words(chunks[0]["text"]) >= _REST_WORDS:
            yield name, chunks[0], None
