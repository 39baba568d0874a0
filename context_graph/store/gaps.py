"""Stretches of the ledger that were trimmed before a group had read them, and what becomes of each.

`group_read.lua` notes a gap in the step in which the group passes it. Here it is closed: what the archive holds of it
goes into the group's queue of entries to deliver once more (`again.py`), a page at a time, and the place reached is
written in the same step as the page, so a worker that dies in between repeats nothing and skips nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import PartitionKeys


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries behind `after` up to `until` that the stream lost unread: `expected` of them, -1 where it is unknown."""

    after: Position
    until: Position
    expected: int
    found: int = 0
    problem: str = ""

    @property
    def lost(self) -> int:
        """Events that were not found, at least: 1 where their number is unknown and none was found."""
        return max(self.expected - self.found, 0) if self.expected >= 0 else int(self.found == 0)


class Gaps:
    """The gaps of any group."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def open(self, partition: Partition, group: str) -> list[Gap]:
        """Those not closed yet, oldest first."""
        with store_errors("reading gaps"):
            found: Any = await self._redis.hgetall(PartitionKeys(partition).gaps(group))
        return sorted(
            (_gap(partition, until, raw) for until, raw in found.items()), key=lambda gap: (gap.until, gap.after)
        )

    async def waiting(self, partition: Partition, group: str) -> int:
        """Entries in the group's queue."""
        with store_errors("counting entries to deliver again"):
            return int(await self._redis.zcard(PartitionKeys(partition).again(group)))

    async def found(
        self, partition: Partition, group: str, gap: Gap, positions: Sequence[Position], *, queue: bool
    ) -> Gap:
        """Queue these entries of the gap (or they are kept elsewhere), which goes on behind the last of them."""
        left = replace(gap, after=positions[-1], found=gap.found + len(positions), problem="")
        keys = PartitionKeys(partition)
        with store_errors("queueing archived events"):
            async with self._redis.pipeline(transaction=True) as pipe:
                if queue:
                    pipe.zadd(keys.again(group), {position.sort_key: 0 for position in positions}, nx=True)
                pipe.hset(keys.gaps(group), gap.until.stream_id, _packed(left))
                await pipe.execute()
        return left

    async def note(self, partition: Partition, group: str, gap: Gap) -> None:
        """Keep why a gap cannot be closed now, or one that is to be looked into again."""
        with store_errors("keeping a gap"):
            await self._redis.hset(PartitionKeys(partition).gaps(group), gap.until.stream_id, _packed(gap))

    async def close(self, partition: Partition, group: str, gap: Gap) -> None:
        """Everything of it is queued, or told as lost."""
        with store_errors("closing a gap"):
            await self._redis.hdel(PartitionKeys(partition).gaps(group), gap.until.stream_id)


def _packed(gap: Gap) -> bytes:
    return orjson.dumps(
        {"after": gap.after.stream_id, "expected": gap.expected, "found": gap.found, "problem": gap.problem}
    )


def _gap(partition: Partition, until: bytes, raw: bytes) -> Gap:
    known: Any = orjson.loads(raw)
    bucket = partition.bucket
    after, last = (Position.of_stream_id(bucket, text) for text in (known["after"], until.decode()))
    return Gap(after, last, known["expected"], known["found"], known["problem"])
