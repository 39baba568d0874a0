"""Following the ledger as it grows: every event once, in order within its partition, from any place on.

Nothing is kept for a follower but its place: it reads the next chunk when its reader has taken the last one, so a slow
reader costs no memory and a lost one nothing. What it is told carries the place behind it; handing that back goes on
exactly there, also for several buckets.

Waits are for news (`notices.py`), with a look now and then in case a notification was lost.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from time import monotonic

from context_graph.delivery.notices import Notices
from context_graph.domain.event import LedgerEvent, SessionId
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.places import Places
from context_graph.domain.position import Position
from context_graph.errors import ArchiveDamaged, ConfigurationError
from context_graph.store.ledger import Ledger, Unreadable

_CHUNK = 64  # events read at once for one follower: 16 MiB when every payload has its largest default size
_MARK_EVERY = 1000  # events passed over after which the place is told, so that a reconnect need not read them again
_LOOK_FOR_GAPS = 5.0  # seconds that a follower may lie behind before a trim could have passed it


@dataclass(frozen=True, slots=True)
class TailQuery:
    """What to follow: from which place on (None: from now), one session or all, these event types or any."""

    tenant: Tenant
    after: Places | None
    session_id: SessionId | None = None
    event_types: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Told:
    """An event, and the place behind it."""

    event: LedgerEvent
    places: Places


@dataclass(frozen=True, slots=True)
class Gap:
    """Events behind `after` can no longer be read; it goes on behind `until`."""

    after: Position
    until: Position
    places: Places


@dataclass(frozen=True, slots=True)
class Skipped:
    """The entry at `position` is no event; it goes on behind it."""

    position: Position
    places: Places


@dataclass(frozen=True, slots=True)
class Mark:
    """Nothing to tell; this far has been read."""

    places: Places


News = Told | Gap | Skipped | Mark


class Tail:
    """Follows the ledgers of a tenant."""

    def __init__(self, ledger: Ledger, notices: Notices, poll_seconds: float) -> None:
        self._ledger = ledger
        self._notices = notices
        self._poll_seconds = poll_seconds

    async def follow(self, query: TailQuery) -> AsyncGenerator[News, None]:
        """News until the process stops; a mark first, and one whenever nothing has come for a while.

        Raises StoreUnavailable: go on from the last place.
        """
        partitions = query.tenant.partitions
        if query.session_id is not None:
            partitions = (query.tenant.partition_of(query.session_id),)
        with self._notices.watching(partitions) as watch:
            places = query.after or await self._now(query.tenant)
            follower = _Follower(self._ledger, query, places)
            yield Mark(places)
            behind = frozenset(partitions)
            while not self._notices.closed:
                for partition in sorted(behind):
                    for news in await follower.chunk(partition):
                        yield news
                behind = follower.unfinished
                if not behind:
                    yield Mark(follower.places)
                    behind = await watch.wait(self._poll_seconds)

    async def _now(self, tenant: Tenant) -> Places:
        places = Places.beginning(tenant.buckets)
        for partition in tenant.partitions:
            last = await self._ledger.last(partition) or await self._ledger.stream_cut(partition)
            places = places if last is None else places.moved(last)
        return places


class _Follower:
    """One follower's place, and how it reads."""

    def __init__(self, ledger: Ledger, query: TailQuery, places: Places) -> None:
        self._ledger = ledger
        self._query = query
        self._passed = 0
        self._checked: dict[Partition, float] = {}
        self._unfinished: set[Partition] = set()
        self.places = places

    @property
    def unfinished(self) -> frozenset[Partition]:
        """Partitions whose last chunk was full."""
        return frozenset(self._unfinished)

    async def chunk(self, partition: Partition) -> list[News]:
        """The next events of a partition that are wanted, each with its place; the follower's own is behind them."""
        gap = await self._gap(partition)
        news: list[News] = [] if gap is None else [gap]
        events = await self._read(partition)
        if len(events) < _CHUNK:
            self._unfinished.discard(partition)
        else:
            self._unfinished.add(partition)
        for event in events:
            self.places = self.places.moved(event.position)
            self._passed += 1
            if isinstance(event, Unreadable):
                news.append(Skipped(event.position, self.places))
                self._passed = 0
            elif not self._query.event_types or event.envelope.event_type in self._query.event_types:
                news.append(Told(event, self.places))
                self._passed = 0
            elif self._passed >= _MARK_EVERY:
                news.append(Mark(self.places))
                self._passed = 0
        return news

    async def _read(self, partition: Partition) -> Sequence[LedgerEvent | Unreadable]:
        place, session_id = self.places.of(partition.bucket), self._query.session_id
        if session_id is None:
            return await self._ledger.read_after(partition, place, _CHUNK)
        if not await self._ledger.session_has_news(partition, session_id, place):
            return []
        return await self._ledger.of_session(partition, session_id, place, _CHUNK)

    async def _gap(self, partition: Partition) -> Gap | None:
        """Whether events behind the place were trimmed and cannot be read from anywhere.

        Looked for at the beginning and while the follower lies behind: one that has read everything misses nothing.
        """
        now = monotonic()
        checked = self._checked.get(partition)
        if checked is not None and (partition not in self._unfinished or now - checked < _LOOK_FOR_GAPS):
            return None
        self._checked[partition] = now
        place = self.places.of(partition.bucket)
        cut = await self._ledger.stream_cut(partition)
        if cut is None or place >= cut or await self._archived(partition, place, cut):
            return None
        self.places = self.places.moved(cut)
        return Gap(place, cut, self.places)

    async def _archived(self, partition: Partition, place: Position, cut: Position) -> bool:
        try:
            found = await self._ledger.read_after(partition, place, 1)
        except (ConfigurationError, ArchiveDamaged):
            return False
        return bool(found) and found[0].position <= cut
