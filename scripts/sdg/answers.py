"""What a question asks for that its passage must have: small models ask for what is not there.

A question is no proof that there is an answer. But what it asks for leaves traces in a text that says it: a number, a
name, a reason, a purpose. Where the trace is missing, so is the answer. The traces are those of English; questions in
other languages have none of the openings, and are let pass.
"""

import math
import re
from collections.abc import Callable, Sequence

from scripts.sdg.filters import content_words, stem
from scripts.sdg.sentences import sentence_spans

# Content words that a passage must have besides those of the question: a heading alone, or a sentence that only names
# the subject, answers nothing
FEWEST_NEW = 10
# A passage of fewer content words (an answer of a FAQ, an entry of a glossary) must have a third of them, and two
SHORT = 20
# Words of a paragraph in front that is taken for a heading
LONGEST_HEADING = 25
_NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
# "one" is rarely a number
_NUMBER = re.compile(rf"\b(?:\d+(?:\.\d+)?|(?:{'|'.join(_NUMERALS[2:])})\b)", re.IGNORECASE)
# A word with a capital that opens no sentence; in German every noun has one, so the question must be English
_NAME = re.compile(r"(?<=[a-z0-9,)] )\(?([A-Z][\w-]*\w)")
_ENGLISH = re.compile(r"(what|how|which|why|when|where|who|is|are|does|do|did|can|could|has|have|will|should)\b", re.I)
_MOST = re.compile(r"\b(?:most|least) (\w+)", re.IGNORECASE)
# Who asks for one of these may find another of them, each with words of the same kind
_EXTREMES = tuple(
    re.compile(rf"\b(?:{words})", re.IGNORECASE)
    for words in (
        "maxim|largest|highest|greatest|biggest|upper|peak|at most",
        "minim|smallest|lowest|least|lower|at least",
        "best|optim|superior|better|ideal",
        "worst|slowest|poorest",
        "fastest|quickest|shortest",
        "newest|latest|current|recent",
    )
)
_CUES = tuple(
    (re.compile(asked, re.IGNORECASE), re.compile(rf"\b(?:{said})", re.IGNORECASE))
    for asked, said in (
        (
            r"\b(purpose|aim|goal|objective)s? (of|for|behind)\b",
            r"purpose (of|is|was)|aim|goal|objective|in order to|so as to|so that|intended|designed (to|for)|"
            r"used (to|for)|serves?|attempt to|needed|enables?|to (determine|obtain|provide|find|measure|investigate|"
            r"study|assist|improve|reduce|avoid|facilitate|ensure|prevent)\b",
        ),
        (
            r"\b(advantage|benefit|merit|strength)s?\b",
            r"advantag|benefi|gain|merit|better|best|improv|efficien|fast|quick|reduc|sav|superior|econom|simpl|eas[iy]|less|"
            r"more|great|optim|flexib|power|without|no longer",
        ),
        (
            r"\b(disadvantage|limitation|drawback|weakness|challenge)s?\b",
            r"disadvantag|limit|drawback|weak|challeng|problem|difficult|restrict|cannot|can't|however|fail|error|slow|"
            r"cost|but|only|not",
        ),
        (
            r"^why\b|\b(reason|cause)s? (for|of|why|behind)\b",
            r"because|since|due to|therefore|thus|hence|so that|reason|caus|results? (in|of|from)|as a result|leads?|"
            r"owing|in order|accounts? for|explain|consequen|otherwise|prevent|avoid|if",
        ),
        (r"^when\b|\bwhat (year|date)\b", r"when|while|after|before|during|until|if|once|date|year|time|since|\d{4}"),
        (
            r"^how (many|much|often|long|far|fast)\b|\bthe number of\b",
            rf"\d|{'|'.join(_NUMERALS[1:])}|number|pair|single",
        ),
        (
            r"^how .*\b(affect|influence|impact)s?\b|\b(effect|impact|influence)s? of\b.*\bon\b",
            r"increas|decreas|reduc|rais|rise|lower|higher|larger|smaller|greater|less|more|little|no effect|negligi|"
            r"signific|caus|leads?|results? in|depend|vary|varies|delay|shift|improv|wors|doubl|proportional|chang|"
            r"affects?|influences?|produc|prevent|enabl|makes?|tends?|strong|weak",
        ),
        (
            r"^how (do|does|did) .*\bworks?\?",
            r"works?|operat|mechanism|principle|by \w+ing|consist|us(e|es|ed|ing)|through|when|then",
        ),
        (
            r"^how (?!(many|much|often|long|far|fast)\b)(?!.*\b((affect|influence|impact|differ|compare)s?|works?)\b)",
            r"by|using|us(e|es|ed)|through|from|via|with|based|means|if|when|because|since|then|thus|so|result|lead|caus|"
            r"increas|decreas|reduc|depend|allow|enabl|provid|must|can|should|effect",
        ),
    )
)
_TWO = re.compile(r",? (and|or) (what|how|why|when|where|which|who|is|are|does|do|can)\b.*\?", re.IGNORECASE)
_YES_OR_NO = re.compile(
    r"(is|are|was|were|do|does|did|can|could|has|have|had|will|would|should|must|may)\b", re.IGNORECASE
)
# Abstracts announce what the text behind them says; what follows one of these with a "by" or an "as" says it itself
_ANNOUNCES = re.compile(
    r"\b(?:is|are|was|were|be|been) (?:also |briefly |then |first |finally |\w+ly )?(?:analy[sz]ed|calculated|"
    r"carried out|computed|conducted|considered|derived|described|determined|developed|discussed|evaluated|examined|"
    r"explored|extended|given|illustrated|included|investigated|listed|measured|mentioned|obtained|outlined|performed|"
    r"presented|reported|reviewed|studied|summari[sz]ed|surveyed|tested|undertaken|made (?:at|in|of|on|to))\b"
    r"(?! (?:as|based|by|from|if|through|using|via|when|with)\b)|"
    r"\b(?:describes?|discusses|lists|presents|reports|outlines|examines|reviews|surveys)\b|"
    r"\b(?:description|discussion)s? of\b",
    re.IGNORECASE,
)
# The least share of a question's content words that one sentence must have, together with the title: words that come
# from all over a passage ask for a connection that it does not make
SENTENCE_COVERAGE = 0.85
# Sentences speak of a question as much as the one that does most, when they have at most this share of it less
_AS_MUCH = 0.1
_DIFFERENCE = re.compile(r"\bdifferences? between\b|\bhow do(es)? .* (differ|compare)\b", re.IGNORECASE)
_DIFFERS = re.compile(
    r"\b(differ(s|ed|ent from|ences? (between|from|in))?\b|unlike|whereas|in contrast|contrary to|as opposed to|"
    r"rather than|distinguish\w*|instead of|than|not the same)\b",
    re.IGNORECASE,
)
_HOW_MANY = re.compile(r"how many (?P<what>[\w-]+)", re.IGNORECASE)
_WHAT_IS = re.compile(r"what (?:is|are|was|were) (?:an? |the )?(?P<what>[^?]+)\??$", re.IGNORECASE)
_WORKS = re.compile(r"how (?:do|does|did) (?P<what>.*)\bwork\?", re.IGNORECASE)
# A text shows, gives or helps by what it is, and nothing in it says how; nor when something is possible
_IDLE = re.compile(
    r"how (?:do|does|did) .*\b(?:contribute|give|help|relate|show)\b|(?:when|where) is it possible\b", re.IGNORECASE
)
# What follows a subject of which something is said; "is treated" says nothing of it
_TELLING = (
    r"(?:is|are|was|were) (?!(?:\w+ly |also |then |now )?(?:being|given|made|shown|sought|\w+ed)\b)|"
    r"(?:(?<!by )means|denotes|refers to|equals?|"
    r"(?:depend|var(?:y|ie)|consist|increase|decrease|contain|include|involve)s?|(?:has|have) an?|can be|may be) "
)
# What one sentence must have; of the looser traces (``_CUES``) these are the ones that tell
_SENTENCE_CUES = (
    *_CUES[:-1],
    (
        _CUES[-1][0],
        re.compile(
            r"\b(?:by|using|used|through|via|from|because|when|if|depend\w*|increas\w*|decreas\w*|reduc\w*|causes?|leads?|"
            r"means of)\b",
            re.IGNORECASE,
        ),
    ),
    (
        re.compile(r"\b(purpose|aim|goal|objective)s? (of|for|behind)\b", re.IGNORECASE),
        re.compile(
            r"\b(?:purpose|aim|goal|objective|in order to|so as to|so that|intended|designed|used|serves?|enables?)\b",
            re.IGNORECASE,
        ),
    ),
    (_DIFFERENCE, _DIFFERS),
)
# What a sentence has that announces and says it as well
_SAYS = re.compile(
    r"\b(?:found|show(?:s|ed|n|ing)?|indicat\w*|yield\w*|gives?|which|leads?|because|so that|equals?|proportional|"
    r"depend\w*)\b",
    re.IGNORECASE,
)
_ASKS_FOR_CONTENT = re.compile(
    r"how (?!(?:many|much|often|long|far|fast)\b)|(?:what|which|why)\b(?!.*\b(?:purpose|aim|goal|objective)s?\b)",
    re.IGNORECASE,
)
# What a question asks for the something of: of these the passage need not have the word
_ASKED_FOR = re.compile(
    r"what (?:is|are|was|were) (?:the|an?) ((?:[\w'-]+ ){0,4}?[\w'-]+) (?:associated|at|behind|between|by|"
    r"describing|for|from|in|of|on|that|to|used|which|with)\b",
    re.IGNORECASE,
)
_ANY_WORD_FOR = frozenset("impact influence way".split())


def missing(question: str, passage: str) -> str | None:
    """Why a passage cannot answer a question, or ``None``.

    Args:
        question: One line.
        passage: The text it was asked about, behind its title and an empty line.
    """
    if _TWO.search(question):
        return "asks two things"
    if numbers(question) - numbers(passage):
        return "asks about a number that its passage does not have"
    text = passage.lower()
    # of names the plural too
    if _ENGLISH.match(question) and any(name.lower().removesuffix("s") not in text for name in _NAME.findall(question)):
        return "asks about a name that its passage does not have"
    body = without_heading(passage)
    cues = [said for asked, said in (*_CUES, *zip(_EXTREMES, _EXTREMES, strict=True)) if asked.search(question)]
    if not all(said.search(body) for said in cues):
        return "asks for what its passage does not say"
    if any(word.lower()[:6] not in text for word in _MOST.findall(question)):
        return "asks for what its passage does not say"
    if not cues and _lacks_what_is_asked_for(question, passage):
        return "asks for what its passage does not say"
    return None


def _lacks_what_is_asked_for(question: str, passage: str) -> bool:
    asked = _ASKED_FOR.match(question)
    words = content_words(asked[1])[-1:] if asked else []
    known = set(map(stem, content_words(passage)))
    return any(word not in _ANY_WORD_FOR and stem(word) not in known for word in words)


def only_announces(question: str, passage: str, coverage: Callable[[str, str], float]) -> bool:
    """Whether all that a passage has on a question is the promise of an answer, as in "the method is described".

    Args:
        question: One line.
        passage: The text it was asked about.
        coverage: How much of a question a text speaks of, see :class:`scripts.sdg.checks.Coverage`.
    """
    if not _ASKS_FOR_CONTENT.match(question):
        return False
    body = without_heading(passage)
    nearest, most = _nearest(sentences_of(body), lambda sentence: coverage(question, sentence), 1e-9)
    return most > 0 and all(_ANNOUNCES.search(sentence) and not _SAYS.search(sentence) for sentence in nearest)


def not_said(question: str, title: str, passage: str, coverage: Callable[[str, str], float]) -> str | None:
    """Why no sentence of a passage answers an English question, or ``None``.

    Args:
        question: One line.
        title: The document's, which may be empty: what every sentence is about.
        passage: The text it was asked about.
        coverage: How much of a question a text speaks of, see :class:`scripts.sdg.checks.Coverage`.
    """
    if not _ENGLISH.match(question):
        return None
    works = _WORKS.match(question)
    if works and coverage(works["what"], title) >= 1:
        return "asks what its title is"
    sentences = sentences_of(without_heading(passage))
    titled, most = _nearest(sentences, lambda sentence: coverage(question, f"{title}\n{sentence}"), _AS_MUCH)
    if most < SENTENCE_COVERAGE:
        return "no sentence of its segment speaks of all it asks"
    # without the title, which speaks for all of them
    nearest, _ = _nearest(titled, lambda sentence: coverage(question, sentence), _AS_MUCH)
    if _IDLE.match(question):
        return "asks for what its passage does not say"
    cues = [said for asked, said in _SENTENCE_CUES if asked.search(question)]
    if not any(all(said.search(sentence) for said in cues) for sentence in nearest):
        return "asks for what its passage does not say"
    if (many := _HOW_MANY.match(question)) and not any(_counts(many["what"], sentence) for sentence in nearest):
        return "asks for a number that its passage does not have"
    asked = _WHAT_IS.match(question)
    if asked and not cues and not any(_tells(asked["what"], sentence) for sentence in nearest):
        return "asks for what its passage does not say"
    return None


def _nearest(sentences: Sequence[str], spoken: Callable[[str], float], within: float) -> tuple[list[str], float]:
    """The sentences that speak most of a question, or so little less, and how much the first of them does."""
    values = [spoken(sentence) for sentence in sentences]
    most = max(values, default=0.0)
    return [sentence for sentence, value in zip(sentences, values, strict=True) if value >= most - within], most


def _counts(what: str, sentence: str) -> bool:
    """Whether a sentence has a number of something."""
    number = rf"(?:\d[\d,.]*|{'|'.join(_NUMERALS[1:])}|single|pair of|several|no)"
    return bool(re.search(rf"\b{number}(?: [\w-]+){{0,3}} {re.escape(stem(what.lower()))}", sentence, re.IGNORECASE))


def _tells(asked: str, sentence: str) -> bool:
    """Whether a sentence has what is asked for as its subject, and goes on with what it is."""
    head = content_words(re.split(r" (?:of|in|on|for|to|at|by|with|from|between|that|which|when|under) ", asked)[0])
    if not head:
        return False
    told = rf"\b{re.escape(stem(head[-1]))}[\w-]*(?:,? [^,;]+?)?,? (?:{_TELLING})"
    return bool(re.search(told, sentence, re.IGNORECASE)) and not _ANNOUNCES.search(sentence)


def sentences_of(text: str) -> list[str]:
    """The sentences of a text."""
    return [text[start:end] for start, end in sentence_spans(text)]


def without_heading(passage: str) -> str:
    """The passage without a heading in front, which names its subject and says nothing of it."""
    heading, _, body = passage.partition("\n\n")
    return body if body.strip() and "\n" not in heading and len(heading.split()) <= LONGEST_HEADING else passage


def says_too_little(question: str, passage: str) -> bool:
    """Whether a passage has hardly a word besides those of the question."""
    known = set(map(stem, content_words(passage)))
    new = known - set(map(stem, content_words(question)))
    if len(known) >= SHORT:
        return len(new) < FEWEST_NEW
    # "two years" is an answer, though "two" is no content word
    return len(new | (numbers(passage) - numbers(question))) < max(2, math.ceil(len(known) / 3))


def is_yes_or_no(question: str) -> bool:
    """Whether a question states something and asks whether it is so."""
    return bool(_YES_OR_NO.match(question))


def numbers(text: str) -> set[str]:
    """The numbers of a text, as digits."""
    found = (match.lower() for match in _NUMBER.findall(text))
    return {str(_NUMERALS.index(word)) if word in _NUMERALS else word for word in found}
