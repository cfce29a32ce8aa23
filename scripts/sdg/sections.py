"""Sections: a record's chunks as the question model sees them, numbered, in the recipe's form."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scripts.common.files import without_half_pairs

Chunk = dict[str, Any]

# The recipe's segments carry time stamps, from its first use on transcripts; they are always zero
_SEGMENT = re.compile(r"^Segment (\d+) (?:\[Doc: [^\n]*?\] )?\(00:00:00 - 00:00:00\): ", re.MULTILINE)


def sections(chunks: Sequence[Chunk], count: int, strategy: str = "sequential") -> list[str]:
    """Chunks in at most ``count`` sections.

    Args:
        chunks: Chunks of a document, or of a bundle (those have ``doc_path``).
        count: Sections.
        strategy: ``sequential`` keeps the documents one after the other; ``doc_balanced`` gives each section its share
            of every document; ``interleaved`` takes a chunk of each document in turn.
    """
    documents = [list(group) for _, group in itertools.groupby(chunks, key=lambda chunk: chunk.get("doc_path", ""))]
    if strategy == "doc_balanced":
        shares = [_split(document, count) for document in documents]
        return render(list(itertools.chain(*parts)) for parts in itertools.zip_longest(*shares, fillvalue=[]))
    if strategy == "interleaved":
        rounds = itertools.chain(*itertools.zip_longest(*documents))
        return render(_split([chunk for chunk in rounds if chunk is not None], count))
    return render(_split(chunks, count))


def _split(chunks: Sequence[Chunk], count: int) -> list[Sequence[Chunk]]:
    """Equal parts of which the last takes the rest, as the recipe cuts them."""
    size = max(1, len(chunks) // count)
    return [
        chunks[number * size : (number + 1) * size if number < count - 1 else None]
        for number in range(min(count, len(chunks)))
    ]


def render(parts: Iterable[Sequence[Chunk]]) -> list[str]:
    """Text of each section, with its number."""
    return [
        "\n".join([f"=== Section {number} ===", *map(segment_line, part)]) for number, part in enumerate(parts, start=1)
    ]


def segment_line(chunk: Mapping[str, Any]) -> str:
    """A chunk with its id, and with its document where there are several."""
    document = f"[Doc: {without_half_pairs(chunk['doc_path'])}] " if "doc_path" in chunk else ""
    return f"Segment {chunk['chunk_id']} {document}(00:00:00 - 00:00:00): {chunk['text']}"


def members(section: str, chunks: Mapping[int, Chunk]) -> list[Chunk]:
    """The chunks of a section, in its order."""
    found = dict.fromkeys(int(match[1]) for match in _SEGMENT.finditer(section))
    return [chunks[number] for number in found if number in chunks]


def documents_of(chunks: Sequence[Chunk]) -> int:
    """How many documents chunks come from."""
    return len({chunk.get("doc_path") for chunk in chunks})
