"""Which names a text mentions: rules first, then the recogniser's spans where no rule has spoken.

A statistical recogniser knows people, companies and places and takes order numbers for any of them; agents talk about
ids, files, errors and symbols, which have a form. So a rule's match overrules a span it touches, earlier rules overrule
later ones, and spans whose label is noise here (bare numbers, times, percentages) are dropped. Pure: the same text,
tool and agent give the same mentions whatever else is in the batch, as a rebuild needs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from context_graph.domain.amounts import AMOUNT, plain_amount
from context_graph.domain.document import Document, Mention
from enrichment.entity_rules import ANYWHERE, BESIDE_CODE, IN_CODE, Rule, code_lines
from enrichment.gazetteer import is_given, known_label, known_names, looks_like_a_name
from enrichment.known_names import ORGANISATION_WORDS

if TYPE_CHECKING:
    from context_graph.models.recogniser import Span

# Mentions of one text, and characters of one name: bounds on what a log of a thousand paths may write to the graph.
MAX_MENTIONS = 64
MAX_NAME = 120

# The recogniser's labels (OntoNotes) and what they are here. Absent, so dropped: CARDINAL, ORDINAL, PERCENT, QUANTITY,
# TIME (what they count says more than they), and DATE unless it names a day or a month (`_CALENDAR`).
LABELS = {
    "PERSON": "person",
    "ORG": "org",
    "NORP": "group",
    "GPE": "place",
    "LOC": "place",
    "FAC": "place",
    "PRODUCT": "product",
    "EVENT": "event",
    "WORK_OF_ART": "work",
    "LAW": "law",
    "LANGUAGE": "language",
    "MONEY": "money",
    "DATE": "date",
}


_CALENDAR = re.compile(
    r"\b(?:\d{4}-\d\d|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|(?:19|20)\d\d\b)", re.IGNORECASE
)
_CURRENCY = re.compile(r"[$€£¥]|\b(?:dollars?|euros?|pounds?|cents?|bucks|usd|eur|gbp|chf|jpy)\b", re.IGNORECASE)
_AMOUNT = re.compile(AMOUNT)
_ACRONYM = re.compile(r"[A-Z]{2,5}")
_MARKUP = re.compile(r"[{}\[\]|<>=*_#@\\/\n\0]")
_LEADING = re.compile(r"^(?:the|a|an)\s+", re.IGNORECASE)
_POSSESSIVE = re.compile(r"['’]s?$")
_EDGES = " \t\r\n.,;:!?\"'`“”‘’()…-"
# Words that chat transcripts and rendered JSON hold in the place of a name.
_ROLES = ("user", "assistant", "agent", "tool", "system", "name", "email", "date", "status", "id", "error")
_FILLERS = (
    "true",
    "false",
    "null",
    "none",
    "ok",
    "hi",
    "hello",
    "thanks",
    "thank you",
    "yes",
    "no",
    "api",
    "json",
    "est",
)
_NOT_NAMES = frozenset((*_ROLES, *_FILLERS, "n/a"))


def find_mentions(
    text: str,
    spans: Sequence[Span],
    *,
    tool_name: str | None = None,
    agent_id: str | None = None,
    role: str = "said",
) -> tuple[Mention, ...]:
    """The names in `text`, in order, without overlaps, the first MAX_MENTIONS of them, whatever their labels.

    `spans` are the recogniser's; `tool_name` and `agent_id` are names known from the envelope, found where the text
    has them. `role` is that of names in this text which stand behind no key (`origin: JFK` has the role `origin`).
    """
    code = list(code_lines(text))
    sources = (
        _known("tool", tool_name, text),
        _known("agent", agent_id, text),
        _ruled(ANYWHERE, text, 0),
        (mention for place, line in code for mention in _ruled(IN_CODE, line, place)),
        _ruled(BESIDE_CODE if code else (), text, 0),
        _gazetted(text, code),
        _recognised(spans, text, code),
    )
    taken = _Taken(len(text))
    for source in sources:
        for mention in source:
            taken.add(mention)
    found = sorted(taken.mentions, key=lambda mention: mention.start)
    return tuple(replace(mention, role=_role(mention, text, role)) for mention in found[:MAX_MENTIONS])


def role_in(document: Document) -> str:
    """What a name in this document's text is there for, unless a key says more: argument, result, error or said."""
    if document.status in ("failed", "timeout"):
        return "error"
    kind = document.event_type.split(".")
    if kind[0] == "tool":
        return "argument" if "call" in kind else "result"
    return "said"


def _role(mention: Mention, text: str, role: str) -> str:
    if mention.label in ("tool", "agent"):
        return mention.label
    key = _ROLE_KEY.search(text, max(0, mention.start - 40), mention.start)
    return key.group(1) if key is not None else role


class _Taken:
    """Mentions that do not overlap: the first to come has the place."""

    def __init__(self, length: int) -> None:
        self.mentions: list[Mention] = []
        self._covered = bytearray(length)

    def add(self, mention: Mention) -> None:
        if not any(self._covered[mention.start : mention.end]):
            self._covered[mention.start : mention.end] = b"\1" * (mention.end - mention.start)
            self.mentions.append(mention)


def entity_id(label: str, name: str) -> str:
    """`label:normalised name`: compatibility form, case folded, one space between words.

    Of money the thousands separators go and the decimal mark is a point, of a symbol the `()` of its call goes.
    """
    folded = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    if label == "money":
        folded = _AMOUNT.sub(lambda amount: plain_amount(amount.group()), folded)
    return f"{label}:{folded.removesuffix('()') if label == 'symbol' else folded}"


def _known(label: str, name: str | None, text: str) -> Iterator[Mention]:
    if name is None or len(name) < 3:
        return
    for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text):
        yield _mention(label, name, match.start(), match.end())


def _ruled(rules: Sequence[Rule], text: str, place: int) -> Iterator[Mention]:
    for rule in rules:
        for match in rule.pattern.finditer(text):
            group: str | int = match.lastgroup or 0
            name = match.group(group).rstrip(".") if rule.label in _GUESSED else match.group(group)
            if len(name) <= MAX_NAME and "\0" not in name:
                yield _mention(rule.label, name, place + match.start(group), place + match.start(group) + len(name))


def _gazetted(text: str, code: _CodeLines) -> Iterator[Mention]:
    for known in known_names(text):
        name = text[known.start : known.end]
        if known.label != "person" or " " in name or not _in_code(known.start, code):
            yield _mention(known.label, name, known.start, known.end)


def _recognised(spans: Iterable[Span], text: str, code: _CodeLines) -> Iterator[Mention]:
    for span in spans:
        label = LABELS.get(span.label)
        name = _POSSESSIVE.sub("", _LEADING.sub("", span.text.strip(_EDGES))).strip(_EDGES)
        if label is None or not _is_name(name, label):
            continue
        start = span.start + span.text.index(name)
        if label in _GUESSED:
            known = known_label(name) or ("person" if is_given(name.split()[0]) else None)
            # What an unknown bare acronym stands for is a guess that changes with the sentence: person, then place.
            label = known or ("acronym" if _ACRONYM.fullmatch(name) else label)
            if known is None and not (_believed(name, start, text, code) and _cued(name, label)):
                continue
        yield _mention(label, name, start, start + len(name))


def _believed(name: str, start: int, text: str, code: _CodeLines) -> bool:
    """Whether an unknown name may be one: written like a name, not in code, no value behind a key."""
    return looks_like_a_name(name) and not _in_code(start, code) and not _KEY.search(text, max(0, start - 40), start)


def _cued(name: str, label: str) -> bool:
    """Of a company that nobody knows the name has to say that it is one: one guess in six is right without."""
    if label == "org":
        return any(word.strip(".,").casefold() in ORGANISATION_WORDS for word in name.split())
    return label == "acronym" or not name.isupper()


def _in_code(place: int, code: _CodeLines) -> bool:
    return any(begin <= place < begin + len(line) for begin, line in code)


def _is_name(name: str, label: str) -> bool:
    if (
        not 2 <= len(name) <= MAX_NAME
        or "\n" in name
        or "\0" in name
        or _MARKUP.search(name)
        or name.casefold() in _NOT_NAMES
    ):
        return False
    if label == "date":
        return _CALENDAR.search(name) is not None and ":" not in name
    if label == "money":
        return _CURRENCY.search(name) is not None
    return any(letter.isalpha() for letter in name) and ": " not in name


def _mention(label: str, name: str, start: int, end: int) -> Mention:
    return Mention(entity_id(label, name), name, label, start, end)


_CodeLines = list[tuple[int, str]]
_GUESSED = frozenset(("person", "org", "place", "product", "work", "event", "law", "group"))
_KEY = re.compile(r"[a-z][\w ]*: ?$")
_ROLE_KEY = re.compile(r"(?:^|[(,;\n] ?)([a-z][a-z ]{1,30}): [#\"'`]?$")
