"""Sentences and chunks, as verbatim spans of the document."""

import re
from collections.abc import Callable, Sequence

Span = tuple[int, int]

# A run of characters without white space is cut in pieces of so many, and no finer
LETTERS = 8

_PARAGRAPH = re.compile(r"\n\s*\n+")
# A sentence ends at . ! ? (or their full-width forms) with closing quotes, before white space or the end
_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)|[。！？]+[」』”’）]*")
_ABBREVIATIONS = frozenset(
    "al approx bzw ca cf co corp dr ed e.g eds eq eqs esp est etc fig figs i.e inc jr ltd mr mrs ms no nos nr p pp prof "
    "ref refs resp sec sr st u.a usw vol vs z.b".split()
)


def sentence_spans(text: str) -> list[Span]:
    """Spans ``(start, end)`` of the sentences, without outer white space; together they hold every visible character."""
    spans: list[Span] = []
    start = 0
    for match in [*_PARAGRAPH.finditer(text), None]:
        end = match.start() if match else len(text)
        spans += _in_paragraph(text, start, end)
        start = match.end() if match else end
    return spans


def _in_paragraph(text: str, start: int, end: int) -> list[Span]:
    cuts = [match.end() for match in _END.finditer(text, start, end) if _is_end(text, match, start, end)]
    spans = []
    for left, right in zip([start, *cuts], [*cuts, end], strict=True):
        piece = text[left:right]
        if piece.strip():
            lead = len(piece) - len(piece.lstrip())
            spans.append((left + lead, left + len(piece.rstrip())))
    return spans


def _is_end(text: str, match: re.Match[str], start: int, end: int) -> bool:
    mark = match.group()
    if mark[0] in "。！？!?" or match.end() >= end:
        return True
    word = text[start : match.start()].split()[-1:] if match.start() > start else []
    if not text[start : match.start()].strip() or text[match.start() - 1].isspace():
        return True  # a full stop that stands alone, as in tokenized text
    before = word[0].lstrip("(\"'[“‘").lower() if word else ""
    if before in _ABBREVIATIONS or (len(before) == 1 and before.isalpha()):
        return False
    following = text[match.end() : end].lstrip()[:1]
    return not following.islower()


def chunk_spans(text: str, *, sentences_per_chunk: int, fits: Callable[[str], bool]) -> list[list[Span]]:
    """Consecutive sentences in chunks of ``sentences_per_chunk``, each chunk within the model's length.

    Args:
        text: The document.
        sentences_per_chunk: Sentences in a full chunk.
        fits: Whether a text is short enough for the model; a sentence that is not is cut at white space.

    Returns:
        Sentence spans by chunk.
    """
    chunks: list[list[Span]] = []
    current: list[Span] = []
    for span in sentence_spans(text):
        for piece in _cut(text, span, fits):
            if current and (len(current) >= sentences_per_chunk or not fits(text[current[0][0] : piece[1]])):
                chunks.append(current)
                current = []
            current.append(piece)
    return [*chunks, current] if current else chunks


def _cut(text: str, span: Span, fits: Callable[[str], bool]) -> list[Span]:
    if span[1] - span[0] <= LETTERS or fits(text[span[0] : span[1]]):
        return [span]
    words = [match.span() for match in re.compile(r"\S+").finditer(text, *span)]
    if len(words) == 1:
        words = _letters(span)
    pieces: list[Span] = []
    first = 0
    while first < len(words):
        count = _most(words, first, lambda left, right: fits(text[left:right]))
        if count == 1 and words[first][1] - words[first][0] > 1 and not fits(text[slice(*words[first])]):
            pieces += _cut(text, words[first], fits)
        else:
            pieces.append((words[first][0], words[first + count - 1][1]))
        first += count
    return pieces


def _letters(span: Span) -> list[Span]:
    return [(position, min(position + LETTERS, span[1])) for position in range(span[0], span[1], LETTERS)]


def _most(words: Sequence[Span], first: int, fits: Callable[[int, int], bool]) -> int:
    """How many words from ``first`` on fit (at least one), found by doubling and halving."""
    count = 1
    while first + 2 * count <= len(words) and fits(words[first][0], words[first + 2 * count - 1][1]):
        count *= 2
    step = count
    while step:
        if first + count + step <= len(words) and fits(words[first][0], words[first + count + step - 1][1]):
            count += step
        step //= 2
    return count
