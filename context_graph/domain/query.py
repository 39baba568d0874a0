"""Understanding a query: its terms, whom it names, and what it asks for. Pure and small: well under a millisecond.

The names of those who speak are cut out of what the vectors and the words are asked: they say who, and stand in a
feature of their own (on the development conversations a name in the embedded text pulls every turn of that speaker).
Terms are what the keyword channel searches: words as typed, lower-cased, without stop words. Stop words are dropped
here and never by the index: a union that begins with two of the index's own stop words ends redis-server (adr/0009).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from context_graph.domain.words import asked_words

Intent = Literal["why", "when", "what", "related", "general", "who_is", "how_does", "personalize"]
INTENTS: tuple[Intent, ...] = get_args(Intent)

_MOST_TERMS = 48

STOP_WORDS = frozenset(  # one string reads better than 120 quoted words
    "a about after all also am an and any are as at be because been before being but by can could did do does doing "
    "for from had has have having he her here him his how i if in into is it its just me my no not of off on or our "
    "out over she so some than that the their them then there these they this those to too under up us very was we "
    "were what when where which while who whom why will with would you your".split()
)

_CUES: tuple[tuple[Intent, re.Pattern[str]], ...] = (
    ("why", re.compile(r"\b(why|reason|because|cause[ds]?|led to|root cause|due to|how come)\b")),
    ("when", re.compile(r"\b(when|what (time|date|day)|how long|since when|date|yesterday|last (week|month|year))\b")),
    ("who_is", re.compile(r"\b(who (is|was|are)|whose|who)\b")),
    ("how_does", re.compile(r"\b(how (do|does|did|to|can|was|were)|steps?|procedure|fixed|solved?)\b")),
    ("related", re.compile(r"\b(related|similar|like this|associated|connected|same (issue|problem|kind))\b")),
    ("personalize", re.compile(r"\b(prefer\w*|favou?rite|likes?|usually|my|for me)\b")),
    ("what", re.compile(r"\b(what|which)\b")),
)


_SHORTEST_NAME = 3  # letters; shorter ones are initials and words
_POSSESSIVE = r"(?:['’]s)?"


@dataclass(frozen=True, slots=True)
class Understanding:
    """What a query asks for: its text, its terms (no stop words), and intents whose weights sum to 1.

    `speakers` are those of the scope whom the query names (lower case); `subject` is the text without them.
    """

    text: str
    terms: tuple[str, ...]
    intents: Mapping[Intent, float]
    speakers: frozenset[str] = frozenset()
    subject: str = ""

    def weight(self, intent: Intent) -> float:
        return self.intents.get(intent, 0.0)


def understand(
    text: str, intents: Mapping[Intent, float] | None = None, known_speakers: Iterable[str] = ()
) -> Understanding:
    """Terms and intents of a query; `intents` given by the caller take the place of those seen in the words."""
    weights = dict(intents) if intents else _intents(text.lower())
    total = sum(weights.values()) or 1.0
    named = _named(text, known_speakers)
    subject = _without(text, named)
    return Understanding(
        text,
        terms(subject) or terms(text),
        {intent: weight / total for intent, weight in weights.items()},
        frozenset(name.lower() for name in named),
        subject or text,
    )


def _named(text: str, known: Iterable[str]) -> list[str]:
    """The known speakers that stand in the text as words of their own; longest first."""
    lowered = text.lower()
    found = []
    for name in known:
        low = name.lower()
        # "Will" is a person, "will" is none: what is also a stop word must be written as the name is.
        text_to_search, wanted = (text, name) if low in STOP_WORDS else (lowered, low)
        if len(name) >= _SHORTEST_NAME and wanted in text_to_search and _word(wanted).search(text_to_search):
            found.append(name)
    return sorted(found, key=len, reverse=True)


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")


def _without(text: str, names: Iterable[str]) -> str:
    for name in names:
        flags = 0 if name.lower() in STOP_WORDS else re.IGNORECASE
        text = re.sub(rf"(?<!\w){re.escape(name)}{_POSSESSIVE}(?!\w)", " ", text, flags=flags)
    return " ".join(text.split())


def terms(text: str) -> tuple[str, ...]:
    """Distinct lower-case terms in order, without stop words; a text of nothing but stop words keeps them."""
    words = list(asked_words(text))
    kept = [word for word in words if word not in STOP_WORDS] or words
    return tuple(dict.fromkeys(kept))[:_MOST_TERMS]


def _intents(text: str) -> dict[Intent, float]:
    found: dict[Intent, float] = {intent: 1.0 for intent, cue in _CUES if cue.search(text)}
    return found or {"general": 1.0}
