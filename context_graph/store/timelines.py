"""Timelines and effects as of any position, in pages, over any number of partitions.

A page is merged of the partitions' sorted sets by (occurrence, ms, seq, bucket), which orders everything and never
changes. As of a position what was recorded later is passed over, so what a page holds is what it would have held then.
Reading is bounded: a page that had to pass over too much is short, and says where to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from context_graph.domain.graph import split_member, timeline_member
from context_graph.domain.partition import Partition
from context_graph.store.connection import RedisClient
from context_graph.store.graph import Graph, TimelineEntry
from context_graph.store.receipts import Until
from context_graph.store.sorted_pages import LAST, Order, Place, SortedPages, Stretch

_MOST_READ = 5000  # entries read for one key of a hop as of a position


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Entries in the order asked; `more`: there may be others behind `last` (the last one that was looked at)."""

    entries: tuple[TimelineEntry, ...]
    last: TimelineEntry | None
    more: bool
    scanned: int


@dataclass(slots=True)
class _Lane:
    """One partition's set, read ahead by a chunk."""

    partition: Partition
    key: str
    place: Place | None
    read: list[TimelineEntry] = field(default_factory=list)
    ended: bool = False


class Timelines:
    """Reads the timelines of any tenant."""

    def __init__(self, redis: RedisClient, graph: Graph) -> None:
        self._pages = SortedPages(redis)
        self._graph = graph

    async def page(
        self,
        partitions: Sequence[Partition],
        kind: str,
        identifier: str,
        *,
        order: Order,
        limit: int,
        behind: TimelineEntry | None = None,
        begin: int | None = None,
        until: Until | None = None,
        most: int = 10_000,
    ) -> EntryPage:
        """A page of a timeline behind an entry (exclusive), else from a time on; `most` bounds what is read for it."""
        lanes = []
        for partition in partitions:
            key = (await self._graph.keys(partition)).timeline(kind, identifier)
            place = place_at(begin) if begin is not None else None
            lanes.append(_Lane(partition, key, place if behind is None else place_behind(behind, partition)))
        found: list[TimelineEntry] = []
        scanned, last = 0, behind
        while (entry := await self._next(lanes, order, limit + 1)) is not None:
            if len(found) >= limit or scanned >= most:
                return EntryPage(tuple(found), last, True, scanned)
            scanned += 1
            last = entry
            if until is None or entry.position <= until(entry.position.bucket):
                found.append(entry)
        return EntryPage(tuple(found), last, False, scanned)

    async def _next(self, lanes: Sequence[_Lane], order: Order, chunk: int) -> TimelineEntry | None:
        """The next entry of all lanes, taken; None at the end."""
        empty = [lane for lane in lanes if not lane.read and not lane.ended]
        stretches = [Stretch(lane.key, order, lane.place) for lane in empty]
        for lane, members in zip(empty, await self._pages.read(stretches, chunk), strict=True):
            lane.read = [_entry(lane.partition.bucket, member, score) for member, score in reversed(members)]
            lane.ended = len(members) < chunk
        waiting = [lane for lane in lanes if lane.read]
        if not waiting:
            return None
        choose = min if order == "asc" else max
        lane = choose(waiting, key=lambda lane: order_key(lane.read[-1]))
        entry = lane.read.pop()
        lane.place = Place(entry.occurred_at, entry.member.encode())
        return entry

    async def first(
        self, keys: Sequence[tuple[Partition, Stretch]], limit: int, until: Until | None
    ) -> list[tuple[list[TimelineEntry], bool]]:
        """Of each set the first `limit` entries behind its place, and whether it has more; one round trip.

        As of a position those recorded later are passed over, with more round trips where there are many.
        """
        found: list[list[TimelineEntry]] = [[] for _ in keys]
        more = [False] * len(keys)
        places = [stretch.behind for _, stretch in keys]
        open_ = list(range(len(keys)))
        read, chunk = 0, limit + 1
        while open_ and read < _MOST_READ:
            stretches = [Stretch(keys[i][1].key, keys[i][1].order, places[i]) for i in open_]
            answers = await self._pages.read(stretches, chunk)
            read += chunk
            left = []
            for i, members in zip(open_, answers, strict=True):
                entries = [_entry(keys[i][0].bucket, member, score) for member, score in members]
                found[i] += [e for e in entries if until is None or e.position <= until(e.position.bucket)]
                ended = len(members) < chunk
                more[i] = len(found[i]) > limit or not ended
                if len(found[i]) <= limit and not ended:
                    places[i] = Place(int(members[-1][1]), members[-1][0])
                    left.append(i)
            open_, chunk = left, min(chunk * 4, 1000)
        return [(entries[:limit], more_) for entries, more_ in zip(found, more, strict=True)]


def order_key(entry: TimelineEntry) -> tuple[int, int, int, int]:
    """What orders entries of several partitions: occurrence, then moment of recording, then bucket."""
    return entry.occurred_at, entry.position.ms, entry.position.seq, entry.position.bucket


def place_behind(entry: TimelineEntry, partition: Partition) -> Place:
    """The place in any partition's set behind which lies exactly what the order has behind `entry`."""
    at = entry.position.sort_key.encode()
    if partition.bucket == entry.position.bucket:
        return Place(entry.occurred_at, timeline_member(entry.position, entry.event_id).encode())
    # Entries of the same moment come before or after as a whole, by their bucket.
    earlier = partition.bucket < entry.position.bucket
    return Place(entry.occurred_at, at + LAST if earlier else at)


def place_at(occurred_at: int) -> Place:
    """Upwards in front of everything of that time; downwards behind it: the time itself is then left out."""
    return Place(occurred_at, b"")


def _entry(bucket: int, member: bytes, score: float) -> TimelineEntry:
    position, event_id = split_member(bucket, member.decode())
    return TimelineEntry(int(score), position, event_id)
