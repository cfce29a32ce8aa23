"""Sentences and chunks, as verbatim spans of the document."""

import dataclasses
import re
from collections.abc import Callable, Sequence

from scripts.sdg.headings import code_blocks, headings, tables

Span = tuple[int, int]

# A run of characters without white space is cut in pieces of so many, and no finer
LETTERS = 8

_PARAGRAPH = re.compile(r"\n\s*\n+")
# A sentence ends at . ! ? with closing quotes, before white space or the end, or at the marks of other scripts: Chinese
# and Japanese, Devanagari and Bengali, Arabic and Urdu, Armenian, Ethiopic, Khmer, Burmese, Tibetan
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s|$)|[。！？．｡]+[」』”’）]*|[।॥؟۔։።፧។၊။༎]+")
_LINE = re.compile(r"[^\n]+")
_VISIBLE = re.compile(r"\S")
# Longer than any abbreviation with the brackets before it
_WORD = 40
_ABBREVIATIONS = frozenset(
    "al approx bzw ca cf co corp dr ed e.g eds eq eqs esp est etc fig figs i.e inc jr ltd mr mrs ms no nos nr p pp "
    "prof ref refs resp sec sr st u.a usw vol vs z.b "
    # German, French, Spanish and Portuguese, Italian, Dutch, Polish, Russian; none that is a word of English, too
    "abb d.h evtl ggf inkl mind s.o s.u u.ä v.a vgl zzgl éd mme mlle n° réf pág págs sra srta dª ud uds ecc pag sigg "
    "bijv blz enz m.b.t np tzn tzw ww г гг им рис см стр табл т.д т.п "
    "т.е т.к".split()
)


def sentence_spans(text: str) -> list[Span]:
    """Spans ``(start, end)`` of the sentences, without outer white space; together they hold all that is visible."""
    spans: list[Span] = []
    start = 0
    for match in [*_PARAGRAPH.finditer(text), None]:
        end = match.start() if match else len(text)
        spans += _in_paragraph(text, start, end)
        start = match.end() if match else end
    return spans


def prose_spans(text: str) -> list[Span]:
    """Those of the sentences that have no part in a code block or a table."""
    blocks = [*code_blocks(text), *tables(text)]
    spans = sentence_spans(text)
    return [(start, end) for start, end in spans if not any(first < end and start < last for first, last in blocks)]


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
    if mark[0] not in ".…" or match.end() >= end:
        return True
    # the last word alone is looked at: a paragraph may be megabytes long
    near = text[max(start, match.start() - _WORD) : match.start()]
    if not near or near[-1].isspace():
        return True  # a full stop that stands alone, as in tokenized text
    before = near.split()[-1].lstrip("(\"'[“‘").lower()
    if before in _ABBREVIATIONS or (len(before) == 1 and before.isalpha()):
        return False
    following = _VISIBLE.search(text, match.end(), end)
    return following is None or not following.group().islower()


@dataclasses.dataclass(frozen=True)
class Unit:
    """What a chunk is made of: a sentence, a code block or a table, with the headings that stand before it.

    Attributes:
        span: Where it stands.
        opens: It begins with a heading.
        lines: It is a block, which is cut at line ends and nowhere else as long as a line fits.
    """

    span: Span
    opens: bool = False
    lines: bool = False


def units(text: str, name: str = "") -> list[Unit]:
    """The units of a document in order; together they hold all that is visible.

    Args:
        text: The document.
        name: Its file name, which tells Markdown from scripts with ``#`` comments.
    """
    titles = [(heading.start, heading.end, "heading") for heading in headings(text, name)]
    blocks = [(start, end, "block") for start, end in [*code_blocks(text), *tables(text)]]
    found: list[Unit] = []
    opened: int | None = None

    def add(start: int, end: int, *, lines: bool = False) -> None:
        nonlocal opened
        found.append(Unit((start if opened is None else opened, end), opens=opened is not None, lines=lines))
        opened = None

    position = 0
    for start, end, kind in [*sorted(titles + blocks), (len(text), len(text), "end")]:
        if start < position:
            continue  # a table inside a code block
        for left, right in sentence_spans(text[position:start]):
            add(position + left, position + right)
        if kind == "heading" and opened is None:
            opened = start
        elif kind == "block":
            add(start, end, lines=True)
        position = end
    if opened is not None:
        # a heading at the end, which nothing follows
        add(opened, len(text.rstrip()))
    return found


def chunk_spans(
    text: str, *, sentences_per_chunk: int, fits: Callable[[str], bool], name: str = ""
) -> list[list[Span]]:
    """Consecutive sentences in chunks of ``sentences_per_chunk``, each chunk within the model's length.

    A heading stays with what follows it, and begins a new chunk unless the one before has less than half of its
    sentences. Code blocks and tables count as a sentence and are cut only where they alone exceed the model's length.

    Args:
        text: The document.
        sentences_per_chunk: Sentences in a full chunk.
        fits: Whether a text is short enough for the model; a sentence that is not is cut at white space.
        name: The document's file name.

    Returns:
        Sentence spans by chunk.
    """
    chunks: list[list[Span]] = []
    current: list[Span] = []
    for unit in units(text, name):
        for number, piece in enumerate(_pieces(text, unit, fits)):
            # a further piece of a cut sentence did not fit behind the one before it
            full = number > 0 or len(current) >= sentences_per_chunk
            full = full or (unit.opens and 2 * len(current) >= sentences_per_chunk)
            if current and (full or not fits(text[current[0][0] : piece[1]])):
                chunks.append(current)
                current = []
            current.append(piece)
    return [*chunks, current] if current else chunks


def _pieces(text: str, unit: Unit, fits: Callable[[str], bool]) -> list[Span]:
    """A unit in parts that fit: a block in runs of whole lines, a sentence in runs of words."""
    if not unit.lines or fits(text[slice(*unit.span)]):
        return _cut(text, unit.span, fits)
    runs: list[Span] = []
    for match in _LINE.finditer(text, *unit.span):
        if not match.group().strip():
            continue
        if runs and fits(text[runs[-1][0] : match.end()]):
            runs[-1] = (runs[-1][0], match.end())
        else:
            runs.append(match.span())
    return [piece for run in runs for piece in _cut(text, run, fits)]


def _cut(text: str, span: Span, fits: Callable[[str], bool]) -> list[Span]:
    if span[1] - span[0] <= LETTERS or fits(text[span[0] : span[1]]):
        return [span]
    words = [match.span() for match in re.compile(r"\S+").finditer(text, *span)]
    if len(words) == 1:
        words = _letters(span)
    pieces: list[Span] = []
    first, count = 0, 1
    while first < len(words):
        count = _most(words, first, lambda left, right: fits(text[left:right]), guess=count)
        if count == 1 and words[first][1] - words[first][0] > 1 and not fits(text[slice(*words[first])]):
            pieces += _cut(text, words[first], fits)
        else:
            pieces.append((words[first][0], words[first + count - 1][1]))
        first += count
    return pieces


def _letters(span: Span) -> list[Span]:
    return [(position, min(position + LETTERS, span[1])) for position in range(span[0], span[1], LETTERS)]


def _most(words: Sequence[Span], first: int, fits: Callable[[int, int], bool], *, guess: int) -> int:
    """How many words from ``first`` on fit (at least one).

    Searched outwards from ``guess``, the count of the piece before: pieces of one text are alike, and every look costs
    a tokenization.
    """
    limit = len(words) - first
    guess = min(guess, limit)

    def ok(count: int) -> bool:
        return fits(words[first][0], words[first + count - 1][1])

    step = max(1, guess // 32)
    if guess == 1 or ok(guess):
        fit, unfit = guess, guess + step
        while unfit <= limit and ok(unfit):
            step *= 2
            fit, unfit = unfit, unfit + step
        unfit = min(unfit, limit + 1)
    else:
        fit, unfit = max(1, guess - step), guess
        while fit > 1 and not ok(fit):
            step *= 2
            fit, unfit = max(1, fit - step), fit
    while unfit - fit > 1:
        middle = (fit + unfit) // 2
        fit, unfit = (middle, unfit) if ok(middle) else (fit, middle)
    return fit
