"""Headings inside documents, in Markdown and reST, and what else has a form of its own: code blocks and tables."""

import dataclasses
import re

Span = tuple[int, int]

# Indented as deep as lists nest
_FENCE = re.compile(r"^[ \t]*(`{3,}(?=[^`\n]*$)|~{3,})[^\n]*$", re.MULTILINE)
_ATX = re.compile(r"^ {0,3}#{1,6}[ \t]+(?P<text>\S[^\n]*?)[ \t]*#*[ \t]*$", re.MULTILINE)
# A line of text with a ruler below that is at least about as long (Markdown's setext headings, reST's titles)
_UNDERLINED = re.compile(r"^(?P<text>[^\s=\-~^*+#|:.][^\n|]*)\n(?P<ruler>([=\-~^*+#\"'])\3{2,})[ \t]*$", re.MULTILINE)
# Two or more lines that begin with a cell's edge, or a Markdown table without outer edges with its delimiter row
_TABLE = re.compile(
    r"(?:^[ \t]*[|+][^\n]*(?:\n|\Z)){2,}|"
    r"^[^\n|]+\|[^\n]*\n[ \t]*:?-{3,}:?[ \t]*\|[-:| \t]*\n(?:^[^\n|]*\|[^\n]*(?:\n|\Z))*",
    re.MULTILINE,
)
_MARKDOWN = re.compile(r"\.(md|markdown|mdx|rmd|qmd)$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading: where it stands, ruler and marks included, and its words."""

    start: int
    end: int
    text: str


def code_blocks(text: str) -> list[Span]:
    """Fenced code blocks, the fences included; one that is not closed reaches to the end."""
    spans, position = [], 0
    while (opened := _FENCE.search(text, position)) is not None:
        mark = opened[1]
        if _underlines(text, opened):
            position = opened.end()
            continue
        closing = re.compile(rf"^[ \t]*{re.escape(mark[0])}{{{len(mark)},}}[ \t]*$", re.MULTILINE)
        closed = closing.search(text, opened.end())
        end = closed.end() if closed else len(text)
        spans.append((opened.start(), end))
        position = end
    return spans


def _underlines(text: str, fence: re.Match[str]) -> bool:
    """Whether a line of tildes is the ruler of a reST title, which is at least as long as the title above."""
    above = text[: fence.start()].removesuffix("\n").rpartition("\n")[2].rstrip()
    return fence[0].strip("~") == "" and 0 < len(above) <= len(fence[0])


def tables(text: str) -> list[Span]:
    """Pipe and grid tables."""
    return [(match.start(), match.start() + len(match.group().rstrip())) for match in _TABLE.finditer(text)]


def headings(text: str, name: str = "") -> list[Heading]:
    """Headings in order, none of them inside code or tables.

    Marks of ``#`` count in Markdown files, and in others when there are two or more with an empty line before them:
    elsewhere such lines are comments.
    """
    closed = [*code_blocks(text), *tables(text)]
    atx = list(_ATX.finditer(text))
    if not _MARKDOWN.search(name):
        atx = [match for match in atx if match.start() == 0 or text[: match.start()].endswith("\n\n")]
        atx = atx if len(atx) > 1 else []
    underlined = [
        match for match in _UNDERLINED.finditer(text) if len(match["ruler"]) >= 0.7 * len(match["text"].rstrip())
    ]
    found = [
        Heading(match.start(), match.end(), " ".join(match["text"].split()))
        for match in [*atx, *underlined]
        if not any(start <= match.start() < end for start, end in closed)
    ]
    return sorted(found, key=lambda heading: heading.start)
