"""Consumer groups on the ledger: reading, acknowledging, taking over from the dead, and knowing how far a group is.

A worker's life is a heartbeat key that expires (`worker_reports.py`). What a dead worker had read and not acknowledged
is taken over as soon as its heartbeat is gone, so a `kill -9` delays its events by seconds; what a living worker holds
is left alone unless it holds it for `stuck` milliseconds. Nothing leaves the pending list because the stream does not
hold it any more: Redis would drop such an entry silently, here it is told (`group_read.lua`, `group_claim.lua`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import time
from typing import Any

from redis.exceptions import ResponseError

from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient, slices, store_errors
from context_graph.store.entries import Entry, entry_of_flat
from context_graph.store.group_state import GroupState, is_absence, read_states
from context_graph.store.keys import WAKE_CHANNEL, PartitionKeys
from context_graph.store.scripts import PipelinedScript
from context_graph.store.wakes import Wakes
from context_graph.store.worker_reports import WorkerReports


@dataclass(frozen=True, slots=True)
class Orphan:
    """An entry taken over: how often it was delivered before, and its body, None when the stream has it no more.

    `own`: it was pending for the consumer itself, which lost sight of it and did not die of it.
    """

    position: Position
    deliveries: int
    entry: Entry | None
    own: bool = False


@dataclass(frozen=True, slots=True)
class Members:
    """A group's living members, and the seconds since any of them last took events (None: never)."""

    living: int
    idle_seconds: float | None


class Groups:
    """Consumer groups of any partition."""

    def __init__(self, redis: RedisClient, waiting: RedisClient) -> None:
        self._redis = redis
        self._waiting = waiting
        self._workers = WorkerReports(redis)
        self._read = PipelinedScript(redis, "group_read.lua")
        self._claim = PipelinedScript(redis, "group_claim.lua")
        self._drop = PipelinedScript(redis, "consumer_drop.lua")

    async def ensure(self, partition: Partition, group: str) -> None:
        """Create the group at the beginning of the ledger unless it is there."""
        with store_errors("creating a consumer group"):
            try:
                await self._redis.xgroup_create(PartitionKeys(partition).ledger, group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def read(
        self, partitions: Sequence[Partition], group: str, consumer: str, count: int, *, ordered: bool = False
    ) -> list[Entry]:
        """New entries of all the partitions, up to `count` of each, in one pipelined round; makes a missing group.

        What was trimmed before the group had read it is noted as a gap in the same step (`gaps.py`); when it must come
        first (`ordered`), nothing is read then.
        """
        calls = []
        for partition in partitions:
            keys = PartitionKeys(partition)
            calls.append(((keys.ledger, keys.gaps(group), keys.archived), (group, consumer, count, int(ordered))))
        with store_errors("reading the ledger"):
            answers = await self._read.run(calls)
            entries: list[Entry] = []
            for partition, answer in zip(partitions, answers, strict=True):
                if isinstance(answer, ResponseError) and "NOGROUP" in str(answer):
                    await self.ensure(partition, group)
                elif isinstance(answer, Exception):
                    raise answer
                else:
                    entries += [entry_of_flat(partition, *item) for item in answer]
        return entries

    async def acknowledge(self, partition: Partition, group: str, positions: Sequence[Position]) -> None:
        """The group is done with these."""
        if positions:
            with store_errors("acknowledging events"):
                await self._redis.xack(
                    PartitionKeys(partition).ledger, group, *(position.stream_id for position in positions)
                )

    async def reclaim(
        self, partition: Partition, group: str, consumer: str, *, held: Collection[Position], idle_ms: int,
        stuck_ms: int, count: int,
    ) -> list[Orphan]:  # fmt: skip
        """Take over up to `count` entries idle for `idle_ms` whose consumer is dead, and any idle for `stuck_ms`.

        `held` is what this consumer has in hand. Any other entry that is pending for it was delivered in an answer
        that never arrived, or not acknowledged because Redis was away: that is an orphan too.
        No delivery is counted here (`count_delivery`). An entry that the stream does not hold any more comes without
        a body and stays pending.
        """
        key = PartitionKeys(partition).ledger
        mine = {position.stream_id.encode() for position in held}
        orphans: dict[bytes, tuple[int, bool]] = {}
        start = "-"
        with store_errors("looking for orphaned events"):
            while len(orphans) < count:
                page = await self._pending(key, group, start, idle_ms, count)
                alive = await self._workers.alive(sorted({item["consumer"].decode() for item in page} - {consumer}))
                for item in page:
                    if item["consumer"] == consumer.encode():
                        orphaned = item["message_id"] not in mine
                    else:
                        orphaned = item["consumer"].decode() not in alive or item["time_since_delivered"] >= stuck_ms
                    if orphaned and len(orphans) < count:
                        own = item["consumer"] == consumer.encode()
                        orphans[item["message_id"]] = (int(item["times_delivered"]), own)
                if len(page) < count:
                    break
                start = f"({page[-1]['message_id'].decode()}"
            if not orphans:
                return []
            claimed, gone = await self._claim.one([key], [group, consumer, idle_ms, *orphans])
        found = [(raw, entry_of_flat(partition, raw, fields)) for raw, fields in claimed]
        bodies: list[tuple[bytes, Entry | None]] = [*found, *((raw, None) for raw in gone)]
        return [
            Orphan(Position.of_stream_id(partition.bucket, raw.decode()), orphans[raw][0], entry, own=orphans[raw][1])
            for raw, entry in bodies
        ]

    async def _pending(self, key: str, group: str, start: str, idle_ms: int, count: int) -> list[dict[str, Any]]:
        try:
            page: Any = await self._redis.xpending_range(key, group, start, "+", count, idle=idle_ms)
        except ResponseError as error:
            if "NOGROUP" in str(error):
                return []
            raise
        return list(page)

    async def count_delivery(
        self, partition: Partition, group: str, consumer: str, positions: Sequence[Position]
    ) -> None:
        """Count one more delivery of entries that this consumer holds and is about to handle."""
        if positions:
            with store_errors("counting a delivery"):
                ids: list[Any] = [position.stream_id for position in positions]
                await self._redis.xclaim(PartitionKeys(partition).ledger, group, consumer, 0, ids)

    async def set_deliveries(
        self, partition: Partition, group: str, consumer: str, positions: Sequence[Position], count: int
    ) -> None:
        """Put the number of deliveries of entries that this consumer holds."""
        if positions:
            with store_errors("taking a delivery back"):
                ids: list[Any] = [position.stream_id for position in positions]
                await self._redis.xclaim(
                    PartitionKeys(partition).ledger, group, consumer, 0, ids, retrycount=count, justid=True
                )

    async def leave(self, partition: Partition, group: str, consumer: str) -> None:
        """Remove a consumer that holds nothing; one that still does stays, so that its entries can be taken over.

        A group that does not exist has been left.
        """
        with store_errors("leaving a group"):
            await self._drop.one([PartitionKeys(partition).ledger], [group, consumer])

    async def drop_dead(self, partition: Partition, group: str, idle_ms: int) -> int:
        """Remove consumers without a heartbeat that hold nothing and were silent for `idle_ms`; how many they were."""
        [found] = await self._consumers([(partition, group)])
        idle = [one["name"].decode() for one in found if one["pending"] == 0 and one["idle"] >= idle_ms]
        alive = await self._workers.alive(idle)
        key = PartitionKeys(partition).ledger
        with store_errors("removing dead consumers"):
            answers = await self._drop.run([([key], [group, name]) for name in idle if name not in alive])
        return sum(answer for answer in answers if isinstance(answer, int))

    async def is_busy(self, partition: Partition, group: str) -> bool:
        """Whether a living member holds events that it has not finished."""
        [found] = await self._consumers([(partition, group)])
        held = [member["name"].decode() for member in found if member["pending"]]
        return bool(await self._workers.alive(held))

    async def remove(self, partition: Partition, group: str) -> None:
        """The group and all that is kept for it is gone; nobody may be a member any more."""
        keys = PartitionKeys(partition)
        with store_errors("removing a consumer group"):
            try:
                await self._redis.xgroup_destroy(keys.ledger, group)
            except ResponseError as error:
                if not is_absence(error) and "requires the key to exist" not in str(error):
                    raise
            await self._redis.unlink(
                keys.again(group), keys.tries(group), keys.parked(group), keys.gaps(group), keys.held(group)
            )

    async def let_go(self, partition: Partition, group: str, opened_by_ms: int, again_ms: int) -> bool:
        """Whether nobody holds an entry that was handed out up to `opened_by_ms` (ms UTC, the server's clock).

        `again_ms`: for how long an entry of the queue `again` is its taker's. False before that time has come.
        """
        keys = PartitionKeys(partition)
        with store_errors("looking for events in hand"):
            seconds, microseconds = await self._redis.time()
            older_ms = seconds * 1000 + microseconds // 1000 - opened_by_ms
            if older_ms <= 0:
                return False
            if await self._pending(keys.ledger, group, "-", older_ms, 1):
                return False
            taken: Any = await self._redis.zcount(keys.again(group), f"({_now_ms()}", opened_by_ms + again_ms)
        return int(taken) == 0

    async def names(self, partition: Partition) -> list[str]:
        """Every group that the partition's stream has."""
        with store_errors("reading the groups"):
            try:
                groups: Any = await self._redis.xinfo_groups(PartitionKeys(partition).ledger)
            except ResponseError as error:
                if not is_absence(error):
                    raise
                return []
        return [group["name"].decode() for group in groups]

    async def state(self, partition: Partition, group: str) -> GroupState:
        """How far the group is. A group that does not exist yet has the whole ledger before it."""
        [found] = await read_states(self._redis, [(partition, group)])
        return found

    async def states(self, groups: Sequence[tuple[Partition, str]]) -> list[GroupState]:
        """The same of many groups, in their order and in few round trips."""
        return await read_states(self._redis, groups)

    async def members(self, partition: Partition, group: str) -> Members:
        """The group's living members (those with a heartbeat), and how long ago one of them last took events."""
        [found] = await self.members_of([(partition, group)])
        return found

    async def members_of(self, groups: Sequence[tuple[Partition, str]]) -> list[Members]:
        """The same of many groups, in their order and in few round trips."""
        found = [consumers for some in slices(groups) for consumers in await self._consumers(some)]
        named = {member["name"].decode() for consumers in found for member in consumers}
        alive = await self._workers.alive(sorted(named))
        return [_members([member for member in consumers if member["name"].decode() in alive]) for consumers in found]

    async def _consumers(self, groups: Sequence[tuple[Partition, str]]) -> list[list[Any]]:
        pipe = self._redis.pipeline(transaction=False)
        for partition, group in groups:
            pipe.xinfo_consumers(PartitionKeys(partition).ledger, group)
        with store_errors("reading the groups' members"):
            answers: list[Any] = await pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception) and not is_absence(answer):
                    raise answer
        return [[] if isinstance(answer, Exception) else answer for answer in answers]

    @asynccontextmanager
    async def wakes(self) -> AsyncIterator[Wakes]:
        """A subscription to the ledger's notifications."""
        async with self._waiting.pubsub() as pubsub:
            with store_errors("subscribing to the ledger"):
                await pubsub.subscribe(WAKE_CHANNEL)
            yield Wakes(pubsub)


def _members(living: Sequence[Any]) -> Members:
    # `inactive` (Redis 7.2) is the time since events were last taken, -1 for never; `idle` counts empty reads too.
    idle = [member.get("inactive", member["idle"]) for member in living]
    taken = [milliseconds for milliseconds in idle if milliseconds >= 0]
    return Members(len(living), min(taken) / 1000 if taken else None)


def _now_ms() -> int:
    return int(time() * 1000)
