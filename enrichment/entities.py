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
from dataclasses import dataclass
from typing import TYPE_CHECKING

from context_graph.domain.document import Mention

if TYPE_CHECKING:
    from context_graph.models.recogniser import Span

# Mentions of one text, and characters of one name: bounds on what a log of a thousand paths may write to the graph.
MAX_MENTIONS = 64
MAX_NAME = 120

# Patterns are bounded or anchored where they could otherwise be tried from every character of a long run: a text of
# MAX_TEXT characters that was made for it costs some ten milliseconds, not seconds.

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


@dataclass(frozen=True, slots=True)
class Rule:
    """A label and the form of its names. When the pattern has a group `name`, that is the name."""

    label: str
    pattern: re.Pattern[str]


_FILE_TYPES = (
    "py|pyi|js|jsx|ts|tsx|mjs|json|ndjson|jsonl|ya?ml|toml|ini|cfg|conf|env|md|rst|txt|csv|tsv|html?|css|scss|sql|sh|"
    "go|rs|java|kt|rb|php|c|h|cc|cpp|hpp|cs|swift|lua|xml|lock|log|pdf|png|jpe?g|svg|gif|zip|gz|tar|whl|ipynb|proto"
)
_THING = r"(?i:reservation|booking|confirmation|order|ticket|case|incident|invoice|tracking|flight)"

RULES: tuple[Rule, ...] = (
    Rule("url", re.compile(r"\b(?:https?|ftp|wss?|redis|s3)://[^\s<>\"'`\])}|]+[^\s<>\"'`\])}|.,;:!?]")),
    Rule("date", re.compile(r"(?<![\w-])(?:19|20)\d\d-[01]\d-[0-3]\d(?![\d-])")),
    Rule("email", re.compile(r"\b[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}\b")),
    Rule("id", re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")),
    Rule("host", re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{2,5})?(?![\w.]\d)")),
    Rule("path", re.compile(r"(?<![\w/.])(?:[A-Za-z]:\\|~/|\.{1,2}/|/)(?:[\w.@+-]+[/\\])*[\w.@+-]*[\w-]{2,}")),
    Rule("path", re.compile(rf"(?<![\w/.@+-])(?:[\w.@+-]+/)+[\w.@+-]+\.(?:{_FILE_TYPES})\b")),
    Rule("path", re.compile(rf"(?<![\w/.@-])[\w-]+(?:\.[\w-]+)*\.(?:{_FILE_TYPES})(?![\w(]|\.\w)")),
    Rule(
        "error",
        re.compile(r"\b(?:[a-z]\w{0,40}\.){0,6}[A-Z][A-Za-z0-9]{0,60}(?:Error|Exception|Warning|Failure|Fault)\b"),
    ),
    Rule("error", re.compile(r"\bE(?:NOENT|ACCES|PERM|EXIST|PIPE|TIMEDOUT|NOTFOUND|INVAL|RESOLVE|AI_AGAIN)\b")),
    Rule("error", re.compile(r"\b(?:ECONN|EADDR|ENOT|ERR_)[A-Z0-9_]{3,}\b")),
    Rule(
        "error", re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]*(?:ERROR|FAILED|DENIED|TIMEOUT|NOT_FOUND|INVALID|EXCEEDED)\b")
    ),
    Rule("error", re.compile(r"\b(?P<name>(?:HTTP|(?i:status(?:\s+code)?|error(?:\s+code)?))[ :=/]{1,2}[45]\d\d)\b")),
    Rule("id", re.compile(r"\bCVE-\d{4}-\d{4,}\b")),
    Rule("id", re.compile(r"(?<![\w&])#(?P<name>[A-Za-z]{0,4}\d{2,})\b")),
    Rule("id", re.compile(r"(?<![\w-])[a-z]{1,40}(?:[_-][a-z]{1,40}){0,6}[_-]\d{3,}\b")),
    Rule("id", re.compile(r"\b(?!(?:UTF|ISO|SHA|MD|BASE|COVID|RFC|HTTP|INT|UINT|FLOAT)-?\d)[A-Z]{2,8}-?\d{2,12}\b")),
    Rule("id", re.compile(r"\b(?=[A-Z]*\d)(?=\d*[A-Z])[A-Z0-9]{6,8}\b")),
    Rule(
        "id",
        re.compile(rf"\b{_THING}(?:\s+(?i:id|number|code|no\.?|ref))?\s*(?i:is|:|=|\()?\s+(?P<name>[A-Z0-9]{{6}})\b"),
    ),
    Rule("id", re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,40}\b")),
    Rule("version", re.compile(r"(?<![\w.])v?\d+\.\d+\.\d+(?:[-+][A-Za-z][\w.]*)?(?![\w.]*\d)|\bv\d+(?:\.\d+)+\b")),
    Rule("money", re.compile(r"[$€£¥]\s?\d[\d,]*(?:\.\d+)?(?:\s?(?:k|m|bn|million|billion)\b)?")),
    Rule("money", re.compile(r"\b\d[\d,]*(?:\.\d+)?\s?(?:USD|EUR|GBP|CHF|dollars|euros|pounds)\b")),
    Rule("id", re.compile(r"(?<![\w.,$€£¥+-])\d{7,}(?![\w.,]*\d)")),
    Rule("symbol", re.compile(r"`(?P<name>[A-Za-z_][\w.:-]{1,60}(?:\(\))?)`")),
    Rule("symbol", re.compile(r"\b[A-Za-z_]\w{0,60}(?:\.[A-Za-z_]\w{0,60}){1,6}\(\)|\b[A-Za-z_]\w{2,60}\(\)")),
    Rule("symbol", re.compile(r"\b_{0,2}[a-z][a-z0-9]*(?:_[a-z0-9]+)+_{0,2}\b(?!\s*:\s)")),
    Rule("symbol", re.compile(r"\b[a-z]{2}[a-z0-9]{0,40}(?:[A-Z][a-z0-9]{1,40}){1,8}\b")),
)

_CALENDAR = re.compile(
    r"\b(?:\d{4}-\d\d|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|(?:19|20)\d\d\b)", re.IGNORECASE
)
_ACRONYM = re.compile(r"[A-Z]{2,5}")
_MARKUP = re.compile(r"[{}\[\]|<>=*_#@\\/]")
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
    text: str, spans: Sequence[Span], *, tool_name: str | None = None, agent_id: str | None = None
) -> tuple[Mention, ...]:
    """The names in `text`, in order, without overlaps, at most MAX_MENTIONS.

    `spans` are the recogniser's; `tool_name` and `agent_id` are names known from the envelope, found where the text
    has them.
    """
    taken: list[Mention] = []
    candidates = (_known("tool", tool_name, text), _known("agent", agent_id, text), _ruled(text), _recognised(spans))
    for source in candidates:
        for mention in source:
            if all(mention.end <= other.start or other.end <= mention.start for other in taken):
                taken.append(mention)
            if len(taken) >= MAX_MENTIONS:
                break
    return tuple(sorted(taken[:MAX_MENTIONS], key=lambda mention: mention.start))


def entity_id(label: str, name: str) -> str:
    """`label:normalised name`: compatibility form, case folded, one space between words.

    Of money the thousands separators go, of a symbol the `()` of its call.
    """
    folded = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    if label == "money":
        folded = folded.replace(",", "")
    return f"{label}:{folded.removesuffix('()') if label == 'symbol' else folded}"


def _known(label: str, name: str | None, text: str) -> Iterator[Mention]:
    if name is None or len(name) < 3:
        return
    for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text):
        yield _mention(label, name, match.start(), match.end())


def _ruled(text: str) -> Iterator[Mention]:
    for rule in RULES:
        for match in rule.pattern.finditer(text):
            group: str | int = "name" if "name" in rule.pattern.groupindex else 0
            name = match.group(group)
            if len(name) <= MAX_NAME:
                yield _mention(rule.label, name, match.start(group), match.end(group))


def _recognised(spans: Iterable[Span]) -> Iterator[Mention]:
    for span in spans:
        label = LABELS.get(span.label)
        name = _POSSESSIVE.sub("", _LEADING.sub("", span.text.strip(_EDGES))).strip(_EDGES)
        if label is not None and _is_name(name, label):
            start = span.start + span.text.index(name)
            # What a bare acronym stands for is a guess that changes with the sentence: JFK is a person, then a place.
            label = "acronym" if _ACRONYM.fullmatch(name) else label
            yield _mention(label, name, start, start + len(name))


def _is_name(name: str, label: str) -> bool:
    if not 2 <= len(name) <= MAX_NAME or "\n" in name or _MARKUP.search(name) or name.casefold() in _NOT_NAMES:
        return False
    if label == "date":
        return _CALENDAR.search(name) is not None
    if label == "money":
        return not name.replace(",", "").replace(".", "").isdigit()
    return any(letter.isalpha() for letter in name) and ": " not in name


def _mention(label: str, name: str, start: int, end: int) -> Mention:
    return Mention(entity_id(label, name), name, label, start, end)
