"""What an erasure cannot make unreadable: events from before sealing was on, whose bytes stay in the stream.

Everything hides them, so they are only counted, for the certificate. An event on the subject's timeline is found by
that; one that is forgotten may have left the timelines of its person and of its session, and is found by the ledger's
list of the sessions that the subject is or was in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from context_graph.domain.erasure import Subject
from context_graph.domain.event import Envelope
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store import codec, sealing
from context_graph.store.connection import RedisClient
from context_graph.store.keys import GraphKeys, PartitionKeys

_PAGE = 500


class ClearText:
    """Counts in any partition; `ledger` and `derived` may be the same server."""

    def __init__(self, ledger: RedisClient, derived: RedisClient) -> None:
        self._ledger: Any = ledger
        self._derived: Any = derived

    async def among(self, partition: Partition, positions: Sequence[Position]) -> set[Position]:
        """Those of these events that are in the clear; one round trip."""
        return {position for position, _ in await self._read(partition, positions)}

    async def forgotten_of(
        self, keys: GraphKeys, subject: Subject, sessions: Sequence[str]
    ) -> tuple[set[Position], set[Position]]:
        """The subject's events of those of these sessions of which something is forgotten; those in the clear.

        Of a person's only those in the clear: whom a sealed one is about nobody can say. Of a session's all, sealed
        summaries too.
        """
        touched, found = set[Position](), set[Position]()
        for session_id in sessions:
            if not await self._derived.exists(keys.forgotten(session_id)):
                continue
            events, start = PartitionKeys(keys.partition).session_events(session_id), 0
            while ids := cast("list[bytes]", await self._ledger.lrange(events, start, start + _PAGE - 1)):
                start += len(ids)
                positions = [Position.of_stream_id(keys.partition.bucket, stream_id.decode()) for stream_id in ids]
                clear = await self._read(keys.partition, positions)
                found |= {position for position, body in clear if _is_of(codec.decode(body), subject)}
                if subject.kind == "session":
                    touched |= {*positions} - {position for position, _ in clear}
        return touched | found, found

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


def _is_of(envelope: Envelope, subject: Subject) -> bool:
    return not envelope.is_derived and (subject.kind == "session" or envelope.user_id == subject.id)


def _bodies(entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> Iterator[bytes]:
    return (values.get(b"e", b"") for _, values in entries)
