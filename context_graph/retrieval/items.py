"""What retrieval works on: candidates on their way to becoming items of a working memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from context_graph.domain.document import Document
from context_graph.domain.partition import Partition

Section = Literal["summary", "relevant", "recent"]
SECTIONS: tuple[Section, ...] = get_args(Section)

# What a section may take of the budget at most before the others had their turn. What one leaves, the others get.
DEFAULT_SHARES: Mapping[Section, float] = {"summary": 0.2, "relevant": 0.5, "recent": 0.3}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document that some channel found: where, its score per channel (0..1), and the fused score."""

    partition: Partition
    document: Document
    channels: Mapping[str, float]
    score: float


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
