"""What retrieval answers with: a working memory or a page of results, and how it came about."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from context_graph.domain.query import Understanding
from context_graph.retrieval.items import Candidate
from context_graph.retrieval.pack import Packed
from context_graph.retrieval.render import Content
from context_graph.retrieval.request import ContextQuery
from context_graph.retrieval.waiting import Passed


@dataclass(slots=True)
class Timings:
    """Milliseconds per step."""

    steps: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.steps[name] = round((time.perf_counter() - began) * 1000, 3)


@dataclass(frozen=True, slots=True)
class Served:
    """A working memory as served, with how it came about."""

    receipt_id: str | None
    content: Content | None
    packed: Packed
    query: ContextQuery
    understanding: Understanding
    seeds: Sequence[str]
    timings: Mapping[str, float]
    passed: Passed
    """Which stages had not passed `min_position`."""
    truncated: Sequence[str] = ()
    """What the deadline cut, and what did not answer."""
    recallable: Sequence[str] = ()
    """Sessions of what was served of which more is forgotten, and can be brought back."""


@dataclass(frozen=True, slots=True)
class Found:
    """A page of search results; `more` says that another page may follow. `passed` as in Served."""

    results: Sequence[Candidate]
    more: bool
    passed: Passed
    depth: int
    """How many of each channel were asked for: the next page must ask for as many to rank alike."""
    truncated: Sequence[str] = ()
