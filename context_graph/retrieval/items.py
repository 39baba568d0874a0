"""What retrieval works on: candidates on their way to becoming items of a working memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from context_graph.domain.document import Document
from context_graph.domain.partition import Partition

Section = Literal["summary", "relevant", "recent"]
SECTIONS: tuple[Section, ...] = get_args(Section)


@dataclass(frozen=True, slots=True)
class Share:
    """What a section has of the budget: `least` before the others have their turn, `most` in the end; both 0..1."""

    least: float
    most: float = 1.0


# What one section leaves of its share, the others get.
DEFAULT_SHARES: Mapping[Section, Share] = {"summary": Share(0.2), "relevant": Share(0.5), "recent": Share(0.3)}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document that some channel found: where, what each channel adds to it, and its score relative to the best (1).

    `causes`: the events that its event names as causes.
    """

    partition: Partition
    document: Document
    channels: Mapping[str, float]
    score: float
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """A line of working memory. `text` may be cut (`cut`); `bond` is shared by items that must not be parted."""

    document: Document
    section: Section
    text: str
    score: float
    channels: Mapping[str, float]
    reason: str
    rank: int
    bond: str
    cut: bool = False
    folded: tuple[str, ...] = field(default=())
    """Events with word for word the same content, told here once."""

    @property
    def id(self) -> str:
        return self.document.id

    @property
    def event_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.document.event_ids, *self.folded)))
