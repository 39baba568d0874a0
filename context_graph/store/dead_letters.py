"""Dead letters: events that a stage gave up on, kept with everything needed to understand and re-drive them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import PartitionKeys


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a group gave up on an event. `id` names the dead letter within its partition."""

    id: str
    group: str
    position: Position
    event_id: str
    reason: str
    traceback: str
    deliveries: int


class DeadLetters:
    """The dead letters of any partition, oldest first."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def bury(
        self, partition: Partition, group: str, position: Position, *, event_id: str, reason: str, traceback: str,
        deliveries: int,
    ) -> None:  # fmt: skip
        """Record a dead letter and acknowledge the event to its group, in one transaction.

        Characters that UTF-8 cannot hold (a lone surrogate in a file name) are kept as escapes.
        """
        keys = PartitionKeys(partition)
        fields: Any = {
            "group": group,
            "position": str(position),
            "event_id": _storable(event_id),
            "reason": _storable(reason),
            "traceback": _storable(traceback),
            "deliveries": deliveries,
        }
        with store_errors("recording a dead letter"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.xadd(keys.dead_letters, fields)
                pipe.xack(keys.ledger, group, position.stream_id)
                await pipe.execute()

    async def count(self, partition: Partition) -> int:
        """How many there are."""
        with store_errors("counting dead letters"):
            count: Any = await self._redis.xlen(PartitionKeys(partition).dead_letters)
        return int(count)

    async def list(self, partition: Partition, *, after: str = "-", limit: int = 100) -> list[DeadLetter]:
        """Up to `limit` dead letters behind the id `after`, oldest first."""
        start = after if after == "-" else f"({after}"
        with store_errors("reading dead letters"):
            entries: Any = await self._redis.xrange(PartitionKeys(partition).dead_letters, start, "+", count=limit)
        return [
            DeadLetter(
                id=identifier.decode(),
                group=fields[b"group"].decode(),
                position=Position.parse(fields[b"position"].decode()),
                event_id=fields[b"event_id"].decode(),
                reason=fields[b"reason"].decode(),
                traceback=fields[b"traceback"].decode(),
                deliveries=int(fields[b"deliveries"]),
            )
            for identifier, fields in entries
        ]


def _storable(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
