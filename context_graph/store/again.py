"""Entries that a group gets once more, out of their turn: re-driven dead letters, what only the archive still has, and
what was done in part because something is away.

A sorted set holds their places; the entries stay where they are, in stream or archive. Whoever takes some has them for
a bounded time, after which they are anybody's: a worker that dies with them delays them. Each taking is a delivery and
counted, and of entries that were taken before only one comes at a time: an event that kills its worker is alone when
it does so for the second time, and known by its count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import time

from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import PartitionKeys
from context_graph.store.scripts import PipelinedScript


@dataclass(frozen=True, slots=True)
class Taken:
    """An entry's place, the number of this delivery, and the dead letter that it comes from (empty: none)."""

    position: Position
    deliveries: int
    letter: str


class Again:
    """The queue of any group."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._take = PipelinedScript(redis, "again_take.lua")

    async def take(
        self, partitions: Sequence[Partition], group: str, *, count: int, lease_ms: int, suspects: int = 1
    ) -> list[tuple[Partition, list[Taken]]]:
        """Up to `count` of each partition for `lease_ms`, of those taken before at most `suspects`; one round trip."""
        calls = []
        for partition in partitions:
            keys = PartitionKeys(partition)
            calls.append(((keys.again(group), keys.tries(group), keys.dead_places), (group, lease_ms, count, suspects)))
        with store_errors("taking entries once more"):
            answers = await self._take.run(calls)
        taken = []
        for partition, answer in zip(partitions, answers, strict=True):
            if isinstance(answer, Exception):
                raise answer
            if answer:
                taken.append((partition, [_taken(partition, *answer[i : i + 3]) for i in range(0, len(answer), 3)]))
        return taken

    async def defer(self, partition: Partition, group: str, position: Position, due_ms: int) -> None:
        """It failed: to be taken from `due_ms` (milliseconds since the epoch) on."""
        with store_errors("deferring an entry"):
            await self._redis.zadd(PartitionKeys(partition).again(group), {position.sort_key: due_ms}, xx=True)

    async def put_back(self, partition: Partition, group: str, positions: Sequence[Position]) -> None:
        """Taken, and not finished through no fault of theirs: to be taken at any time, as if never delivered."""
        if not positions:
            return
        keys = PartitionKeys(partition)
        members = [position.sort_key for position in positions]
        with store_errors("putting entries back"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.zadd(keys.again(group), dict.fromkeys(members, 0), xx=True)
                pipe.hdel(keys.tries(group), *members)
                await pipe.execute()

    async def recount(self, partition: Partition, group: str, positions: Sequence[Position], lease_ms: int) -> None:
        """Count a delivery of entries in hand, and have them for `lease_ms` more."""
        keys = PartitionKeys(partition)
        due = int(time() * 1000) + lease_ms
        with store_errors("counting a delivery"):
            pipe = self._redis.pipeline(transaction=False)
            for position in positions:
                pipe.hincrby(keys.tries(group), position.sort_key, 1)
                pipe.zadd(keys.again(group), {position.sort_key: due}, xx=True)
            await pipe.execute()

    async def uncount(self, partition: Partition, group: str, positions: Sequence[Position]) -> None:
        """An outage: this delivery did not happen."""
        with store_errors("taking a delivery back"):
            pipe = self._redis.pipeline(transaction=False)
            for position in positions:
                pipe.hincrby(PartitionKeys(partition).tries(group), position.sort_key, -1)
            await pipe.execute()

    async def move(self, partition: Partition, group: str, positions: Sequence[Position]) -> None:
        """From the pending list to the queue, in one step: the stream does not hold them any more, or they wait."""
        keys = PartitionKeys(partition)
        with store_errors("queueing entries"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.zadd(keys.again(group), {position.sort_key: 0 for position in positions}, nx=True)
                pipe.xack(keys.ledger, group, *(position.stream_id for position in positions))
                await pipe.execute()


def _taken(partition: Partition, key: bytes, deliveries: int, letter: bytes) -> Taken:
    return Taken(Position.of_sort_key(partition.bucket, key.decode()), int(deliveries), letter.decode())
