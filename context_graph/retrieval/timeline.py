"""A timeline's events in pages by occurrence: the graph says which, the ledger says what they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from context_graph.domain.event import LedgerEvent, SessionId
from context_graph.domain.graph import TimelineKind
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.retrieval.request import AsOf
from context_graph.store.graph import TimelineEntry
from context_graph.store.ledger import Ledger
from context_graph.store.sorted_pages import Order
from context_graph.store.timelines import Timelines


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineQuery:
    """Whose timeline, from where: behind an entry (exclusive). Times in ms UTC, `occurred_to` exclusive."""

    kind: TimelineKind
    id: str
    order: Order
    limit: int
    behind: TimelineEntry | None = None
    occurred_from: int | None = None
    occurred_to: int | None = None
    as_of: AsOf | None = None

    @property
    def begin(self) -> int | None:
        """The time at which the order begins: upwards inclusive, downwards exclusive."""
        return self.occurred_from if self.order == "asc" else self.occurred_to

    def is_past(self, occurred_at: int) -> bool:
        """Whether an entry lies behind the end that the order goes to."""
        if self.order == "asc":
            return self.occurred_to is not None and occurred_at >= self.occurred_to
        return self.occurred_from is not None and occurred_at < self.occurred_from


@dataclass(frozen=True, slots=True)
class TimelinePage:
    """Events in the order asked; `next`: behind which the next page begins, None at the end."""

    events: tuple[LedgerEvent, ...]
    next: TimelineEntry | None
    scanned: int


class TimelinePages:
    """Reads the timelines of any tenant."""

    def __init__(self, timelines: Timelines, ledger: Ledger, max_scanned: int) -> None:
        self._timelines = timelines
        self._ledger = ledger
        self._max_scanned = max_scanned

    async def page(self, tenant: Tenant, query: TimelineQuery) -> TimelinePage:
        """The next page. One that had to pass over too much is short, and says where to go on."""
        partitions: Sequence[Partition] = tenant.partitions
        if query.kind == "session":
            partitions = [tenant.partition_of(SessionId(query.id))]
        found = await self._timelines.page(
            partitions,
            query.kind,
            query.id,
            order=query.order,
            limit=query.limit,
            behind=query.behind,
            begin=query.begin,
            until=None if query.as_of is None else query.as_of.last,
            most=self._max_scanned,
        )
        entries = [entry for entry in found.entries if not query.is_past(entry.occurred_at)]
        ended = not found.more or (found.last is not None and query.is_past(found.last.occurred_at))
        events = await self._read(tenant, entries)
        return TimelinePage(tuple(events), None if ended else found.last, found.scanned)

    async def _read(self, tenant: Tenant, entries: Sequence[TimelineEntry]) -> list[LedgerEvent]:
        events: dict[Position, LedgerEvent] = {}
        for partition in tenant.partitions:
            ids = [e.position.stream_id for e in entries if e.position.bucket == partition.bucket]
            events |= {event.position: event for event in await self._ledger.at(partition, ids)}
        return [events[entry.position] for entry in entries if entry.position in events]
