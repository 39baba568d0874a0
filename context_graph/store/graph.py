"""The graph in Redis: hashes for nodes, sorted sets for timelines and effects.

Membership edges (IN_SESSION, BY_AGENT, ABOUT, USED_TOOL, FOLLOWS) are not stored one by one: an event's hash names its
session, agent, user and tool, and each of these has a timeline. CAUSED_BY is kept at both ends. Every read is bounded
and pipelined; nothing scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import orjson

from context_graph.domain.graph import EventNode, GraphDelta, SummaryNode, TimelineKind, split_member, timeline_member
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.generations import GenerationOf, always, first
from context_graph.store.graph_records import GraphRecords
from context_graph.store.keys import GraphKeys

EVENT_PEOPLE, EVENT_SESSIONS = "people", "sessions"
_REMOVED_AT_ONCE = 1000  # keys
_OPTIONAL = ("user_id", "tool_name", "status", "trace_id")
EVENT_FIELDS = (
    "pos", "type", "session", "agent", "occurred", "origin", *_OPTIONAL, "ended", "causes",
    EVENT_PEOPLE, EVENT_SESSIONS,
)  # fmt: skip
"""Stage 1's fields of an event's hash."""


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """An event on a timeline: when (ms UTC), where in the ledger, which."""

    occurred_at: int
    position: Position
    event_id: str

    @property
    def member(self) -> str:
        return self.position.sort_key + self.event_id


class Graph:
    """Writes deltas to and reads neighbourhoods from the graph of any partition."""

    def __init__(self, redis: RedisClient, generation: GenerationOf = first) -> None:
        """`generation`: which one of a tenant is read and written."""
        self._redis = redis
        self._generation = generation
        source = files("context_graph.store").joinpath("lua/put_newest.lua").read_text()
        self._put_newest = redis.register_script(source)
        self._records = GraphRecords(redis)

    def at(self, generation: int) -> Graph:
        """The same graph in that very generation: what writes is bound to one, whichever is live."""
        return Graph(self._redis, always(generation))

    async def keys(self, partition: Partition) -> GraphKeys:
        """The keys of this graph's generation."""
        return GraphKeys(partition, await self._generation(partition.tenant))

    async def apply(self, partition: Partition, delta: GraphDelta) -> None:
        """Write a delta in one pipelined round trip. Writing it twice, or in another order, changes nothing."""
        keys = await self.keys(partition)
        pipe = self._redis.pipeline(transaction=False)
        for (kind, identifier), members in delta.timelines.items():
            pipe.execute_command("ZADD", keys.timeline(kind, identifier), *_scores(members))
        for cause, effects in delta.effects.items():
            pipe.execute_command("ZADD", keys.effects(cause), *_scores(effects))
        latest: dict[TimelineKind, dict[str, int]] = {}
        for (kind, identifier), occurred_at in delta.seen.items():
            latest.setdefault(kind, {})[identifier] = occurred_at
        for kind, members in latest.items():
            pipe.execute_command("ZADD", keys.registry(kind), "GT", *_scores(members))
        await self._records.put(pipe, keys, delta)
        for node in delta.events.values():  # last: it says where the rest is (`forgotten.py`)
            pipe.execute_command("HSET", keys.event(node.id), *event_fields(node))
        with store_errors("writing the graph"):
            await pipe.execute()
            for summary in delta.summaries.values():
                await self._put_newest(keys=[keys.summary(summary.scope)], args=summary_fields(summary))

    async def remove(self, partition: Partition) -> None:
        """Every key of this graph's generation, documents too. It scans: for a generation that is dropped."""
        keys, cursor = await self.keys(partition), 0
        while True:
            with store_errors("removing a generation"):
                answer: Any = await self._redis.scan(cursor, match=f"{keys.tag}:*", count=_REMOVED_AT_ONCE)
                cursor = int(answer[0])
                if answer[1]:
                    await self._redis.unlink(*answer[1])
            if cursor == 0:
                return

    async def events(self, partition: Partition, ids: Sequence[str]) -> dict[str, EventNode]:
        """The event nodes of these ids, those that have arrived; one round trip."""
        keys = await self.keys(partition)
        pipe = self._redis.pipeline(transaction=False)
        for event_id in ids:
            pipe.hgetall(keys.event(event_id))
        with store_errors("reading events of the graph"):
            answers = await pipe.execute() if ids else []
        nodes = (_event_node(event_id, fields) for event_id, fields in zip(ids, answers, strict=True))
        return {node.id: node for node in nodes if node is not None}

    async def effects(self, partition: Partition, ids: Sequence[str], limit: int) -> dict[str, list[TimelineEntry]]:
        """Events that name these as a cause, in order of occurrence, up to `limit` of each; one round trip."""
        keys = await self.keys(partition)
        pipe = self._redis.pipeline(transaction=False)
        for event_id in ids:
            pipe.zrange(keys.effects(event_id), 0, limit - 1, withscores=True)
        with store_errors("reading effects"):
            answers = await pipe.execute() if ids else []
        return {event_id: _entries(partition, found) for event_id, found in zip(ids, answers, strict=True)}

    async def timeline(
        self,
        partition: Partition,
        kind: TimelineKind,
        identifier: str,
        *,
        start: int = 0,
        limit: int = 100,
        newest_first: bool = False,
        until: int | None = None,
    ) -> list[TimelineEntry]:
        """`limit` entries from rank `start`, oldest or newest first; none after `until` (ms)."""
        key = (await self.keys(partition)).timeline(kind, identifier)
        high: float | str = "+inf" if until is None else until
        with store_errors("reading a timeline"):
            found: Any = (
                await self._redis.zrevrangebyscore(key, high, "-inf", start=start, num=limit, withscores=True)
                if newest_first
                else await self._redis.zrangebyscore(key, "-inf", high, start=start, num=limit, withscores=True)
            )
        return _entries(partition, found)

    async def around(
        self, partition: Partition, events: Sequence[tuple[str, Position, str]], reach: int
    ) -> dict[str, list[TimelineEntry]]:
        """Session neighbours of events (session, position, id): up to `reach` on both sides, itself included.

        Two round trips. Events that Stage 1 has not seen yet have none.
        """
        keys = await self.keys(partition)
        pipe = self._redis.pipeline(transaction=False)
        for session_id, position, event_id in events:
            pipe.zrank(keys.timeline("session", session_id), timeline_member(position, event_id))
        with store_errors("reading neighbours"):
            ranks = await pipe.execute() if events else []
            ranked = [(event, rank) for event, rank in zip(events, ranks, strict=True) if rank is not None]
            for (session_id, _, _), rank in ranked:
                key = keys.timeline("session", session_id)
                pipe.zrange(key, max(0, rank - reach), rank + reach, withscores=True)
            stretches = await pipe.execute() if ranked else []
        return {
            event_id: _entries(partition, found) for ((_, _, event_id), _), found in zip(ranked, stretches, strict=True)
        }

    async def registry(
        self, partition: Partition, kind: TimelineKind, *, start: int = 0, limit: int = 100
    ) -> list[tuple[str, int]]:
        """Identifiers of a kind with their latest occurrence (ms), latest first."""
        key = (await self.keys(partition)).registry(kind)
        with store_errors("reading a registry"):
            found: Any = await self._redis.zrevrange(key, start, start + limit - 1, withscores=True)
        return [(member.decode(), int(score)) for member, score in found]

    async def people_in(self, partition: Partition, session_id: str, until: Position | None = None) -> list[str]:
        """Whom the events of a session are about, those at or ahead of a position."""
        with store_errors("reading who is in a session"):
            seen: Any = await self._redis.hgetall((await self.keys(partition)).session(session_id))
        limit = None if until is None else until.sort_key
        named = ((what.decode(), at.decode()) for what, at in seen.items() if limit is None or at.decode() <= limit)
        return sorted(what.removeprefix("user:") for what, _ in named if what.startswith("user:"))

    async def summary(self, partition: Partition, scope: str) -> SummaryNode | None:
        """The newest summary of a scope, or None."""
        with store_errors("reading a summary"):
            fields: Any = await self._redis.hgetall((await self.keys(partition)).summary(scope))
        if not fields:
            return None
        return SummaryNode(
            id=fields[b"id"].decode(),
            scope=scope,
            position=Position.of_sort_key(partition.bucket, fields[b"order"].decode()),
            event_ids=tuple(orjson.loads(fields[b"event_ids"])),
        )


def _scores(members: dict[str, int]) -> list[str | int]:
    flat: list[str | int] = []
    for member, score in members.items():
        flat += (score, member)
    return flat


def event_fields(node: EventNode) -> list[str | int | bytes]:
    """An event's hash as Stage 1 writes it: field, value, field, value …"""
    fields: list[str | int | bytes] = [
        "pos", str(node.position),
        "type", node.event_type,
        "session", node.session_id,
        "agent", node.agent_id,
        "occurred", node.occurred_at,
        "origin", node.origin,
    ]  # fmt: skip
    for name in _OPTIONAL:
        value = getattr(node, name)
        if value is not None:
            fields += (name, value)
    if node.ended_at is not None:
        fields += ("ended", node.ended_at)
    if node.causes:
        fields += ("causes", orjson.dumps(node.causes))
    if node.people:
        fields += (EVENT_PEOPLE, orjson.dumps(node.people))
    if node.sessions:
        fields += (EVENT_SESSIONS, orjson.dumps(node.sessions))
    return fields


def _event_node(event_id: str, fields: dict[bytes, bytes]) -> EventNode | None:
    if b"pos" not in fields:
        return None  # not arrived, or only Stage 2 has been here
    text = {name: fields[name.encode()].decode() for name in _OPTIONAL if name.encode() in fields}
    return EventNode(
        id=event_id,
        position=Position.parse(fields[b"pos"].decode()),
        event_type=fields[b"type"].decode(),
        session_id=fields[b"session"].decode(),
        agent_id=fields[b"agent"].decode(),
        occurred_at=int(fields[b"occurred"]),
        origin=fields[b"origin"].decode(),
        ended_at=int(fields[b"ended"]) if b"ended" in fields else None,
        causes=tuple(orjson.loads(fields[b"causes"])) if b"causes" in fields else (),
        people=tuple(orjson.loads(fields[b"people"])) if b"people" in fields else (),
        sessions=tuple(orjson.loads(fields[b"sessions"])) if b"sessions" in fields else (),
        **text,
    )


def summary_fields(summary: SummaryNode) -> list[str | bytes]:
    """A summary's position as its version, then field, value, field, value …"""
    return [summary.position.sort_key, "id", summary.id, "event_ids", orjson.dumps(summary.event_ids)]


def _entries(partition: Partition, found: list[tuple[bytes, float]]) -> list[TimelineEntry]:
    entries = []
    for member, score in found:
        position, event_id = split_member(partition.bucket, member.decode())
        entries.append(TimelineEntry(int(score), position, event_id))
    return entries
