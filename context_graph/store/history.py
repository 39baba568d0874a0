"""A partition's entries from the first to the newest, wherever they are: archive, then stream, as one sequence.

`trimmed` in Redis says up to where the stream was cut; it changes in the same script as the stream. A reader asks for
stream entries first and for `trimmed` after them, in one round trip: whatever was cut away meanwhile is then known to
be in the archive. Where nothing was trimmed, nothing but that one field is read beside the stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.errors import ConfigurationError
from context_graph.store.archive import Archive
from context_graph.store.archive_segments import RawEntry
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import PartitionKeys

TRIMMED = "trimmed"
ARCHIVED = "archived"
_BATCH = 1000  # entries of a replay's batch from the stream


class History:
    """Raw entries of any partition, from archive and stream."""

    def __init__(self, redis: RedisClient, archive: Archive | None) -> None:
        self._redis = redis
        self._archive = archive

    async def after(self, partition: Partition, after: Position | None, limit: int) -> list[RawEntry]:
        """Up to `limit` entries behind `after` (exclusive; None: from the first ever) in ledger order.

        Raises StoreUnavailable (ArchiveUnavailable is one), ArchiveDamaged, ConfigurationError without an archive
        where entries were trimmed.
        """
        keys = PartitionKeys(partition)
        pipe = self._redis.pipeline(transaction=False)
        pipe.xrange(keys.ledger, "-" if after is None else f"({after.stream_id}", "+", count=limit)
        pipe.hget(keys.archived, TRIMMED)
        with store_errors("reading events"):
            hot, raw = await pipe.execute()
        trimmed = _position(partition, raw)
        if trimmed is None or (after is not None and after >= trimmed):
            return list(hot)
        archived = await self._opened(partition).between(partition, after, trimmed, limit)
        left = limit - len(archived)
        return archived + [entry for entry in hot if _at(partition, entry) > trimmed][:left] if left else archived

    async def before(self, partition: Partition, before: Position, limit: int) -> list[RawEntry]:
        """Up to `limit` entries ahead of `before` (exclusive), newest first. Raises what `after` raises."""
        if before.ms == before.seq == 0:
            return []  # Redis refuses a range that ends ahead of its first possible id
        keys = PartitionKeys(partition)
        pipe = self._redis.pipeline(transaction=False)
        pipe.xrevrange(keys.ledger, f"({before.stream_id}", "-", count=limit)
        pipe.hget(keys.archived, TRIMMED)
        with store_errors("reading events"):
            hot, raw = await pipe.execute()
        trimmed = _position(partition, raw)
        if trimmed is None or len(hot) == limit:
            return list(hot)
        found = [entry for entry in hot if _at(partition, entry) > trimmed]
        return found + await self._opened(partition).before(partition, before, trimmed, limit - len(found))

    async def at(self, partition: Partition, stream_ids: Sequence[str]) -> list[RawEntry]:
        """The entries at these stream ids, in the order asked, those that exist; one round trip for those in Redis."""
        if not stream_ids:
            return []
        ledger = PartitionKeys(partition).ledger
        pipe = self._redis.pipeline(transaction=False)
        for stream_id in stream_ids:
            pipe.xrange(ledger, stream_id, stream_id)
        with store_errors("reading events"):
            answers: list[list[RawEntry]] = await pipe.execute()
        if not all(answers):
            await self._fill(partition, stream_ids, answers)
        return [entry for entries in answers for entry in entries]

    async def _fill(self, partition: Partition, stream_ids: Sequence[str], answers: list[list[RawEntry]]) -> None:
        """Put what the stream does not hold any more where its answer is empty."""
        trimmed = await self.trimmed(partition)
        if trimmed is None:
            return
        asked = [
            (index, position)
            for index, answer in enumerate(answers)
            if not answer and (position := Position.of_stream_id(partition.bucket, stream_ids[index])) <= trimmed
        ]
        if asked:
            found = await self._opened(partition).at(partition, [position for _, position in asked], trimmed)
            for (index, _), entry in zip(asked, found, strict=True):
                answers[index] = [] if entry is None else [entry]

    async def anywhere(self, partition: Partition, positions: Sequence[Position]) -> list[RawEntry]:
        """The entries at these places that stream or archive hold, whoever has trimmed the stream.

        Raises StoreUnavailable, ArchiveDamaged, ConfigurationError without an archive where one has some of them.
        """
        pipe = self._redis.pipeline(transaction=False)
        for position in positions:
            pipe.xrange(PartitionKeys(partition).ledger, position.stream_id, position.stream_id)
        with store_errors("reading events"):
            answers: list[list[RawEntry]] = await pipe.execute() if positions else []
        missing = [position for position, answer in zip(positions, answers, strict=True) if not answer]
        end = await self._archive_end(partition, min(missing)) if missing else None
        found = [entry for entries in answers for entry in entries]
        asked = [position for position in missing if end is not None and position <= end]
        if asked and end is not None:
            found += [e for e in await self._opened(partition).at(partition, asked, end) if e is not None]
        return found

    async def archived_between(
        self, partition: Partition, after: Position, until: Position, limit: int
    ) -> list[RawEntry]:
        """Up to `limit` entries behind `after` up to `until` that the archive holds. Raises what `anywhere` raises."""
        end = await self._archive_end(partition, after)
        if end is None or after >= end:
            return []
        return await self._opened(partition).between(partition, after, min(end, until), limit)

    async def _archive_end(self, partition: Partition, wanted: Position) -> Position | None:
        """The last archived position; None when there is nothing, and nobody has trimmed what is `wanted` into it."""
        if self._archive is not None:
            return (await self._archive.refresh(partition)).end
        trimmed = await self.trimmed(partition)
        if trimmed is not None and trimmed > wanted:
            self._opened(partition)
        return None

    async def replay(self, partition: Partition, after: Position | None) -> AsyncIterator[list[RawEntry]]:
        """Every entry behind `after` in ledger order in batches, up to the newest when the last batch is read.

        What is archived is read by whole segments, checked against their SHA-256; what is appended while the replay
        goes on comes too. The batches may be of any length but zero.
        """
        while True:
            trimmed = await self.trimmed(partition)
            if trimmed is not None and (after is None or after < trimmed):
                async for records in self._opened(partition).records(partition, after, trimmed):
                    after = _at(partition, records[-1].entry)
                    yield [record.entry for record in records]
                after = trimmed if after is None else max(after, trimmed)
            entries = await self.after(partition, after, _BATCH)
            if not entries:
                return
            after = _at(partition, entries[-1])
            yield entries

    async def archived_through(self, partition: Partition) -> Position | None:
        """The last position that was archived, or None when none ever was."""
        with store_errors("reading how far the ledger is archived"):
            raw: Any = await self._redis.hget(PartitionKeys(partition).archived, ARCHIVED)
        return _position(partition, raw)

    async def trimmed(self, partition: Partition) -> Position | None:
        """The last position that the stream no longer holds, or None."""
        with store_errors("reading how far the ledger is trimmed"):
            raw: Any = await self._redis.hget(PartitionKeys(partition).archived, TRIMMED)
        return _position(partition, raw)

    def _opened(self, partition: Partition) -> Archive:
        if self._archive is None:
            raise ConfigurationError(
                f"older events of {partition} are in the archive, and this process has none: set CG_ARCHIVE__URL"
            )
        return self._archive


def _position(partition: Partition, raw: bytes | None) -> Position | None:
    return None if raw is None else Position.of_stream_id(partition.bucket, raw.decode())


def _at(partition: Partition, entry: RawEntry) -> Position:
    return Position.of_stream_id(partition.bucket, entry[0].decode())
