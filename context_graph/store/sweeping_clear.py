"""What an erasure cannot make unreadable: events from before sealing was on, whose bytes stay in the stream.

Everything hides them, so they are only counted, for the certificate. An event on the subject's timeline is found by
that; one that is forgotten has left its person's timeline, and is found by the sessions which that person is in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from context_graph.domain.graph import split_member
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store import codec, sealing
from context_graph.store.connection import RedisClient
from context_graph.store.keys import GraphKeys, PartitionKeys

_PAGE = 500


class ClearText:
    """Counts in any partition; `ledger` and `derived` may be the same server."""

    def __init__(self, ledger: RedisClient, derived: RedisClient) -> None:
        self._ledger = ledger
        self._derived: Any = derived

    async def among(self, partition: Partition, positions: Sequence[Position]) -> set[Position]:
        """Those of these events that are in the clear; one round trip."""
        return {position for position, _ in await self._read(partition, positions)}

    async def forgotten_of(self, keys: GraphKeys, user_id: str, sessions: Sequence[str]) -> set[Position]:
        """The events about a person, in the clear, of those of these sessions of which something is forgotten."""
        found: set[Position] = set()
        for session_id in sessions:
            if not await self._derived.exists(keys.forgotten(session_id)):
                continue
            timeline, start = keys.timeline("session", session_id), 0
            while members := cast("list[bytes]", await self._derived.zrange(timeline, start, start + _PAGE - 1)):
                start += len(members)
                positions = [split_member(keys.partition.bucket, member.decode())[0] for member in members]
                clear = await self._read(keys.partition, positions)
                found |= {position for position, body in clear if codec.decode(body).user_id == user_id}
        return found

    async def _read(self, partition: Partition, positions: Sequence[Position]) -> list[tuple[Position, bytes]]:
        pipe = self._ledger.pipeline(transaction=False)
        for position in positions:
            pipe.xrange(PartitionKeys(partition).ledger, position.stream_id, position.stream_id)
        answers = await pipe.execute() if positions else []
        return [
            (position, body)
            for position, entries in zip(positions, answers, strict=True)
            for body in _bodies(entries)
            if not sealing.is_sealed(body)
        ]


def _bodies(entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> Iterator[bytes]:
    return (values.get(b"e", b"") for _, values in entries)
