"""Openings of questions that a sentence of the passage answers, made of that sentence, for a small model to complete.

A small model that is asked freely asks for what its passage does not say, about every second time. A statement says
something of its subject, so the question for that has an answer: of "The density of freon is four times that of air"
the opening is "What is the density of freon". Answer first and question second is how synthetic questions are made
elsewhere, too (Alberti et al. 2019, ACL; Lewis et al. 2021, "PAQ", TACL); here rules take the place of the models that
find the answer, since none of that size is at hand. The rules know English, and only sentences of a plain build: a
subject, a verb, and what is said. All others have no opening.
"""

import dataclasses
import re
from typing import NamedTuple

from scripts.sdg.filters import content_words, stem
from scripts.sdg.headings import headings
from scripts.sdg.question_form import is_english
from scripts.sdg.sentences import prose_spans

# The type of a question that begins with such an opening
STATEMENT = "statement"
# Words of a sentence that can be read in one go, and of its subject
_SENTENCE_WORDS, _LONGEST_SENTENCE = range(6, 61), 600
_LONGEST_SUBJECT = 13
# Words between "is calculated" and "by"
_NEAR = 7
# What stands before the statement: "it was found that", "the results show that", "however,"
_REPORTED = re.compile(
    r"^.*\b(?:shows?|shown|showed|found|indicate[sd]?|suggest(?:s|ed)?|concluded?|demonstrate[sd]?|reveal(?:s|ed)?|"
    r"appears|seen|noted|proved|means|implies|stated?|observed|confirm(?:s|ed)?)(?: \w+ly)? that ",
    re.IGNORECASE,
)
_LINKED = re.compile(
    r"^(?:however|in addition|furthermore|moreover|in particular|in general|thus|therefore|hence|finally|for example|"
    r"by default|also|note that|consequently|in fact|usually|typically|normally|generally),? ",
    re.IGNORECASE,
)
# Words of the part of a title that is put behind an opening, and words that part titles
_CONTEXT_WORDS = range(1, 7)
_JOINTS = frozenset("about above at below between by during for from in of on over past through to under with".split())
# Where or when it holds: "for small angles, the lift is ..."; the question says it at its end
_CONDITION = re.compile(
    r"^(?P<where>(?:at|during|for|in|near|on|under|when|with|without) [^,]{4,80}), (?=\w)", re.IGNORECASE
)
_LONGEST_CONDITION = 12
_ARTICLE = re.compile(r"(?:an?|the) ", re.IGNORECASE)
# Where the next statement of a sentence begins
_NEXT_CLAUSE = re.compile(r"[,;:] (?:and|but|while|whereas|so that|however)?,? ?")
_SUBJECT = r"(?P<subject>[\w'/().+#-]+(?: [\w'/().+#-]+)*?)"
_ADVERB = r"(?:also |then |thus |therefore |generally |usually |always |mainly |normally |largely |often )?"
_IS = re.compile(rf"{_SUBJECT} (?P<is>is|are|was|were) {_ADVERB}(?P<said>.+)", re.IGNORECASE)
_CAN_BE = re.compile(
    rf"{_SUBJECT} (?P<can>can|may|must|should|has|have) (?P<be>be|been) {_ADVERB}(?P<said>.+)", re.IGNORECASE
)
_POSSIBLE = re.compile(
    r"it (?P<is>is|was) (?:also )?(?P<possible>possible|easy|convenient|sufficient) to (?P<deed>\w+ [^,]{4,70}?) "
    r"(?:by|using)\b(?P<way>.{6,})",
    re.IGNORECASE,
)
_BECAUSE = re.compile(
    rf"{_SUBJECT} (?P<is>is|are|was|were) {_ADVERB}(?P<said>[^,]{{4,80}}?),? "
    r"(?:because|due to|owing to|on account of|as a result of)\b(?P<reason>.{8,})",
    re.IGNORECASE,
)
_PARTICIPLE = r"(?:\w+ed|given|written|driven|drawn|built|held|kept|set|chosen)"
# How something is done, close behind what is done; "from" is a way for what is found out
_WAY = re.compile(
    rf"(?P<done>{_PARTICIPLE})(?:(?: [\w'/()-]+){{0,{_NEAR - 1}}}? (?!\w+ed\b)[\w'/()-]+)?? "
    r"(?:by|using|in terms of|on the basis of|through (?=(?:the )?(?:use|application)|\w+ing)|via|employing)\b"
    r"(?P<way>.{6,})|"
    r"(?P<found>obtained|derived|calculated|computed|determined|deduced|estimated|evaluated|inferred)(?: \w+ly)? from\b"
    r"(?P<source>.{6,})",
    re.IGNORECASE,
)
_NO_DEED = frozenset(
    "accompanied accounted acted added called compared considered described discussed followed given "
    "illustrated included joined mentioned need noted outlined presented related replaced reported reviewed "
    "subjected summarized surrounded taken used".split()
)
_USED = re.compile(
    r"(?P<used>used|employed|required|needed|necessary|useful|suitable|intended|designed|responsible) "
    r"(?P<how>to|for|as)\b(?! be\b)(?P<rest>.{4,})"
)
_TO_BE = re.compile(rf"(?P<seen>{_PARTICIPLE}|shown|found|seen|known|believed) to be (?P<rest>.{{4,}})")
# What is said is the object of these
_RELATION = re.compile(
    r"(?P<relation>called|defined as|known as|termed|caused by|determined by|governed by|characterized by|limited by|"
    r"based on|represented by|composed of|produced by|affected by|influenced by|dominated by|replaced by|"
    r"accompanied by|followed by|supported by|related to|associated with|applied to|limited to|restricted to|"
    r"attributed to|expressed in terms of|expressed as|proportional to|inversely proportional to|"
    r"directly proportional to|equal to|equivalent to|independent of|dependent o(?:n|f)|dependent upon|similar to|"
    r"applicable to|valid for|due to|sensitive to|(?:great|less|high|low|larg|small|bett|long|short|fast|slow)(?:er)? "
    r"than|different from|identical (?:to|with)|capable of|subject to|essential for|important for|superior to)\b"
    r"(?P<rest>.{4,})"
)
# An answer that is said elsewhere, or says what the text is about
_POINTS = re.compile(
    r"^ ?(?:of |by )?(?:these|this|those|the above|the following|(?:the )?reasons? that)\b|"
    r"\b(?:this|present) (?:article|chapter|note|paper|report|section|study|work)\b|"
    r"\b(?:object|subject|topic) of\b|^ ?(?:those|that) described\b|\breferences? \d",
    re.IGNORECASE,
)
# No schema's pattern takes these without ado
_UNSAFE = frozenset('"\\')
_THING = re.compile(r"(?:an?|the|one|two|three|four|five|six|about|approximately|\d\S*)\b")
_EFFECT = re.compile(
    rf"{_SUBJECT} (?P<has>has|have|had) (?:an?|no|little|only|some) (?:[\w-]+ ){{0,3}}?"
    r"(?P<what>effect|influence|impact)s?\b(?: (?P<on>(?:on|upon) .{4,60}))?",
    re.IGNORECASE,
)
# Verbs of which the object is asked for, with the preposition that they have; and those of a change
_OBJECT = {
    **dict.fromkeys(
        "accept affect allow assume avoid cause compute contain control convert create define determine enable "
        "exceed give govern ignore implement include indicate involve maximize minimize perform permit prevent "
        "produce provide reduce represent require return select show specify yield".split(),
        "",
    ),
    "apply": " to",
    "belong": " to",
    "consist": " of",
    "correspond": " to",
    "deal": " with",
    "depend": " on",
    "lead": " to",
    "refer": " to",
    "rely": " on",
    "use": "",
}
_DID = re.compile(
    rf"{_SUBJECT} (?P<did>caused|gave|indicated|led to|produced|provided|reduced|required|revealed|showed|yielded) "
    r"(?P<rest>(?:an?|the|no|only|little|considerable|good|large|small|significant|substantial)\b.{4,})",
    re.IGNORECASE,
)
_WAS = {
    "gave": "give",
    "led to": "lead to",
    "showed": "show",
    "revealed": "reveal",
    "yielded": "yield",
}
_TIME = re.compile(rf"{_SUBJECT} (?P<verb>occurs?) (?P<rest>(?:when|during|after|at|before|if) .{{4,}})", re.IGNORECASE)
_CHANGE = ("increase", "decrease", "vary", "change")
_NOUNS_TOO = frozenset("change cause control decrease increase lead return use yield".split())


def _third_person(verb: str) -> str:
    return f"{verb[:-1]}ies" if verb.endswith("y") else f"{verb}s"


_FORMS = {
    # of the plural only what is no noun as well: "the pressure increase" has no verb
    **{verb: (verb, "do") for verb in (*_OBJECT, *_CHANGE) if verb not in _NOUNS_TOO},
    **{_third_person(verb): (verb, "does") for verb in (*_OBJECT, *_CHANGE)},
}
_VERB = re.compile(rf"{_SUBJECT} (?P<verb>{'|'.join(sorted(_FORMS, key=len, reverse=True))})\b(?P<rest>.*)")
# A subject has none of these, and does not begin with those
_NO_SUBJECT = frozenset(
    "although am are as be because been being but can could did do does had has have he her here his how however i if "
    "is it its like may might must nor occur occurs our she should since so such than that their them then there "
    "these they this those though thus was we were what when where whether which while who "
    "whose will would you your".split()
)
_NO_START = frozenset(
    "according after among another any as at based before between both by due during each even first for from further "
    "given hence in into many most much no not of on once one only or other over same second several some through "
    "thus to under underlying using with within without".split()
)
_NO_END = frozenset("a also an and as at between by for from in into not of on only or the to under with".split())
_NO_NAME = re.compile(r"(?:[st]ion|ment|ing|ity|[ae]nce|ness|ism|[cntr]al|ed|ive|ous|ary|ular|ical)s?$")
# Subjects made of these alone name nothing that anybody outside the text knows
_VAGUE = frozenset(
    "above accurate additional agreement aim analysis analytical application applications approach approximate author "
    "authors calculation calculations case cases chapter chosen comparison comparisons conclusion conclusions current "
    "data document effect effects equation equations exact example examples existing experiment experimental "
    "experiments expression expressions factor factors false feature features figure final first following former "
    "formula formulas general given herein idea immediate important information investigation key latter main method "
    "methods model models new none note number numbers numerical obtained paper point points present presented "
    "previous prime problem problems procedure procedures process program programs proposed provided purpose quoted "
    "report result resulting results second section series simple solution solutions study system systems table task "
    "technique techniques test tests theoretical theory true type types value values various version "
    "versions work".split()
)


class _Made(NamedTuple):
    """An opening, the words that answer it, and the subject of both."""

    opening: str
    answer: str
    subject: str


@dataclasses.dataclass(frozen=True)
class Statement:
    """A sentence and the opening of a question for what it says.

    Attributes:
        sentence: One line.
        opening: The question without its mark.
        answer: The part of the sentence that is asked for.
        bare: The subject is one word with an article, which means something in its document alone.
    """

    sentence: str
    opening: str
    answer: str
    bare: bool = False


def statements(text: str) -> list[Statement]:
    """The statements of an English text in order, none of them in code or a table; of other languages none."""
    if not is_english(text):
        return []
    # a heading is no part of the sentence below it
    for heading in reversed(headings(text)):
        text = f"{text[: heading.start]}\n\n{text[heading.end :]}"
    found = []
    for start, end in prose_spans(text):
        sentence = " ".join(text[start:end].split())
        if (made := _opening(sentence)) is not None:
            bare = len(content_words(made.subject)) == 1 and bool(_ARTICLE.match(made.subject))
            found.append(Statement(sentence, made.opening, made.answer, bare))
    return found


def told_of(text: str, title: str) -> list[Statement]:
    """The statements of a text without those that need a title to be understood, where the title is none for them."""
    return [found for found in statements(text) if not found.bare or contexts(title, found.opening)]


def contexts(title: str, opening: str) -> list[str]:
    """Parts of a document's title that may stand behind an opening and say what it is about; each names something new.

    Args:
        title: One line; parts are cut at its prepositions.
        opening: Its words are left out.
    """
    asked = set(map(stem, content_words(opening)))
    words = title.rstrip(". ").split()
    if _UNSAFE & set(title):
        return []
    starts = [0, *(place + 1 for place, word in enumerate(words) if word.lower() in _JOINTS)]
    ends = [*(start - 1 for start in starts[1:]), len(words)]
    found = []
    for number, start in enumerate(starts):
        if all(word in _VAGUE for word in content_words(" ".join(words[start : ends[number]]))):
            continue  # "a note on"
        for end in ends[number:]:
            part = words[start:end]
            while part and part[0].lower() in ("a", "an", "the"):
                part = part[1:]
            named = content_words(" ".join(part))
            new = bool(named) and named[-1] not in _VAGUE and not asked & set(map(stem, named))
            if new and len(part) in _CONTEXT_WORDS:
                found.append(" ".join(part))
    return list(dict.fromkeys(found))


def _opening(sentence: str) -> _Made | None:
    """The first thing that a sentence says."""
    # tokenized text has spaces before its signs
    said = re.sub(r"\s+([.,;:])", r"\1", sentence)
    if said[-1:] not in ".;" or len(said) > _LONGEST_SENTENCE or len(said.split()) not in _SENTENCE_WORDS:
        return None
    said = _LINKED.sub("", _REPORTED.sub("", said.rstrip(".; ")))
    condition = ""
    if where := _CONDITION.match(said):
        words = where["where"].lower().split()
        if len(words) > _LONGEST_CONDITION or words[-1] in _NO_END or _NO_SUBJECT & set(words[1:]):
            return None
        condition, said = f" {where['where'][:1].lower()}{where['where'][1:]}", said[where.end() :]
    for number, clause in enumerate(_NEXT_CLAUSE.split(said)):
        # the last item of a list follows a comma and an "and", too
        if number and not _ARTICLE.match(clause):
            continue
        if (made := _read(_LINKED.sub("", clause))) is not None:
            opening = f"{made.opening}{'' if number else condition}"
            known = set(map(stem, content_words(opening)))
            # a question that says it all has nothing left to be answered
            new = any(stem(word) not in known and word not in _VAGUE for word in content_words(made.answer))
            if new and not _POINTS.search(made.answer) and not _UNSAFE & set(opening):
                return made._replace(opening=opening)
    return None


def _read(said: str) -> _Made | None:
    readers = (_made_possible, _because, _being, _possible, _affecting, _happening, _doing, _did)
    return next((made for read in readers if (made := read(said)) is not None), None)


def _because(said: str) -> _Made | None:
    match = _BECAUSE.fullmatch(said)
    if match is None or _NO_SUBJECT & set(match["said"].lower().split()) or match["said"].startswith("made"):
        return None
    subject = _subject(match)
    return _Made(f"Why {match['is'].lower()} {subject} {match['said']}", match["reason"], subject) if subject else None


def _being(said: str) -> _Made | None:
    match = _IS.fullmatch(said)
    subject = match and _subject(match)
    if not match or not subject:
        return None
    opening, rest = f"{match['is'].lower()} {subject}", match["said"]
    if used := _USED.match(rest):
        return _Made(f"What {opening} {used['used']} {'as' if used['how'] == 'as' else 'for'}", used["rest"], subject)
    if seen := _TO_BE.match(rest):
        return _Made(f"What {opening} {seen['seen']} to be", seen["rest"], subject)
    if related := _RELATION.match(rest):
        return _Made(f"What {opening} {related['relation']}", related["rest"], subject)
    if done := _way(rest):
        return _Made(f"How {opening} {done[0]}", done[1], subject)
    if _THING.match(rest) and len(content_words(rest)) > 1:
        return _Made(f"What {opening}", rest, subject)
    return None


def _possible(said: str) -> _Made | None:
    match = _CAN_BE.fullmatch(said)
    subject = match and _subject(match)
    done = match and _way(match["said"])
    if not match or not subject or not done:
        return None
    return _Made(f"How {match['can'].lower()} {subject} {match['be']} {done[0]}", done[1], subject)


def _made_possible(said: str) -> _Made | None:
    match = _POSSIBLE.fullmatch(said)
    if match is None or _NO_SUBJECT & set(match["deed"].lower().split()):
        return None
    return _Made(f"How {match['is'].lower()} it {match['possible']} to {match['deed']}", match["way"], match["deed"])


def _way(said: str) -> tuple[str, str] | None:
    match = _WAY.match(said)
    if match is None or (match["done"] or "").lower() in _NO_DEED:
        return None
    return match["done"] or match["found"], match["way"] or match["source"]


def _affecting(said: str) -> _Made | None:
    match = _EFFECT.match(said)
    subject = match and _subject(match)
    if not match or not subject:
        return None
    do = {"has": "does", "have": "do", "had": "did"}[match["has"].lower()]
    on = re.split(r"[,;]| (?:and|but|which|that) ", match["on"] or "")[0]
    return _Made(f"What {match['what']} {do} {subject} have {on}".rstrip(), said[match.start("has") :], subject)


def _happening(said: str) -> _Made | None:
    match = _TIME.fullmatch(said)
    subject = match and _subject(match)
    do = "does" if match and match["verb"].lower() == "occurs" else "do"
    return _Made(f"When {do} {subject} occur", match["rest"], subject) if match and subject else None


def _doing(said: str) -> _Made | None:
    match = _VERB.match(said)
    subject = match and _subject(match)
    if not match or not subject:
        return None
    verb, do = _FORMS[match["verb"].lower()]
    rest = match["rest"]
    if verb in _CHANGE:
        told = re.match(r" (?:with|as|when|from|by|\w+ly)\b", rest)
        return _Made(f"How {do} {subject} {verb}", rest, subject) if told else None
    particle = _OBJECT[verb]
    if not rest.startswith(particle) or re.match(r" (?:for|in|of|on|to|with|by|as)\b", rest[len(particle) :]):
        return None
    return _Made(f"What {do} {subject} {verb}{particle}", rest, subject) if len(content_words(rest)) > 1 else None


def _did(said: str) -> _Made | None:
    match = _DID.fullmatch(said)
    subject = match and _subject(match)
    if not match or not subject or len(content_words(match["rest"])) < 2:
        return None
    did = match["did"].lower()
    return _Made(f"What did {subject} {_WAS.get(did, did[:-1])}", match["rest"], subject)


def _subject(match: re.Match[str]) -> str | None:
    """The subject of a sentence as it stands inside a question, or ``None`` if it is none that a reader knows."""
    words = match["subject"].split()
    lower = [word.lower() for word in words]
    content = content_words(match["subject"])
    if len(words) > _LONGEST_SUBJECT or _NO_SUBJECT & set(lower) or lower[0] in _NO_START or lower[-1].endswith("ly"):
        return None
    if lower[-1] in _NO_END or not lower[0][:1].isalnum():
        return None
    if not content or all(word in _VAGUE for word in content) or re.match(rf"{_PARTICIPLE}\b", lower[0]):
        return None
    # the capital of a sentence's first word, unless the word may be a name
    if words[0] == words[0].title() and (lower[0] in ("a", "an", "the", "all") or _NO_NAME.search(lower[0])):
        words[0] = lower[0]
    return " ".join(words)
