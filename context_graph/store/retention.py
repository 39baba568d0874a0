"""What forgetting asks of Redis: the tenant's policy, a session's events that are in the graph, when to look again.

An unchanged session costs five small commands in a pipeline shared by a page of sessions until an event of it changes
its tier. The marks are derived: lost with their generation, they cost one look at every session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

import orjson
from redis.exceptions import ResponseError

from context_graph.domain.document import filter_tag
from context_graph.domain.event import TenantId
from context_graph.domain.forgetting import Place
from context_graph.domain.partition import Partition
from context_graph.domain.retention import ForgettingPolicy
from context_graph.domain.text import SUMMARY_ID_PREFIX, session_scope
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.documents import IMPORTANCE, KIND, RECORDED, SESSION, STORED
from context_graph.store.graph import Graph
from context_graph.store.index_state import is_missing_index
from context_graph.store.keys import PartitionKeys, forgetting_policy

_PAGE = 500
_MOST_SESSIONS = 1000


class Policies:
    """The policy of any tenant. `redis` is the ledger's."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def get(self, tenant: TenantId) -> ForgettingPolicy:
        """The one in force; nothing is forgotten by the one that nobody set. Raises StoreUnavailable."""
        with store_errors("reading the policy of forgetting"):
            raw: Any = await self._redis.get(forgetting_policy(tenant))
        return ForgettingPolicy() if raw is None else ForgettingPolicy(**orjson.loads(raw))

    async def put(self, tenant: TenantId, policy: ForgettingPolicy) -> ForgettingPolicy:
        """In force from the next pass on; its version counts on where it differs."""
        known = await self.get(tenant)
        policy = replace(policy, version=known.version)
        if policy != known:
            policy = replace(policy, version=known.version + 1)
            with store_errors("keeping the policy of forgetting"):
                await self._redis.set(forgetting_policy(tenant), orjson.dumps(asdict(policy)))
        return policy


@dataclass(frozen=True, slots=True)
class HeldEvent:
    """An event on a session's timeline. `importance` is None where the index does not hold it."""

    event_id: str
    place: Place
    importance: int | None
    uses: int


@dataclass(frozen=True, slots=True)
class Mark:
    """What a look at a session found: the policy, the events and the decisions there were, its events by tier.

    `again`: when it has to be looked at although nothing happened, ms UTC.
    """

    policy: int
    count: int
    last: str
    decisions: int
    again: int
    tiers: Mapping[str, int]
    share: float = 0.0
    """What share of a forgotten episode might stay."""
    summary: str = ""
    """Sort key of the newest summary."""
    rests: int | None = None
    """Nothing is left of the session but what stays, and its summary may go: since when it rests, ms UTC. -1: it may
    not; None: nobody has looked."""


@dataclass(frozen=True, slots=True)
class Look:
    """A session now, and the last mark."""

    session_id: str
    count: int
    last: str
    decisions: int
    mark: Mark | None
    summary: str = ""

    def is_due(self, policy: ForgettingPolicy, now: int, share: float) -> bool:
        """Whether there may be something to decide. `share`: of a forgotten episode that may stay now."""
        mark = self.mark
        return (
            mark is None
            or mark.rests is None
            or now >= mark.again
            or mark.share > share
            or (mark.policy, mark.count, mark.last, mark.decisions, mark.summary)
            != (policy.version, self.count, self.last, self.decisions, self.summary)
        )


class RetentionStore:
    """Of the generation that `graph` reads. `ledger` is the ledger's Redis."""

    def __init__(self, redis: RedisClient, graph: Graph, ledger: RedisClient) -> None:
        self._redis = redis
        self._graph = graph
        self._ledger = ledger
        self._command: Any = redis.execute_command

    async def looks(self, partition: Partition, session_ids: Sequence[str]) -> list[Look]:
        """In the order asked; one round trip."""
        keys = await self._graph.keys(partition)
        pipe = self._redis.pipeline(transaction=False)
        for session_id in session_ids:
            timeline = keys.timeline("session", session_id)
            pipe.zcard(timeline)
            pipe.zrange(timeline, -1, -1)
            pipe.hlen(keys.forgotten(session_id))
            pipe.hget(keys.retention(session_id), "mark")
            pipe.hget(keys.summary(session_scope(session_id)), "order")
        with store_errors("looking at sessions"):
            answers: list[Any] = await pipe.execute() if session_ids else []
        return [
            Look(session_id, count, last[0].decode() if last else "", decisions, _mark(raw), (summary or b"").decode())
            for session_id, (count, last, decisions, raw, summary) in zip(
                session_ids, (answers[5 * i : 5 * i + 5] for i in range(len(session_ids))), strict=True
            )
        ]

    async def remember(self, partition: Partition, marks: Mapping[str, Mark]) -> None:
        """By session; one round trip."""
        keys = await self._graph.keys(partition)
        pipe = self._redis.pipeline(transaction=False)
        for session_id, mark in marks.items():
            pipe.hset(keys.retention(session_id), "mark", orjson.dumps(astuple(mark)))
        with store_errors("remembering sessions"):
            if marks:
                await pipe.execute()

    async def held(self, partition: Partition, session_id: str) -> list[HeldEvent]:
        """Every event on a session's timeline in order, forgotten ones too."""
        keys = await self._graph.keys(partition)
        found: list[HeldEvent] = []
        while page := await self._graph.timeline(partition, "session", session_id, start=len(found), limit=_PAGE):
            pipe = self._redis.pipeline(transaction=False)
            for entry in page:
                pipe.hget(keys.document(entry.event_id), STORED[IMPORTANCE])
                pipe.hget(keys.feedback(entry.event_id), "uses")
            with store_errors("reading a session's events"):
                answers: list[Any] = await pipe.execute()
            for i, entry in enumerate(page):
                importance, uses = answers[2 * i], answers[2 * i + 1]
                place = Place(entry.occurred_at, entry.position.sort_key)
                rated = None if importance is None else int(importance)
                found.append(HeldEvent(entry.event_id, place, rated, int(uses or 0)))
        return found

    async def summary_uses(self, partition: Partition, sessions: Sequence[str]) -> list[int]:
        """How often each of these sessions' summaries helped, by feedback."""
        keys, found = await self._graph.keys(partition), []
        for start in range(0, len(sessions), _PAGE):
            pipe = self._redis.pipeline(transaction=False)
            for session_id in sessions[start : start + _PAGE]:
                pipe.hget(keys.feedback(SUMMARY_ID_PREFIX + session_scope(session_id)), "uses")
            with store_errors("reading the uses of summaries"):
                found += [int(uses or 0) for uses in await pipe.execute()]
        return found

    async def sessions_with_dead_letters(self, partition: Partition, groups: Sequence[str]) -> set[str]:
        """Sessions of which a stage gave an event up: the graph does not show all of them."""
        keys = PartitionKeys(partition)
        pipe = self._ledger.pipeline(transaction=False)
        for group in groups:
            pipe.hkeys(keys.held(group))
        with store_errors("reading the dead letters' sessions"):
            answers: list[Any] = await pipe.execute()
        return {name.decode() for names in answers for name in names}

    async def tell(self, partition: Partition, numbers: Mapping[str, int]) -> None:
        """What a pass counted, for metrics and triggers."""
        key = (await self._graph.keys(partition)).consolidation
        fields: Any = dict(numbers)
        with store_errors("keeping what a pass counted"):
            if fields:
                await self._redis.hset(key, mapping=fields)

    async def count(self, partition: Partition, more: Mapping[str, int], numbers: Mapping[str, int]) -> None:
        """Add to what was counted, and keep other numbers."""
        key = (await self._graph.keys(partition)).consolidation
        pipe = self._redis.pipeline(transaction=False)
        for name, count in more.items():
            pipe.hincrby(key, name, count)
        for name, number in numbers.items():
            pipe.hset(key, name, number)
        with store_errors("counting passes"):
            await pipe.execute()

    async def new_importance(self, partition: Partition, since: int) -> dict[str, int]:
        """The importance of events recorded behind `since` (ms) by their session's `filter_tag`, the highest first.

        Of at most 1,000 sessions; one aggregation over what the text index holds.
        """
        keys = await self._graph.keys(partition)
        query = f"@{RECORDED}:[({since} +inf] @{KIND}:{{{filter_tag('event')}}}"
        load = ("LOAD", 2, f"@{IMPORTANCE}", f"@{SESSION}")
        group = ("GROUPBY", 1, f"@{SESSION}", "REDUCE", "SUM", 1, f"@{IMPORTANCE}", "AS", "total")
        order = ("SORTBY", 2, "@total", "DESC", "MAX", _MOST_SESSIONS)
        with store_errors("adding up what is new"):
            try:
                answer: Any = await self._command(
                    "FT.AGGREGATE", keys.text_index, query, *load, *group, *order, "DIALECT", 2
                )
            except ResponseError as error:
                if is_missing_index(error):
                    return {}
                raise
        rows = (dict(zip(row[::2], row[1::2], strict=True)) for row in answer[1:])
        return {row[SESSION.encode()].decode(): int(float(row[b"total"])) for row in rows}

    async def told(self, partition: Partition) -> dict[str, int]:
        """What the passes counted; empty before the first one."""
        with store_errors("reading what the passes counted"):
            found: Any = await self._redis.hgetall((await self._graph.keys(partition)).consolidation)
        return {name.decode(): int(value) for name, value in found.items()}


def _mark(raw: bytes | None) -> Mark | None:
    """None too for one that an earlier version wrote, by the names of its fields: the session is looked at."""
    numbers: Any = None if raw is None else orjson.loads(raw)
    return Mark(*numbers) if isinstance(numbers, list) else None
