"""Sentences: an event's text cut into pieces that can be quoted, and a bounded sample of those of a long session. Pure.

The splitter is for chat and tool output as much as for prose: a line break always ends a sentence, a full stop does
unless it belongs to an abbreviation, an initial or a list number. Nothing is reworded; a sentence longer than
`LONGEST` characters is cut at a word and ends with an ellipsis.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

LONGEST = 300  # characters of a sentence that is quoted
MOST_OF_AN_EVENT = 40  # sentences of one event that are considered
_FEWEST_TERMS = 4  # "Thanks!" and "Yes, please do." say nothing about a session
_MOST_STRUCTURE = 0.15  # share of brackets, quotes and the like above which a line is data, not a sentence

# East Asian scripts have no spaces between words: each character is a term there.
_TERM = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+(?:['’-][^\W_]+)*")
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[」』”]?")
_ABBREVIATION = re.compile(
    r"(?:^\d+|(?:^|[\s(])(?:[A-HJ-Z]|(?i:e\.g|i\.e|a\.m|p\.m|mr|mrs|ms|dr|st|vs|etc|approx|inc|ltd)))\.$"
)
_BULLET = re.compile(r"^(?:[-*•]\s+)+")
_STRUCTURE = frozenset('{}[]()<>"=|\\/_:;,#*`~+')


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of an event: the event's time (ms UTC), its place within the event, importance (1-10), who says it."""

    text: str
    event_id: str
    occurred_at: int
    order: str
    index: int
    importance: int
    speaker: str = ""

    @property
    def place(self) -> tuple[int, str, int]:
        """Sorts sentences in order of occurrence; `order` is the event's position as a sort key."""
        return self.occurred_at, self.order, self.index


def terms(text: str) -> list[str]:
    """The words of a text, lower-cased, in order."""
    return [match.group().casefold() for match in _TERM.finditer(text)]


def split(text: str) -> list[str]:
    """The sentences of a text that are worth quoting, at most `MOST_OF_AN_EVENT`, each at most `LONGEST` characters."""
    found: list[str] = []
    for line in text.splitlines():
        for piece in _pieces(line):
            if _is_quotable(piece):
                found.append(_shorten(piece))
            if len(found) == MOST_OF_AN_EVENT:
                return found
    return found


def _pieces(line: str) -> Iterable[str]:
    start = 0
    for end in _END.finditer(line):
        if _ABBREVIATION.search(line[start : end.end()]):
            continue
        yield _bare(line[start : end.end()])
        start = end.end()
    yield _bare(line[start:])


def _bare(piece: str) -> str:
    """Without surrounding space and the mark of a list item."""
    return _BULLET.sub("", piece.strip())


def prose(text: str) -> float:
    """How much a text reads like a sentence: from 1 (words) down to 0 (data: every seventh character is structure)."""
    structure = sum(character in _STRUCTURE for character in text)
    return max(0.0, 1.0 - structure / (_MOST_STRUCTURE * len(text))) if text else 0.0


def _is_quotable(piece: str) -> bool:
    return prose(piece) > 0 and len(terms(piece)) >= _FEWEST_TERMS


def _shorten(piece: str) -> str:
    if len(piece) <= LONGEST:
        return piece
    head = piece[: LONGEST - 1]
    return (head.rsplit(None, 1)[0] if " " in head else head) + "…"


def most_important(sentences: Iterable[Sentence], limit: int) -> list[Sentence]:
    """At most `limit` sentences: the most important ones, and where that does not decide, an even sample.

    Ties break by a hash of the sentence's origin (bottom-k sampling), so the choice neither depends on the order of
    reading nor prefers the beginning or the end, and choosing page by page equals choosing from all at once.
    """
    return heapq.nsmallest(limit, sentences, key=_rank)


def _rank(sentence: Sentence) -> tuple[int, bytes]:
    origin = f"{sentence.index}:{sentence.event_id}".encode()
    return -sentence.importance, blake2b(origin, digest_size=8).digest()
