"""The ledger: append-only streams, one per partition, with deduplication and append in one script.

Owns what is durable: the stream, the ids, each session's order of arrival. It never changes or deletes an entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, cast

from context_graph.domain.event import EventId, LedgerEvent, SessionId
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store import codec
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import WAKE_CHANNEL, PartitionKeys

AppendStatus = Literal["created", "duplicate", "conflict"]


@dataclass(frozen=True, slots=True)
class Appendable:
    """An event ready to append: its id, its session, its canonical JSON."""

    event_id: EventId
    session_id: SessionId
    body: bytes


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of one event, and the position of the event of that id."""

    status: AppendStatus
    position: Position


class Ledger:
    """Appends to and reads from the streams of any partition."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        source = files("context_graph.store").joinpath("lua/append.lua").read_text()
        # redis-py's Script sends EVALSHA and loads the source again after NOSCRIPT (restart, SCRIPT FLUSH).
        self._append = redis.register_script(source)

    async def append(self, partition: Partition, events: Sequence[Appendable]) -> list[Appended]:
        """Append each event once; one answer per event, in order. All or nothing reaches the server in one script.

        Safe to repeat: what a lost answer left behind comes back as a duplicate. Raises StoreUnavailable.
        """
        if not events:
            return []
        keys = PartitionKeys(partition)
        names = [keys.ledger, keys.ids]
        lists: dict[str, int] = {}
        arguments: list[str | bytes | int] = [str(partition), WAKE_CHANNEL]
        for event in events:
            index = lists.get(event.session_id)
            if index is None:
                names.append(keys.session_events(event.session_id))
                index = lists[event.session_id] = len(names)
            arguments += (event.event_id, codec.content_hash(event.body), index, event.body)
        with store_errors("appending events"):
            flat = cast("list[bytes]", await self._append(keys=names, args=arguments))
        return [
            Appended(
                cast("AppendStatus", flat[i].decode()), Position.of_stream_id(partition.bucket, flat[i + 1].decode())
            )
            for i in range(0, len(flat), 2)
        ]

    async def position_of(self, partition: Partition, event_id: str) -> Position | None:
        """Where the event of that id stands, or None."""
        with store_errors("looking up an event"):
            known = cast("bytes | None", await self._redis.hget(PartitionKeys(partition).ids, event_id))
        return None if known is None else Position.of_stream_id(partition.bucket, known[16:].decode())

    async def get(self, partition: Partition, event_id: str) -> LedgerEvent | None:
        """The event of that id, or None."""
        position = await self.position_of(partition, event_id)
        if position is None:
            return None
        found = await self.at(partition, [position.stream_id])
        return found[0] if found else None

    async def at(self, partition: Partition, stream_ids: Sequence[str]) -> list[LedgerEvent]:
        """The events at these stream ids, in the order asked, those that exist; one round trip."""
        pipe = self._redis.pipeline(transaction=False)
        for stream_id in stream_ids:
            pipe.xrange(PartitionKeys(partition).ledger, stream_id, stream_id)
        with store_errors("reading events"):
            answers = await pipe.execute()
        return [decode_entry(partition, *entry) for entries in answers for entry in entries]

    async def after(self, partition: Partition, after: Position | None, limit: int) -> list[LedgerEvent]:
        """Up to `limit` events behind `after` (exclusive; None: from the beginning) in ledger order."""
        start = "-" if after is None else f"({after.stream_id}"
        with store_errors("reading events"):
            entries: Any = await self._redis.xrange(PartitionKeys(partition).ledger, start, "+", count=limit)
        return [decode_entry(partition, *entry) for entry in entries]

    async def first_after(self, partition: Partition, after: Position | None) -> Position | None:
        """The position of the next entry behind `after`, whatever it holds; None at the end."""
        start = "-" if after is None else f"({after.stream_id}"
        with store_errors("reading the ledger"):
            entries: Any = await self._redis.xrange(PartitionKeys(partition).ledger, start, "+", count=1)
        return Position.of_stream_id(partition.bucket, entries[0][0].decode()) if entries else None

    async def of_session(
        self, partition: Partition, session_id: str, after: Position | None, limit: int
    ) -> list[LedgerEvent]:
        """Up to `limit` events of a session behind `after`, in ledger order.

        The session's list is ordered, so the start is found by bisection: about log2(length) small reads.
        """
        key = PartitionKeys(partition).session_events(session_id)
        with store_errors("reading a session"):
            start = 0 if after is None else await self._first_behind(key, after)
            ids = cast("list[bytes]", await self._redis.lrange(key, start, start + limit - 1))
        return await self.at(partition, [stream_id.decode() for stream_id in ids])

    async def _first_behind(self, key: str, after: Position) -> int:
        low, high = 0, await self._redis.llen(key)
        while low < high:
            middle = (low + high) // 2
            found = cast("bytes | None", await self._redis.lindex(key, middle))
            if found is not None and Position.of_stream_id(after.bucket, found.decode()) <= after:
                low = middle + 1
            else:
                high = middle
        return low

    async def last(self, partition: Partition) -> Position | None:
        """The newest position of a partition, or None when it is empty."""
        with store_errors("reading the end of the ledger"):
            entries: Any = await self._redis.xrevrange(PartitionKeys(partition).ledger, count=1)
        return Position.of_stream_id(partition.bucket, entries[0][0].decode()) if entries else None

    async def length(self, partition: Partition) -> int:
        """Entries in the partition's stream."""
        with store_errors("counting events"):
            return await self._redis.xlen(PartitionKeys(partition).ledger)


def decode_entry(partition: Partition, stream_id: bytes, fields: dict[bytes, bytes]) -> LedgerEvent:
    """A stream entry as an event."""
    position = Position.of_stream_id(partition.bucket, stream_id.decode())
    return LedgerEvent(partition.tenant, position, codec.decode(fields[b"e"]))
