"""What the consolidation asks of Redis: which sessions changed, the events of one in order, what was seen last time.

Looking at an unchanged session costs three small commands in a pipeline shared by a whole page of sessions; no event is
read. What was seen is derived state: lost with its generation, it costs one pass that appends nothing, because the
ledger answers `duplicate`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.rereading import reread_id
from context_graph.domain.text import session_scope
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.graph import Graph
from context_graph.store.ledger import Ledger

_PAGE = 500  # events read at once; sessions looked at at once

_FIELDS = ("count", "last", "rules")
_FACTS = ("facts", "facts_through")
_AGAIN = "again"
_SCOPE = "sources"


@dataclass(frozen=True, slots=True)
class Seen:
    """A session as a pass found it: events on its timeline, the last member, the digest of the rules applied."""

    count: int
    last: str
    rules: str


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session now, and as it was when it was last consolidated (None: never)."""

    session_id: str
    count: int
    last: str
    before: Seen | None
    facts: str | None = None
    """What the last reading for facts saw (`facts_seen`), and up to which position (sort key) it had read."""
    facts_through: str | None = None

    again: int = 0
    """How often somebody asked to read it again."""

    def seen_by(self, rules: str) -> Seen:
        """What to remember after these rules were applied."""
        return Seen(self.count, self.last, rules + self._asked)

    def facts_seen(self, rules: str) -> str:
        """What to remember after the session was read for facts by these rules."""
        return f"{self.count} {self.last} {rules}{self._asked}"

    @property
    def _asked(self) -> str:
        return f" again {self.again}" if self.again else ""

    def is_unchanged(self, rules: str) -> bool:
        """Whether these rules would read what they have read already."""
        return self.before == self.seen_by(rules)


class ConsolidationStore:
    """Reads sessions and remembers what was seen, in the graph's live generation of any partition."""

    def __init__(self, redis: RedisClient, graph: Graph, ledger: Ledger) -> None:
        self._redis = redis
        self._graph = graph
        self._ledger = ledger

    async def sessions(self, partition: Partition) -> AsyncIterator[list[SessionState]]:
        """Every session in pages, latest occurrence first.

        A session that gets an event while the pages are read may come twice or wait for the next pass; no other is
        missed. Raises StoreUnavailable.
        """
        start = 0
        while page := await self._graph.registry(partition, "session", start=start, limit=_PAGE):
            yield await self._states(partition, [session_id for session_id, _ in page])
            start += len(page)

    async def _states(self, partition: Partition, session_ids: list[str]) -> list[SessionState]:
        keys = await self._graph.keys(partition)
        pipe: Any = self._redis.pipeline(transaction=False)
        for session_id in session_ids:
            timeline = keys.timeline("session", session_id)
            pipe.zcard(timeline)
            pipe.zrange(timeline, -1, -1)
            pipe.hmget(keys.consolidated(session_id), (*_FIELDS, *_FACTS, _AGAIN))
        with store_errors("looking at sessions"):
            answers: list[Any] = await pipe.execute()
        return [_state(session_id, *answers[3 * i : 3 * i + 3]) for i, session_id in enumerate(session_ids)]

    async def events(self, partition: Partition, session_id: str) -> AsyncIterator[list[LedgerEvent]]:
        """The events of a session in order of occurrence, in pages.

        An event that arrives with an early time while the pages are read may make another come twice.
        """
        start = 0
        while page := await self._graph.timeline(partition, "session", session_id, start=start, limit=_PAGE):
            yield await self._ledger.at(partition, [entry.position.stream_id for entry in page])
            start += len(page)

    async def sources(
        self, partition: Partition
    ) -> AsyncIterator[list[tuple[str, list[str], tuple[str, Position] | None]]]:
        """Every session in pages, as `sessions`: who and what is in it (`user:nadia`), and its newest summary."""
        start = 0
        keys = await self._graph.keys(partition)
        while page := await self._graph.registry(partition, "session", start=start, limit=_PAGE):
            pipe: Any = self._redis.pipeline(transaction=False)
            for session_id, _ in page:
                pipe.hkeys(keys.session(session_id))
                pipe.hmget(keys.summary(session_scope(session_id)), "id", "order")
            with store_errors("looking at summaries"):
                answers: list[Any] = await pipe.execute()
            found = []
            for place, (session_id, _) in enumerate(page):
                names, (summary, order) = answers[2 * place : 2 * place + 2]
                at = None if order is None else Position.of_sort_key(partition.bucket, order.decode())
                known = None if at is None else (summary.decode(), at)
                found.append((session_id, sorted(name.decode() for name in names), known))
            yield found
            start += len(page)

    async def scope_seen(self, partition: Partition, scope: str) -> str | None:
        """What an agent's or a person's summary was last made of."""
        key = (await self._graph.keys(partition)).consolidated(scope)
        with store_errors("looking at a scope"):
            seen: Any = await self._redis.hget(key, _SCOPE)
        return None if seen is None else seen.decode()

    async def remember_scope(self, partition: Partition, scope: str, seen: str) -> None:
        """What it was made of now. A session of that name has other fields under this key."""
        key = (await self._graph.keys(partition)).consolidated(scope)
        with store_errors("remembering a scope"):
            await self._redis.hset(key, _SCOPE, seen)

    async def rereads(self, partition: Partition, session_id: str) -> int:
        """How often somebody asked to read a session again, as the ledger says. Raises StoreUnavailable."""
        number = 0
        while await self._ledger.position_of(partition, reread_id(session_id, number + 1)) is not None:
            number += 1
        return number

    async def look_again(self, partition: Partition, session_id: str, number: int) -> None:
        """Have the next pass look at a session although nothing is new in it."""
        key = (await self._graph.keys(partition)).consolidated(session_id)
        with store_errors("asking to read a session again"):
            await self._redis.hset(key, _AGAIN, str(number))

    async def remember_facts(self, partition: Partition, session_id: str, through: Position, seen: str | None) -> None:
        """Up to where a session was read for facts; `seen`: that this is all there was."""
        key = (await self._graph.keys(partition)).consolidated(session_id)
        fields: Any = {"facts_through": through.sort_key} | ({} if seen is None else {"facts": seen})
        with store_errors("remembering a session"):
            await self._redis.hset(key, mapping=fields)

    async def remember(self, partition: Partition, session_id: str, seen: Seen) -> None:
        """What a pass saw of a session, so that the next one reads nothing when that is all there is."""
        key = (await self._graph.keys(partition)).consolidated(session_id)
        fields: Any = {"count": seen.count, "last": seen.last, "rules": seen.rules}
        with store_errors("remembering a session"):
            await self._redis.hset(key, mapping=fields)


def _state(session_id: str, count: int, last: list[bytes], marker: list[bytes | None]) -> SessionState:
    before = None
    if marker[0] is not None and marker[1] is not None and marker[2] is not None:
        before = Seen(int(marker[0]), marker[1].decode(), marker[2].decode())
    facts, through = (value.decode() if value is not None else None for value in marker[3:5])
    again = int(marker[5] or 0)
    return SessionState(session_id, count, last[0].decode() if last else "", before, facts, through, again)
