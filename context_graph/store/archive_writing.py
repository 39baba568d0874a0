"""Moving old entries from a partition's stream to the archive: one pass, under the partition's lease.

The order is the safety. A segment is written, read back and verified; then the keys it needs (`archive_keys.py`); then
its manifest is written, which makes it exist; much later, when every group has passed it and the retention is over, its
file is verified once more and only then the stream is cut behind it. A crash between two steps leaves a file without a
manifest, which the next attempt writes again, or a segment that is in both places, which readers never see twice.
Nothing is cut by a guess: whatever does not fit (a damaged manifest, a missing file, a stream that does not continue
the archive) stops the pass with ArchiveDamaged and leaves the stream as it is.

An entry is archived when it is older than `settle_ms`: with the fast profile a crash of Redis may take back the last
second, and the archive must not be ahead of the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import structlog

from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.domain.stages import stages_of
from context_graph.errors import ArchiveDamaged, TemporaryError
from context_graph.store import archive_segments as segments
from context_graph.store import codec
from context_graph.store.archive import Archive, Catalogue
from context_graph.store.archive_continuity import continuity
from context_graph.store.archive_keys import ArchivedKeys, key_file
from context_graph.store.archive_segments import Manifest, RawEntry, Record
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.generations import Generations
from context_graph.store.history import ARCHIVED, TRIMMED
from context_graph.store.keys import PartitionKeys
from context_graph.store.leases import Lease, Leases

LEASE = "archive"
_LEASE_MS = 120_000  # longer than the slowest step, a segment's way to an object store and back
_PAGE = 200  # entries read at once: 50 MB when each holds the largest payload

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Retention:
    """How segments are cut and what stays in the stream. Sizes in bytes before compression, times in ms."""

    segment_events: int
    segment_bytes: int
    segment_age_ms: int
    settle_ms: int
    keep_ms: int
    keep_events: int


@dataclass(frozen=True, slots=True)
class Archived:
    """What a pass did. `held` says why no more was trimmed; `busy` counts partitions another archiver was at."""

    segments: int = 0
    events: int = 0
    uncompressed_bytes: int = 0
    compressed_bytes: int = 0
    trimmed: int = 0
    busy: int = 0
    held: tuple[str, ...] = ()

    def __add__(self, other: Archived) -> Archived:
        return Archived(
            self.segments + other.segments,
            self.events + other.events,
            self.uncompressed_bytes + other.uncompressed_bytes,
            self.compressed_bytes + other.compressed_bytes,
            self.trimmed + other.trimmed,
            self.busy + other.busy,
            self.held + other.held,
        )

    @property
    def words(self) -> str:
        """`120,000 events archived in 3 segments, 50,000 trimmed`, and what held the rest back."""
        noun = "segment" if self.segments == 1 else "segments"
        parts = [f"{self.events:,} events archived in {self.segments:,} {noun}", f"{self.trimmed:,} trimmed"]
        parts += [f"{self.busy} busy elsewhere"] if self.busy else []
        return ", ".join(parts) + "".join(f"\n{reason}" for reason in self.held)


class ArchiverLost(TemporaryError):
    """Another archiver took over this partition; this pass stops where it is."""


class Archiver:
    """Archives and trims any partition."""

    def __init__(self, redis: RedisClient, archive: Archive, leases: Leases, retention: Retention) -> None:
        self._redis = redis
        self._archive = archive
        self._leases = leases
        self._retention = retention
        self._trim = redis.register_script(files("context_graph.store").joinpath("lua/trim.lua").read_text())

    async def run(
        self, tenant: Tenant, partition: Partition, holder: str, stop: asyncio.Event, *, flush: bool = False
    ) -> Archived:
        """Archive what is ready and trim what may go, unless somebody is at it.

        `flush` cuts a last segment from what would otherwise wait for more. A stop finishes the segment in hand.
        Raises ArchiveDamaged (nothing was trimmed for it), ArchiveUnavailable, StoreUnavailable, ArchiverLost.
        """
        lease = await self._leases.acquire(partition, LEASE, holder, _LEASE_MS)
        if lease is None:
            return Archived(busy=1)
        work = _Pass(self._redis, self._archive, self._leases, self._retention, self._trim, tenant, lease)
        try:
            return await work.run(stop, flush=flush)
        finally:
            await self._leases.release(lease)


@dataclass(slots=True)
class _Pass:
    redis: RedisClient
    archive: Archive
    leases: Leases
    retention: Retention
    trim_script: Any
    tenant: Tenant
    lease: Lease
    now: int = 0
    done: Archived = field(default_factory=Archived)

    @property
    def partition(self) -> Partition:
        return self.lease.partition

    @property
    def keys(self) -> PartitionKeys:
        return PartitionKeys(self.partition)

    @property
    def data_keys(self) -> ArchivedKeys:
        return ArchivedKeys(self.redis, self.archive)

    async def run(self, stop: asyncio.Event, *, flush: bool) -> Archived:
        with store_errors("reading the server's clock"):
            seconds, micros = await self.redis.time()
        self.now = seconds * 1000 + micros // 1000
        catalogue = await self._sound_catalogue()
        while not stop.is_set():
            records, full = await self._next_records(catalogue.end)
            if not records or not (full or flush or self._is_old(records[0])):
                break
            await self._add_segment(catalogue.end, records)
            catalogue = await self.archive.refresh(self.partition)
        if not stop.is_set():
            await self._trim(catalogue)
        return self.done

    async def _sound_catalogue(self) -> Catalogue:
        """The catalogue, when every segment is there and the stream continues it. Raises ArchiveDamaged."""
        catalogue = await self.archive.refresh(self.partition)
        sizes = await self.archive.files.sizes(self.partition)
        problems = catalogue.gaps() + missing_files(catalogue, sizes)
        problems += await continuity(self.redis, self.partition, catalogue)
        if problems:
            raise ArchiveDamaged("; ".join(problems))
        await self._add_missing_keys(catalogue, sizes)
        return catalogue

    async def _add_missing_keys(self, catalogue: Catalogue, sizes: dict[str, int]) -> None:
        """Key files of segments from before there were any, from the keys that Redis still has."""
        for segment in catalogue.segments:
            if key_file(segment) not in sizes:
                data = await self.archive.files.read(self.partition, segment.file)
                records = await asyncio.to_thread(_all_records, segment, data)
                await self._still_holding()
                await self.data_keys.keep(segment, records)
                log.info("keys_archived", partition=str(self.partition), segment=segment.file)

    # archiving

    async def _next_records(self, after: Position | None) -> tuple[list[Record], bool]:
        """The next segment's records, and whether they fill it."""
        records: list[Record] = []
        size = 0
        while True:
            start = "-" if after is None else f"({after.stream_id}"
            newest = f"{self.now - self.retention.settle_ms}"
            with store_errors("reading the ledger to archive it"):
                entries: Any = await self.redis.xrange(self.keys.ledger, start, newest, count=_PAGE)
            for record in await self._records(entries):
                records.append(record)
                size += segments.record_bytes(record)
                if len(records) >= self.retention.segment_events or size >= self.retention.segment_bytes:
                    return records, True
            if len(entries) < _PAGE:
                return records, False
            after = self._position(entries[-1])

    async def _records(self, entries: Sequence[RawEntry]) -> list[Record]:
        """The entries with what the ids hash knows of them. What is no envelope is archived as it is."""
        known = [codec.identity(entry[1].get(b"e", b"")) for entry in entries]
        names = [identity[0] for identity in known if identity is not None]
        with store_errors("reading the ids of events to archive"):
            values: Any = await self.redis.hmget(self.keys.ids, names) if names else []
        hashes = dict(zip(names, values, strict=True))
        return [_record(entry, identity, hashes) for entry, identity in zip(entries, known, strict=True)]

    async def _add_segment(self, previous: Position | None, records: list[Record]) -> None:
        """Segment, read back and verify, then its keys, then the manifest: only this makes it exist."""
        manifest, data = await asyncio.to_thread(
            segments.build, self.partition, self.tenant.buckets, previous, records, self.now
        )
        await self.archive.files.write(self.partition, manifest.file, data)
        await self._verify(manifest)
        await self._still_holding()
        await self.data_keys.keep(manifest, records)
        await self._still_holding()
        await self.archive.files.write(self.partition, manifest.name, segments.encode_manifest(manifest))
        await self.archive.read_manifest(self.partition, manifest.name)
        with store_errors("noting what is archived"):
            await self.redis.hset(self.keys.archived, ARCHIVED, manifest.last.stream_id)
        self.done += Archived(1, manifest.count, manifest.uncompressed_bytes, manifest.compressed_bytes)
        log.info(
            "archived",
            partition=str(self.partition),
            segment=manifest.file,
            events=manifest.count,
            bytes=manifest.compressed_bytes,
        )

    async def _verify(self, manifest: Manifest) -> None:
        written = await self.archive.files.read(self.partition, manifest.file)
        await asyncio.to_thread(segments.verify, manifest, written)

    def _is_old(self, record: Record) -> bool:
        return self._position(record.entry).ms <= self.now - self.retention.segment_age_ms

    def _position(self, entry: RawEntry) -> Position:
        return Position.of_stream_id(self.partition.bucket, entry[0].decode())

    async def _still_holding(self) -> None:
        if not await self.leases.renew(self.lease):
            raise ArchiverLost(f"another archiver took over {self.partition}")

    # trimming

    async def _trim(self, catalogue: Catalogue) -> None:
        """Cut whole segments off the stream, the oldest first, as long as every condition holds."""
        with store_errors("looking at the ledger's length"):
            hot = await self.redis.xlen(self.keys.ledger)
            raw: Any = await self.redis.hget(self.keys.archived, TRIMMED)
        trimmed = None if raw is None else Position.of_stream_id(self.partition.bucket, raw.decode())
        for segment in catalogue.segments[catalogue.behind(trimmed) :]:
            if hot - segment.count < self.retention.keep_events or segment.last.ms > self.now - self.retention.keep_ms:
                return
            await self._verify(segment)
            await self._still_holding()
            cut = await self._trim_behind(segment)
            if cut is None:
                return
            hot -= cut

    async def _trim_behind(self, segment: Manifest) -> int | None:
        """Cut through a segment's end; how many entries went, or None when a stage needs them."""
        last = segment.last
        live = (await Generations(self.redis).read(self.partition.tenant)).live
        groups = [stage.group for stage in stages_of(live)]
        arguments = [self.lease.token, last.stream_id, f"{last.ms}-{last.seq + 1}", *groups]
        with store_errors("trimming the ledger"):
            verdict, value = await self.trim_script(
                keys=[self.keys.ledger, self.keys.archived, self.keys.lease(LEASE)], args=arguments
            )
        if verdict == b"lease":
            raise ArchiverLost(f"another archiver took over {self.partition}")
        if verdict == b"group":
            reason = f"{self.partition} is not trimmed through {last.stream_id}: stage {value.decode()}"
            self.done += Archived(held=(reason,))
            log.info("not_trimmed", partition=str(self.partition), through=last.stream_id, reason=value.decode())
            return None
        self.done += Archived(trimmed=int(value))
        log.info("trimmed", partition=str(self.partition), through=last.stream_id, events=int(value))
        return int(value)


def _all_records(segment: Manifest, data: bytes) -> list[Record]:
    return [record for block in segments.read_segment(segment, data) for record in block]


def missing_files(catalogue: Catalogue, sizes: dict[str, int]) -> list[str]:
    """Segments that a manifest names and that are missing or of another size, in words."""
    problems = []
    for segment in catalogue.segments:
        size = sizes.get(segment.file)
        if size is None:
            problems.append(f"the segment {segment.file} of {segment.partition} is missing")
        elif size != segment.compressed_bytes:
            problems.append(
                f"the segment {segment.file} of {segment.partition} has {size} bytes; "
                f"its manifest says {segment.compressed_bytes}"
            )
    return problems


def _record(entry: RawEntry, identity: tuple[str, str] | None, hashes: dict[str, bytes | None]) -> Record:
    if identity is None:
        return Record(entry)
    event_id, session_id = identity
    known = hashes[event_id]
    mine = known is not None and known[16:] == entry[0]
    return Record(entry, event_id.encode(), session_id.encode(), known[:16] if mine and known is not None else b"")
