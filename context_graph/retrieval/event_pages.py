"""Pages of the ledger: filtered, in either direction, over any number of buckets, with a bounded amount of reading.

Events of several buckets are merged by (ms, seq, bucket); within a bucket that is the ledger's order. How far a page
has come is kept for each bucket (`domain/places.py`), so what arrives while somebody pages is neither skipped nor
repeated: upwards it comes on a later page, downwards it lies above where the first page began.

The ledger has no index on the envelope's fields: a filter is evaluated on what is read. A page therefore ends after
`max_scanned` entries even if it holds few events or none, and says where to go on.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from context_graph.domain.event import LedgerEvent, SessionId
from context_graph.domain.event_filter import EventFilter
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.places import Places, moment_key
from context_graph.domain.position import Position
from context_graph.store.ledger import Ledger, Unreadable

Order = Literal["asc", "desc"]

_CHUNK = 256  # entries of a bucket read at once, at most: 64 MiB when every payload has its largest default size
_SMALLEST_CHUNK = 16
_AT_ONCE = 16  # buckets read at the same time


@dataclass(frozen=True, slots=True)
class EventQuery:
    """What to read. `session_id`: of this session alone, by its own list. `low` and `high` are exclusive bounds."""

    order: Order
    limit: int
    filter: EventFilter
    session_id: SessionId | None = None
    low: Places | None = None
    high: Places | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in the order asked; `next` is where the next page begins, None at the end; `scanned` entries were read.

    `unreadable`: positions of those that are no events.
    """

    events: tuple[LedgerEvent, ...]
    next: Places | None
    scanned: int
    unreadable: tuple[Position, ...] = ()


@dataclass(slots=True)
class _Lane:
    """One bucket's entries in the order asked, read ahead by a chunk."""

    partition: Partition
    place: Position
    read: list[LedgerEvent | Unreadable] = field(default_factory=list)
    ended: bool = False


class EventPages:
    """Reads pages of a tenant's ledger."""

    def __init__(self, ledger: Ledger, max_scanned: int) -> None:
        self._ledger = ledger
        self._max_scanned = max_scanned

    async def page(self, tenant: Tenant, query: EventQuery) -> EventPage:
        """The next page. Raises StoreUnavailable."""
        lanes = await self._lanes(tenant, query)
        reading = _Reading(self._ledger, query, lanes)
        events: list[LedgerEvent] = []
        unreadable: list[Position] = []
        scanned = 0
        while (event := await reading.peek()) is not None:
            if len(events) >= query.limit or scanned >= self._max_scanned:
                return EventPage(tuple(events), _places(tenant, query, lanes), scanned, tuple(unreadable))
            reading.take()
            scanned += 1
            if isinstance(event, Unreadable):
                unreadable.append(event.position)
            elif query.filter.holds(event.envelope):
                events.append(event)
        return EventPage(tuple(events), None, scanned, tuple(unreadable))

    async def _lanes(self, tenant: Tenant, query: EventQuery) -> list[_Lane]:
        partitions: Sequence[Partition] = tenant.partitions
        if query.session_id is not None:
            partitions = [tenant.partition_of(query.session_id)]
        if query.order == "asc":
            low = query.low or Places.beginning(tenant.buckets)
            return [_Lane(partition, low.of(partition.bucket)) for partition in partitions]
        if query.high is not None:
            return [_Lane(partition, query.high.of(partition.bucket)) for partition in partitions]
        lanes: list[_Lane] = []
        for partition in partitions:
            last = await self._ledger.last(partition) or await self._ledger.stream_cut(partition)
            # What is appended from now on lies above the first page.
            top = Position(partition.bucket, 0, 0) if last is None else Position(last.bucket, last.ms, last.seq + 1)
            lanes.append(_Lane(partition, top))
        return lanes


class _Reading:
    """Keeps every lane read ahead and merges them."""

    def __init__(self, ledger: Ledger, query: EventQuery, lanes: list[_Lane]) -> None:
        self._ledger = ledger
        self._query = query
        self._sign = 1 if query.order == "asc" else -1
        self._chunk = max(_SMALLEST_CHUNK, min(_CHUNK, (query.limit + 1) // len(lanes) + 1))
        self._empty = list(lanes)
        self._heads: list[tuple[tuple[int, int, int], int, _Lane]] = []

    async def peek(self) -> LedgerEvent | Unreadable | None:
        """The next event of all lanes, left where it is; None at the end."""
        empty, self._empty = self._empty, []
        for start in range(0, len(empty), _AT_ONCE):
            await asyncio.gather(*(self._fill(lane) for lane in empty[start : start + _AT_ONCE]))
        for lane in empty:
            if lane.read:
                self._push(lane)
        return self._heads[0][2].read[-1] if self._heads else None

    def take(self) -> None:
        """Go past the event that `peek` gave."""
        _, _, lane = heapq.heappop(self._heads)
        lane.place = lane.read.pop().position
        if lane.read:
            self._push(lane)
        elif not lane.ended:
            self._empty.append(lane)

    def _push(self, lane: _Lane) -> None:
        ms, seq, bucket = moment_key(lane.read[-1].position)
        key = (self._sign * ms, self._sign * seq, self._sign * bucket)
        heapq.heappush(self._heads, (key, lane.partition.bucket, lane))

    async def _fill(self, lane: _Lane) -> None:
        found = await (self._behind(lane) if self._query.order == "asc" else self._ahead(lane))
        self._chunk = min(_CHUNK, self._chunk * 2)  # a filter that lets little through reads in larger chunks
        lane.read = [event for event in reversed(found) if self._inside(event.position)]
        lane.ended = len(lane.read) < len(found) or not found  # past the bound, or at the end

    def _inside(self, position: Position) -> bool:
        bound = self._query.high if self._query.order == "asc" else self._query.low
        if bound is None:
            return True
        limit = bound.of(position.bucket)
        return position < limit if self._query.order == "asc" else position > limit

    async def _behind(self, lane: _Lane) -> Sequence[LedgerEvent | Unreadable]:
        session_id = self._query.session_id
        if session_id is not None:
            return await self._ledger.of_session(lane.partition, session_id, lane.place, self._chunk)
        return await self._ledger.read_after(lane.partition, lane.place, self._chunk)

    async def _ahead(self, lane: _Lane) -> Sequence[LedgerEvent | Unreadable]:
        session_id = self._query.session_id
        if session_id is not None:
            return await self._ledger.of_session_before(lane.partition, session_id, lane.place, self._chunk)
        return await self._ledger.read_before(lane.partition, lane.place, self._chunk)


def _places(tenant: Tenant, query: EventQuery, lanes: list[_Lane]) -> Places:
    """How far each bucket has come; buckets that are not read stay at the beginning."""
    places = query.low if query.order == "asc" else query.high
    places = places or Places.beginning(tenant.buckets)
    for lane in lanes:
        places = places.moved(lane.place)
    return places
