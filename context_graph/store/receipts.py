"""What the graph knows of receipts and of opinions on events: read here, written by `graph_records.py`.

An index of a receipt has one member for each, in the order of the ledger, so a page is a range of positions: exact,
without gap or repeat whatever comes in. A receipt stands in the partition of its session; an event may have been served
by receipts of any, so all of the tenant's partitions are asked, and merged by moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from context_graph.domain.graph import ReceiptsOf, split_member
from context_graph.domain.partition import Partition
from context_graph.domain.places import moment_key
from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.graph import Graph

Until = Callable[[int], Position]
"""The last position of a bucket that is looked at."""
_BEHIND = "\x7f"  # behind every id that the service gives a derived event; these begin with letters


@dataclass(frozen=True, slots=True)
class Listed:
    """A derived event as an index names it."""

    position: Position
    event_id: str


class ReceiptIndex:
    """Reads the indexes of any tenant."""

    def __init__(self, redis: RedisClient, graph: Graph) -> None:
        self._redis = redis
        self._graph = graph
        self._uses = redis.register_script(files("context_graph.store").joinpath("lua/read_uses.lua").read_text())

    async def before(
        self,
        partitions: Sequence[Partition],
        of: Sequence[tuple[ReceiptsOf, str]],
        limit: int,
        *,
        before: Position | None = None,
        until: Until | None = None,
    ) -> list[Listed]:
        """Up to `limit` receipts of any of these, newest first, each once; ahead of `before` (exclusive), by moment.

        `until`: at or ahead of that position of each bucket.
        """
        keys = [
            (partition, (await self._graph.keys(partition)).receipts(kind, identifier))
            for partition in partitions
            for kind, identifier in of
        ]
        found = await self._newest(keys, limit, before, until)
        return sorted(set(found), key=lambda listed: moment_key(listed.position), reverse=True)[:limit]

    async def newest_versions(
        self, partition: Partition, scopes: Sequence[str], until: Until | None
    ) -> dict[str, Listed]:
        """The newest summary of each scope that has one, at or ahead of a position; one round trip."""
        known = await self._graph.keys(partition)
        keys = [(partition, known.versions(scope)) for scope in scopes]
        found = await self._stretches(keys, 1, None, until)
        return {scope: listed[0] for scope, listed in zip(scopes, found, strict=True) if listed}

    async def _newest(
        self, keys: Sequence[tuple[Partition, str]], limit: int, before: Position | None, until: Until | None
    ) -> list[Listed]:
        return [listed for found in await self._stretches(keys, limit, before, until) for listed in found]

    async def _stretches(
        self, keys: Sequence[tuple[Partition, str]], limit: int, before: Position | None, until: Until | None
    ) -> list[list[Listed]]:
        pipe = self._redis.pipeline(transaction=False)
        for partition, key in keys:
            pipe.zrevrangebylex(key, upper_bound(partition, before, until), "-", start=0, num=limit)
        with store_errors("reading an index of receipts"):
            answers: list[list[bytes]] = await pipe.execute() if keys else []
        return [
            [Listed(*split_member(partition.bucket, member.decode())) for member in members]
            for (partition, _), members in zip(keys, answers, strict=True)
        ]

    async def uses(
        self, partitions: Sequence[Partition], ids: Sequence[str], until: Until | None = None
    ) -> dict[str, int]:
        """How much oftener each was said to have helped than not; of those with any opinion. One round trip.

        `until`: with the opinions recorded up to there; it reads every opinion on these instead of a sum.
        """
        if not ids:
            return {}
        pipe = self._redis.pipeline(transaction=False)
        for partition in partitions:
            keys = await self._graph.keys(partition)
            if until is None:
                await self._uses(keys=[keys.feedback("")], args=list(ids), client=pipe)
                continue
            for event_id in ids:
                pipe.hgetall(keys.feedback(event_id))
        with store_errors("reading feedback"):
            answers: list[Any] = await pipe.execute()
        if until is None:
            answers = [count for counts in answers for count in counts]
        uses: dict[str, int] = {}
        for place, answer in enumerate(answers):
            if answer:
                partition, event_id = partitions[place // len(ids)], ids[place % len(ids)]
                counted = int(answer) if until is None else _counted(answer, until(partition.bucket).sort_key)
                uses[event_id] = uses.get(event_id, 0) + counted
        return {event_id: count for event_id, count in uses.items() if count}


def upper_bound(partition: Partition, before: Position | None, until: Until | None) -> str:
    """The upper end (exclusive) of what lies ahead of `before` by (ms, seq, bucket), and not behind `until`."""
    ends = []
    if before is not None:
        ends.append(before.sort_key if partition.bucket >= before.bucket else before.sort_key + _BEHIND)
    if until is not None:
        ends.append(until(partition.bucket).sort_key + _BEHIND)
    return f"({min(ends)}" if ends else "+"


def _counted(fields: dict[bytes, bytes], until: str) -> int:
    """The sum of each receipt's newest verdict among the opinions up to a position (a sort key)."""
    newest: dict[str, tuple[str, int]] = {}
    for name, verdict in fields.items():
        text = name.decode()
        if text.startswith("at:") and text[3:20] <= until:
            at, receipt_id = text[3:20], text[20:]
            newest[receipt_id] = max(newest.get(receipt_id, ("", 0)), (at, int(verdict)))
    return sum(verdict for _, verdict in newest.values())
