"""Consumer groups on the ledger: reading, acknowledging, taking over from the dead, and knowing how far a group is.

A worker's life is a heartbeat key that expires. What a dead worker had read and not acknowledged is taken over as soon
as its heartbeat is gone, so a `kill -9` delays its events by seconds; what a living worker holds is left alone unless
it holds it for `stuck` milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.upcast import UPCASTERS, Upcasters
from context_graph.errors import PermanentError
from context_graph.store import codec
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import WAKE_CHANNEL, PartitionKeys, worker_heartbeat


@dataclass(frozen=True, slots=True)
class Entry:
    """A ledger entry as a group delivered it: neither opened nor decoded, because that may be what fails."""

    partition: Partition
    position: Position
    body: bytes
    erased: bool = False
    """Opened, and what it said is gone (`store/vault.py`)."""

    def event(self, upcasters: Upcasters = UPCASTERS) -> LedgerEvent:
        """The entry decoded, in the newest schema version. Raises PermanentError when the bytes are not an envelope."""
        try:
            envelope = codec.decode(self.body)
            event = LedgerEvent(self.partition.tenant, self.position, envelope, erased=self.erased)
            return event if self.erased else upcasters.newest(event)
        except ValueError as error:
            raise PermanentError(f"the ledger entry at {self.position} is not an envelope: {error}") from error

    @property
    def event_id(self) -> str:
        """The event's id, whatever else is readable of the entry; empty when it is not an envelope."""
        known = codec.identity(self.body)
        return known[0] if known is not None else ""


@dataclass(frozen=True, slots=True)
class GroupState:
    """How far a group is in a partition: `lag` entries undelivered, `pending` delivered but not acknowledged."""

    lag: int
    pending: int
    oldest_pending_ms: int | None
    first_pending: Position | None
    last_delivered: Position | None
    consumers: int

    def has_passed(self, position: Position) -> bool:
        """Whether the group has finished everything up to and including `position`."""
        if self.last_delivered is None or self.last_delivered < position:
            return False
        return self.first_pending is None or self.first_pending > position


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

    async def ensure(self, partition: Partition, group: str) -> None:
        """Create the group at the beginning of the ledger unless it is there."""
        with store_errors("creating a consumer group"):
            try:
                await self._redis.xgroup_create(PartitionKeys(partition).ledger, group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def read(self, partitions: Sequence[Partition], group: str, consumer: str, count: int) -> list[Entry]:
        """New entries of all the partitions, up to `count` of each, in one pipelined round; makes a missing group."""
        pipe = self._redis.pipeline(transaction=False)
        for partition in partitions:
            pipe.xreadgroup(group, consumer, {PartitionKeys(partition).ledger: ">"}, count=count)
        with store_errors("reading the ledger"):
            answers: Any = await pipe.execute(raise_on_error=False)
            entries: list[Entry] = []
            for partition, answer in zip(partitions, answers, strict=True):
                if isinstance(answer, ResponseError) and "NOGROUP" in str(answer):
                    await self.ensure(partition, group)
                elif isinstance(answer, Exception):
                    raise answer
                else:
                    entries += [_entry(partition, *item) for _, items in answer for item in items]
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
    ) -> list[Entry]:  # fmt: skip
        """Take over up to `count` entries idle for `idle_ms` whose consumer is dead, and any idle for `stuck_ms`.

        `held` is what this consumer has in hand. Any other entry that is pending for it was delivered in an answer
        that never arrived, or not acknowledged because Redis was away: that is an orphan too.
        Entries that no longer exist in the stream leave the pending list here and are not returned.
        """
        key = PartitionKeys(partition).ledger
        mine = {position.stream_id.encode() for position in held}
        orphans: list[Any] = []
        start = "-"
        with store_errors("looking for orphaned events"):
            while len(orphans) < count:
                page = await self._pending(key, group, start, idle_ms, count)
                alive = await self._alive(sorted({item["consumer"] for item in page} - {consumer.encode()}))
                for item in page:
                    if item["consumer"] == consumer.encode():
                        orphaned = item["message_id"] not in mine
                    else:
                        orphaned = item["consumer"] not in alive or item["time_since_delivered"] >= stuck_ms
                    if orphaned:
                        orphans.append(item["message_id"])
                if len(page) < count:
                    break
                start = f"({page[-1]['message_id'].decode()}"
            if not orphans:
                return []
            claimed: Any = await self._redis.xclaim(key, group, consumer, idle_ms, orphans[:count])
        return [_entry(partition, *item) for item in claimed if item[1] is not None]

    async def _pending(self, key: str, group: str, start: str, idle_ms: int, count: int) -> list[dict[str, Any]]:
        try:
            page: Any = await self._redis.xpending_range(key, group, start, "+", count, idle=idle_ms)
        except ResponseError as error:
            if "NOGROUP" in str(error):
                return []
            raise
        return list(page)

    async def _alive(self, owners: Sequence[bytes]) -> set[bytes]:
        pipe = self._redis.pipeline(transaction=False)
        for owner in owners:
            pipe.exists(worker_heartbeat(owner.decode()))
        return {owner for owner, exists in zip(owners, await pipe.execute(), strict=True) if exists}

    async def redeliver(self, partition: Partition, group: str, consumer: str, position: Position) -> int:
        """Count one more delivery of an entry this consumer holds; returns how many there were."""
        key = PartitionKeys(partition).ledger
        with store_errors("counting a delivery"):
            await self._redis.xclaim(key, group, consumer, 0, [position.stream_id])
            found: Any = await self._redis.xpending_range(key, group, position.stream_id, position.stream_id, 1)
        return int(found[0]["times_delivered"]) if found else 0

    async def beat(self, consumer: str, lifetime_ms: int) -> None:
        """The worker lives: for `lifetime_ms` more."""
        with store_errors("the heartbeat"):
            await self._redis.set(worker_heartbeat(consumer), b"1", px=lifetime_ms)

    async def leave(self, partition: Partition, group: str, consumer: str) -> None:
        """Remove a consumer that holds nothing; one that still does stays, so that its entries can be taken over.

        A group that does not exist has been left.
        """
        key = PartitionKeys(partition).ledger
        with store_errors("leaving a group"):
            try:
                held: Any = await self._redis.xpending_range(key, group, "-", "+", 1, consumername=consumer)
                if not held:
                    await self._redis.xgroup_delconsumer(key, group, consumer)
            except ResponseError as error:
                if not _is_absence(error):
                    raise
            await self._redis.delete(worker_heartbeat(consumer))

    async def names(self, partition: Partition) -> list[str]:
        """Every group that the partition's stream has."""
        with store_errors("reading the groups"):
            try:
                groups: Any = await self._redis.xinfo_groups(PartitionKeys(partition).ledger)
            except ResponseError as error:
                if not _is_absence(error):
                    raise
                return []
        return [group["name"].decode() for group in groups]

    async def state(self, partition: Partition, group: str) -> GroupState:
        """How far the group is. A group that does not exist yet has the whole ledger before it."""
        key = PartitionKeys(partition).ledger
        pipe = self._redis.pipeline(transaction=False)
        pipe.xinfo_groups(key)
        pipe.xpending_range(key, group, "-", "+", 1)
        pipe.xlen(key)
        with store_errors("reading a group's state"):
            groups, pending, length = await pipe.execute(raise_on_error=False)
            for answer in (groups, pending, length):
                if isinstance(answer, Exception) and not _is_absence(answer):
                    raise answer
        mine = [g for g in groups if g["name"] == group.encode()] if isinstance(groups, list) else []
        if not mine:
            return GroupState(length if isinstance(length, int) else 0, 0, None, None, None, 0)
        info = mine[0]
        first = pending[0] if isinstance(pending, list) and pending else None
        return GroupState(
            lag=int(info["lag"]) if info["lag"] is not None else 0,
            pending=int(info["pending"]),
            oldest_pending_ms=int(first["time_since_delivered"]) if first else None,
            first_pending=Position.of_stream_id(partition.bucket, first["message_id"].decode()) if first else None,
            last_delivered=Position.of_stream_id(partition.bucket, info["last-delivered-id"].decode()),
            consumers=int(info["consumers"]),
        )

    async def members(self, partition: Partition, group: str) -> Members:
        """The group's living members (those with a heartbeat), and how long ago one of them last took events."""
        key = PartitionKeys(partition).ledger
        with store_errors("reading a group's members"):
            try:
                found: Any = await self._redis.xinfo_consumers(key, group)
            except ResponseError as error:
                if _is_absence(error):
                    return Members(0, None)
                raise
            alive = await self._alive([member["name"] for member in found])
        # `inactive` (Redis 7.2) is the time since events were last taken, -1 for never; `idle` counts empty reads too.
        idle = [member.get("inactive", member["idle"]) for member in found if member["name"] in alive]
        taken = [milliseconds for milliseconds in idle if milliseconds >= 0]
        return Members(len(alive), min(taken) / 1000 if taken else None)

    @asynccontextmanager
    async def wakes(self) -> AsyncIterator[Wakes]:
        """A subscription to the ledger's notifications."""
        async with self._waiting.pubsub() as pubsub:
            with store_errors("subscribing to the ledger"):
                await pubsub.subscribe(WAKE_CHANNEL)
            yield Wakes(pubsub)


class Wakes:
    """News that something was appended; several appends may be one piece of news."""

    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub

    async def wait(self, seconds: float) -> None:
        """Return at the next notification, or after `seconds`."""
        with store_errors("waiting for news"):
            try:
                async with asyncio.timeout(seconds):
                    while True:
                        message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=seconds)
                        if message is not None:
                            break
            except TimeoutError:
                return
            # One wake-up answers for all that arrived with it.
            while await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=0) is not None:
                continue


def _is_absence(error: Exception) -> bool:
    return isinstance(error, ResponseError) and ("no such key" in str(error) or "NOGROUP" in str(error))


def _entry(partition: Partition, stream_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    return Entry(partition, Position.of_stream_id(partition.bucket, stream_id.decode()), fields.get(b"e", b""))
