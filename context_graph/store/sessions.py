"""What the graph knows of sessions: when they began in the ledger, who appeared in them, and their timelines' ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from context_graph.domain.graph import split_member
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.graph import Graph
from context_graph.store.receipts import Until
from context_graph.store.sorted_pages import LAST, Place, SortedPages, Stretch

_MOST_COUNTED = 10_000  # events of a session that are looked at to count it as of a position


@dataclass(frozen=True, slots=True)
class SessionPlace:
    """Where a session stands in the list: the order of its first position, its bucket, its id."""

    order: int
    bucket: int
    session_id: str

    @property
    def key(self) -> tuple[int, int, bytes]:
        return self.order, self.bucket, self.session_id.encode()


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """A session: its events counted, times of the first and the last occurrence (ms UTC), who and what was in it.

    `complete` is False when there were too many events to count as of a position: `events` is then the least.
    """

    session_id: str
    began: Position
    events: int
    first_at: int
    last_at: int
    complete: bool = True
    agents: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    types: tuple[str, ...] = field(default=())


class SessionStore:
    """Reads the sessions of any tenant."""

    def __init__(self, redis: RedisClient, graph: Graph) -> None:
        self._redis = redis
        self._graph = graph
        self._pages = SortedPages(redis)

    async def started(
        self, partitions: Sequence[Partition], limit: int, behind: SessionPlace | None
    ) -> list[SessionPlace]:
        """Up to `limit` sessions, latest begun first, behind a place; one round trip."""
        stretches = []
        for partition in partitions:
            key = (await self._graph.keys(partition)).started
            stretches.append(Stretch(key, "desc", None if behind is None else _place(behind, partition)))
        found = await self._pages.read(stretches, limit)
        places = [
            SessionPlace(int(score), partition.bucket, member.decode())
            for partition, members in zip(partitions, found, strict=True)
            for member, score in members
        ]
        return sorted(places, key=lambda place: place.key, reverse=True)[:limit]

    async def facts(
        self, partition: Partition, session_ids: Sequence[str], until: Until | None
    ) -> list[SessionFacts | None]:
        """Of each session what is known of it, None where nothing has happened (by then); one round trip."""
        keys = await self._graph.keys(partition)
        pipe: Any = self._redis.pipeline(transaction=False)
        for session_id in session_ids:
            timeline = keys.timeline("session", session_id)
            pipe.hgetall(keys.session(session_id))
            if until is None:
                pipe.zcard(timeline)
                pipe.zrange(timeline, 0, 0, withscores=True)
                pipe.zrange(timeline, -1, -1, withscores=True)
            else:
                pipe.zrange(timeline, 0, _MOST_COUNTED, withscores=True)
        with store_errors("reading sessions"):
            answers: list[Any] = await pipe.execute() if session_ids else []
        if until is None:
            return [
                _now(partition, name, answers[4 * i], answers[4 * i + 1 : 4 * i + 4])
                for i, name in enumerate(session_ids)
            ]
        last = until(partition.bucket)
        return [_then(partition, name, answers[2 * i], answers[2 * i + 1], last) for i, name in enumerate(session_ids)]


def _place(behind: SessionPlace, partition: Partition) -> Place:
    """Downwards: of the sessions that began at that moment, those of lower buckets are behind as a whole."""
    if partition.bucket == behind.bucket:
        return Place(behind.order, behind.session_id.encode())
    return Place(behind.order, LAST if partition.bucket < behind.bucket else b"")


def _now(partition: Partition, name: str, seen: dict[bytes, bytes], timeline: Any) -> SessionFacts | None:
    count, first, last = timeline
    if not count or not seen:
        return None
    times = int(first[0][1]), int(last[0][1])
    return _facts(partition, name, seen, count, times)


def _then(
    partition: Partition, name: str, seen: dict[bytes, bytes], members: Any, last: Position
) -> SessionFacts | None:
    times = [
        int(score)
        for member, score in members[:_MOST_COUNTED]
        if split_member(partition.bucket, member.decode())[0] <= last
    ]
    known = {what: at for what, at in seen.items() if at.decode() <= last.sort_key}
    if not times or not known:
        return None
    counted = len(members) <= _MOST_COUNTED
    return _facts(partition, name, known, len(times), (times[0], times[-1]), complete=counted)


def _facts(
    partition: Partition,
    name: str,
    seen: dict[bytes, bytes],
    count: int,
    times: tuple[int, int],
    *,
    complete: bool = True,
) -> SessionFacts:
    """`seen` in order of appearance, so that a list begins with who came first."""
    ordered = sorted(seen.items(), key=lambda item: (item[1], item[0]))
    named: dict[str, list[str]] = {"agent": [], "user": [], "tool": [], "type": []}
    for what, _ in ordered:
        kind, _, value = what.decode().partition(":")
        named[kind].append(value)
    return SessionFacts(
        session_id=name,
        began=Position.of_sort_key(partition.bucket, ordered[0][1].decode()),
        events=count,
        first_at=times[0],
        last_at=times[1],
        complete=complete,
        agents=tuple(named["agent"]),
        users=tuple(named["user"]),
        tools=tuple(named["tool"]),
        types=tuple(named["type"]),
    )
