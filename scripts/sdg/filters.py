"""Checks of a question that need no model: malformed, about the prompt instead of the subject, or copied."""

import itertools
import re

# Words are compared without these endings, and by so many first letters
_ENDING = re.compile(r"(?<=\w{3})(ings?|ed|es|s|ly|ment|ions?)$")
_LETTERS = 6
_PROMPT = re.compile(
    r"\b((this|above|given|following|provided) (text|document|section|context|question|answer|information|statement|"
    r"sentence)s?|(this|the|above|given|following|provided) (article|segment|transcript|paper|study|author)s?|"
    r"reference \d|in question|question[_ ]?\d|search question|short question|as an ai|the following|"
    r"(which|what) of (the|these|those)|(can|could|would) you|please)\b",
    re.IGNORECASE,
)
# Words for the prompt, too, unless they are part of a name that the passage has, as in "the context manager"
_PROMPT_OR_NAME = re.compile(
    r"\b(passage|paragraph|excerpt|the (text|document|section|context|question|answer|information|statement|"
    r"sentence)s?)\b",
    re.IGNORECASE,
)
# A question that stops after one of these, or in the middle of a clause, was cut by the length limit. A full stop
# before the mark is no cut after an abbreviation (U.S.?), nor is a space after a whole word (French writes it so)
_CUT = re.compile(
    r"(\b(a|an|and|are|as|at|be|by|can|does|for|from|has|have|in|into|is|its|of|on|or|that|the|their|this|to|was|were|"
    r"when|which|with|[a-z]|[\w-]+-)[\s.,;:…–—(-]*|[,;:…–—(]\s*|(?<!\b\w)(?<!\betc)\.\s*)\?+$",
    re.IGNORECASE,
)
# Letters, digits, and the marks that stand above, below and beside letters: accents, Hebrew and Arabic vowels, the
# vowel signs of India's and South East Asia's scripts, and the joiners between them
_LETTER = (
    r"\w\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u0e31-\u0e3a\u0e47-\u0e4e\u0eb1-\u0ece"
    r"\u0f18-\u0fbc\u102b-\u103e\u1056-\u109d\u17b4-\u17d3\u200c\u200d"
)
_WORD = re.compile(rf"[{_LETTER}'-]+")
# C++ and C# are two questions
_NORMAL = re.compile(rf"[{_LETTER}]+[+#]*")
# Thai, Lao, Burmese, Khmer, Japanese, Chinese
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
# A question whose subject is a pronoun is understood by nobody else
_PRONOUN = re.compile(
    r"(what|how|why|when|where|which)?\s*(is|are|was|were|do|does|did|can|could|has|have|will|would|should)\s+"
    r"(it|they|this|these|those|he|she|its|their)\b(?! (possible|necessary|true|safe|better|important|best|useful))",
    re.IGNORECASE,
)
# A statement behind "what is", or a "which" that leaves open of what
_MALFORMED = re.compile(
    r"what (is|are|was|were) (?!.*\b(that|which|who|whose|where|when|while|how|if|as|and|or|because|than)\b)"
    r".* (has|have|had|is|are|was|were|will|can) |"
    r"which (is|are) (?!.*\b(or|more|less|most|least|than|\w+est|better|best)\b)",
    re.IGNORECASE,
)
# Small models ask for a difference of any two things; a text that makes one says so
_ASKS_DIFFERENCE = re.compile(r"\bdifferences? between\b|\bhow do(es)? .* differ\b|\bcompare[ds]?\b", re.IGNORECASE)
_MAKES_DIFFERENCE = re.compile(
    r"\b(differences? (between|from|of|in)|differ(s|ed|ent from)?\b|compar(ed|es|ing|ison|isons)\b|unlike|whereas|"
    r"versus|in contrast|contrary to|as opposed to|rather than|distinguish\w*|instead of|not the same)",
    re.IGNORECASE,
)
_STOP = frozenset(
    "a about also an and any are as at be been between by can could did difference do does each effect explain for "
    "from give has have how in into is it its main many mean meaning more most much name of on one or other "
    "possible purpose role than that the their there these they this to two used using was were what when where "
    "which why will with would you your".split()
)


def fault(question: str, passage: str, *, keywords: bool = False, whole: bool = False) -> str | None:
    """Why a question is not worth keeping, or ``None``.

    Args:
        question: One line.
        passage: The text it was asked about.
        keywords: It is no sentence but what is typed into a search box: it may be short, and words of the passage.
        whole: It is known not to be cut off, and may end with a preposition.
    """
    words = content_words(question)
    reason = _fault_of_form(question, words, passage, keywords=keywords, whole=whole)
    if reason is not None:
        return reason
    known = set(map(stem, content_words(passage)))
    if not any(stem(word) in known for word in words):
        return "shares no word with its passage"
    if _ASKS_DIFFERENCE.search(question) and not _MAKES_DIFFERENCE.search(passage):
        return "asks for a difference that its passage does not make"
    if not keywords and _squash(question.rstrip("?")) in _squash(passage):
        return "copied"
    return None


def _fault_of_form(question: str, words: list[str], passage: str, *, keywords: bool, whole: bool) -> str | None:
    """What a question's own wording tells; of its passage only the names count."""
    short = len(question) < 6 if UNSPACED.search(question) else len(question) < 15 or len(question.split()) < 4
    if short and not keywords:
        return "too short"
    if _PROMPT.search(question) or _speaks_of_prompt(question, passage):
        return "speaks of the prompt"
    if not whole and _CUT.search(question):
        return "cut off"
    if not keywords and _PRONOUN.match(question):
        return "names no subject"
    if not keywords and _MALFORMED.match(question):
        return "malformed"
    if len(set(words)) < (1 if keywords else 2):
        return "names no subject"
    return "repeats itself" if _repeats([stem(word) for word in words]) else None


def _speaks_of_prompt(question: str, passage: str) -> bool:
    """Whether words for the prompt are in a question that are no part of a name of the passage."""
    found = list(_PROMPT_OR_NAME.finditer(question))
    known = f" {normal_form(passage)} " if found else ""
    for match in found:
        before, after = normal_form(question[: match.start()]).split(), normal_form(question[match.end() :]).split()
        names = [f"{word} {match[0]}" for word in before[-1:] if word not in _STOP]
        names += [f"{match[0]} {word}" for word in after[:1] if word not in _STOP]
        if not any(f" {normal_form(name)} " in known for name in names):
            return True
    return False


def content_words(text: str) -> list[str]:
    """Words, lower case, without function words and the usual words of questions.

    Of scripts that put no spaces between words, pairs of neighbouring letters stand for them.
    """
    words = [word for word in _WORD.findall(text.lower()) if word not in _STOP and len(word) > 1]
    return [part for word in words for part in (_pairs(word) if UNSPACED.search(word) else [word])]


def length_in_words(text: str, word: str = r"\S+") -> int:
    """Matches of ``word`` in a text; of scripts that put no spaces between words, two letters stand for one more."""
    return len(re.findall(word, text)) + len(UNSPACED.findall(text)) // 2


def _pairs(word: str) -> list[str]:
    pairs = [word[start : start + 2] for start in range(len(word) - 1)]
    # Japanese endings and particles are written in hiragana, and are no content
    return [pair for pair in pairs if not all("\u3040" <= letter <= "\u309f" for letter in pair)]


def normal_form(question: str) -> str:
    """What two questions have in common when they differ only in case, punctuation and spacing."""
    return " ".join(_NORMAL.findall(question.lower()))


def _squash(text: str) -> str:
    return " ".join(text.lower().split())


def stem(word: str) -> str:
    """The first letters of a word without a common English ending.

    As good for comparing as a stemmer, and of use for any language with suffixes.
    """
    return _ENDING.sub("", word)[:_LETTERS]


def _repeats(stems: list[str]) -> bool:
    """Whether a question says two things twice, or one thing twice in a row, as models do that have lost the thread."""
    twice = {word for word in stems if stems.count(word) > 1}
    return len(twice) > 1 or any(first == second for first, second in itertools.pairwise(stems))
