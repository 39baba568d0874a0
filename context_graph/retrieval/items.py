"""What retrieval works on: candidates on their way to becoming items of a working memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from context_graph.domain.document import Document
from context_graph.domain.partition import Partition

Section = Literal["pinned", "profile", "summary", "relevant", "recent"]
SECTIONS: tuple[Section, ...] = get_args(Section)

_REASONS: Mapping[str, str] = {
    "vector": "close in meaning",
    "text": "matches the words",
    "speaker": "said by whom the query names",
    "time": "at the time asked about",
    "answer": "has the kind of answer asked for",
    "passage": "in a passage about it",
    "session": "in a session about it",
    "neighbour": "beside a match",
    "causal": "cause or effect of a match",
    "recency": "recent in this session",
    "profile": "holds of the person in scope",
    "pinned": "pinned",
}
_NAMED_REASONS = 3  # the strongest ones are named


@dataclass(frozen=True, slots=True)
class Share:
    """What a section has of the budget: `least` before the others have their turn, `most` in the end; both 0..1."""

    least: float
    most: float = 1.0


# What one section leaves of its share, the others get.
DEFAULT_SHARES: Mapping[Section, Share] = {
    "pinned": Share(0.1),
    "profile": Share(0.1, 0.25),
    "summary": Share(0.0),  # a promised fifth took the place of evidence (adr/0030)
    "relevant": Share(0.5),
    "recent": Share(0.3),
}


class Candidate(NamedTuple):
    """A document that some channel found: where, what each channel adds to it, and its score relative to the best (1).

    `causes`: the events that its event names as causes, of tools' calls and results. `uses`: how much oftener it was
    said to have helped than not, as far as that was asked for.
    """

    partition: Partition
    document: Document
    channels: Mapping[str, float]
    score: float
    causes: tuple[str, ...] = ()
    uses: int = 0


class Item(NamedTuple):
    """A line of working memory. `text` may be cut (`cut`); `bond` is shared by items that must not be parted."""

    document: Document
    section: Section
    text: str
    score: float
    channels: Mapping[str, float]
    rank: int
    bond: str
    cut: bool = False
    folded: tuple[str, ...] = ()
    """Events with word for word the same content, told here once."""

    @property
    def id(self) -> str:
        return self.document.id

    @property
    def reason(self) -> str:
        """Why it is here: the strongest channels in words."""
        named = [name for name, added in self.channels.items() if name in _REASONS and added > 0]
        strongest = sorted(named, key=lambda name: (name != "pinned", -self.channels[name]))[:_NAMED_REASONS]
        return ", ".join(_REASONS[name] for name in strongest)

    @property
    def event_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.document.event_ids, *self.folded)))
