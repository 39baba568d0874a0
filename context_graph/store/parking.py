"""Events that wait behind a failed one of their session, for stages to which the order within a session matters.

Parked events are acknowledged and kept by place: they hold up neither other sessions nor the trimming of the stream. A
session waits while a dead letter of the stage holds it or anything of it is parked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.entries import Entry
from context_graph.store.keys import PartitionKeys


class Parking:
    """Parked events of any group."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def park(self, group: str, entries: Sequence[Entry]) -> None:
        """Let these of one partition wait: kept and acknowledged in one step."""
        if not entries:
            return
        keys = PartitionKeys(entries[0].partition)
        with store_errors("parking events"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.zadd(keys.parked(group), {_member(entry): 0 for entry in entries})
                pipe.xack(keys.ledger, group, *(entry.position.stream_id for entry in entries))
                pipe.zrem(keys.again(group), *(entry.position.sort_key for entry in entries))
                await pipe.execute()

    async def waiting(self, partition: Partition, group: str, sessions: Sequence[str]) -> set[str]:
        """Those of the sessions in which something is dead or parked."""
        if not sessions:
            return set()
        keys = PartitionKeys(partition)
        with store_errors("looking for waiting sessions"):
            pipe = self._redis.pipeline(transaction=False)
            for session in sessions:
                pipe.hexists(keys.held(group), session)
                pipe.zlexcount(keys.parked(group), *_range(session))
            answers = await pipe.execute()
        return {
            session for session, held, parked in zip(sessions, answers[::2], answers[1::2], strict=True)
            if held or parked
        }  # fmt: skip

    async def free(self, partition: Partition, group: str, busy: set[str]) -> tuple[str, Position] | None:
        """The first parked event of a session that nothing holds, with the session; None when all are held.

        `busy`: sessions in which the caller is trying something again. Looks past held sessions one by one, at most
        `_LOOKS` of them.
        """
        keys = PartitionKeys(partition)
        start = b"-"
        with store_errors("looking for freed sessions"):
            for _ in range(_LOOKS):
                found: Any = await self._redis.zrangebylex(keys.parked(group), start, b"+", start=0, num=1)
                if not found:
                    return None
                session = found[0].rpartition(b"\0")[0].decode()
                if session not in busy and not await self._redis.hexists(keys.held(group), session):
                    return session, Position.of_sort_key(partition.bucket, found[0].rpartition(b"\0")[2].decode())
                start = _range(session)[1]
        return None

    async def count_delivery(self, partition: Partition, group: str, positions: Sequence[Position]) -> None:
        """Count a delivery of each."""
        with store_errors("counting a delivery"):
            pipe = self._redis.pipeline(transaction=False)
            for position in positions:
                pipe.hincrby(PartitionKeys(partition).tries(group), position.sort_key, 1)
            await pipe.execute()

    async def deliveries(self, partition: Partition, group: str, position: Position) -> int:
        """How often a parked event was delivered."""
        with store_errors("reading a count of deliveries"):
            count: Any = await self._redis.hget(PartitionKeys(partition).tries(group), position.sort_key)
        return int(count or 0)

    async def done(self, group: str, entries: Sequence[Entry]) -> None:
        """These of one partition were handled."""
        if not entries:
            return
        keys = PartitionKeys(entries[0].partition)
        with store_errors("finishing parked events"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.zrem(keys.parked(group), *(_member(entry) for entry in entries))
                pipe.hdel(keys.tries(group), *(entry.position.sort_key for entry in entries))
                await pipe.execute()

    async def count(self, partition: Partition, group: str, session: str | None = None) -> int:
        """Parked events of a group, or of one of its sessions."""
        key = PartitionKeys(partition).parked(group)
        with store_errors("counting parked events"):
            if session is None:
                return int(await self._redis.zcard(key))
            return int(await self._redis.zlexcount(key, *_range(session)))


_LOOKS = 256


def _member(entry: Entry) -> str:
    return f"{entry.session_id}\0{entry.position.sort_key}"


def _range(session: str) -> tuple[bytes, bytes]:
    """The bounds of a session's members; ids have no control characters, so nothing else is between."""
    return b"[" + session.encode() + b"\0", b"(" + session.encode() + b"\x01"
