"""`archive verify` and `archive restore`: what the archive is worth when Redis is doubted, or gone.

A check reads every byte of a partition's archive and says all that is wrong, not only the first thing. A restore puts
the entries back under their own ids, with the ids hash and the session lists, in one script per batch: an interrupted
one is simply run again. It goes on only where the stream holds what the archive says or nothing at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.errors import ArchiveDamaged, ConfigurationError
from context_graph.store import archive_segments as segments
from context_graph.store.archive import Archive, Catalogue, catalogue_of
from context_graph.store.archive_segments import Manifest, Record
from context_graph.store.archive_writing import continuity, missing_files
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.history import ARCHIVED, TRIMMED
from context_graph.store.keys import PartitionKeys
from context_graph.store.tenants import Tenants


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """A partition's archive as it was found. `problems` need an operator; `notes` are harmless."""

    partition: Partition
    segments: int
    events: int
    uncompressed_bytes: int
    compressed_bytes: int
    end: Position | None
    trimmed: Position | None
    hot: int
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class ArchiveChecks:
    """Looks at the archive of any partition beside its stream."""

    def __init__(self, redis: RedisClient, archive: Archive) -> None:
        self._redis = redis
        self._archive = archive

    async def look(self, partition: Partition) -> ArchiveReport:
        """What the manifests say, without reading a segment."""
        return await self._report(partition, deep=False)

    async def verify(self, partition: Partition) -> ArchiveReport:
        """Every manifest, every segment's checksums, counts and order, and continuity with each other and the stream.

        Raises ArchiveUnavailable and StoreUnavailable; whatever is wrong with a file is a problem of the report.
        """
        return await self._report(partition, deep=True)

    async def _report(self, partition: Partition, *, deep: bool) -> ArchiveReport:
        sizes = await self._archive.files.sizes(partition)
        manifests, problems = await self._manifests(partition, sizes)
        catalogue = catalogue_of(manifests)
        problems += catalogue.gaps()
        if deep:
            for manifest in manifests:
                problems += await self._segment(manifest)
        else:
            problems += missing_files(catalogue, sizes)
        problems += await continuity(self._redis, partition, catalogue)
        keys = PartitionKeys(partition)
        with store_errors("comparing the stream with the archive"):
            marks: Any = await self._redis.hmget(keys.archived, [ARCHIVED, TRIMMED])
            hot = await self._redis.xlen(keys.ledger)
        archived, trimmed = marks
        problems += _lost_end(partition, catalogue, archived)
        return ArchiveReport(
            partition=partition,
            segments=len(manifests),
            events=catalogue.count,
            uncompressed_bytes=sum(manifest.uncompressed_bytes for manifest in manifests),
            compressed_bytes=sum(manifest.compressed_bytes for manifest in manifests),
            end=catalogue.end,
            trimmed=None if trimmed is None else Position.of_stream_id(partition.bucket, trimmed.decode()),
            hot=hot,
            problems=tuple(problems),
            notes=tuple(_notes(manifests, sizes)),
        )

    async def _manifests(self, partition: Partition, sizes: dict[str, int]) -> tuple[list[Manifest], list[str]]:
        found: list[Manifest] = []
        problems: list[str] = []
        for name in sorted(name for name in sizes if name.endswith(".json")):
            try:
                found.append(await self._archive.read_manifest(partition, name))
            except ArchiveDamaged as error:
                problems.append(str(error))
        return found, problems

    async def _segment(self, manifest: Manifest) -> list[str]:
        try:
            data = await self._archive.files.read(manifest.partition, manifest.file)
            await asyncio.to_thread(segments.verify, manifest, data)
        except ArchiveDamaged as error:
            return [str(error)]
        return []


def _lost_end(partition: Partition, catalogue: Catalogue, archived: bytes | None) -> list[str]:
    """Redis remembers more than the manifests tell: the last manifests are missing."""
    known = None if archived is None else Position.of_stream_id(partition.bucket, archived.decode())
    if known is None or (catalogue.end is not None and catalogue.end >= known):
        return []
    ends = "is empty" if catalogue.end is None else f"ends at {catalogue.end.stream_id}"
    return [f"the archive of {partition} {ends}, but it was written up to {known.stream_id}: manifests are missing"]


def _notes(manifests: Sequence[Manifest], sizes: dict[str, int]) -> list[str]:
    known = {manifest.file for manifest in manifests}
    stray = sorted(name for name in sizes if not name.endswith(".json") and name not in known)
    return [f"{name} belongs to no manifest: an unfinished attempt, or its manifest is missing" for name in stray]


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did: entries put back, entries that were there already."""

    added: int
    present: int


class Restore:
    """Puts archived entries back into any partition's stream."""

    def __init__(self, redis: RedisClient, archive: Archive, tenants: Tenants) -> None:
        self._redis = redis
        self._archive = archive
        self._tenants = tenants
        self._script = redis.register_script(files("context_graph.store").joinpath("lua/restore.lua").read_text())

    async def run(self, partition: Partition) -> Restored:
        """Everything the archive has of a partition, into its stream; makes the tenant when it is gone.

        Nothing may write to the partition meanwhile. Raises ConfigurationError where the stream holds other entries,
        ArchiveDamaged at what is missing or changed (what came before is restored), StoreUnavailable.
        """
        catalogue = await self._archive.refresh(partition)
        if catalogue.end is None:
            return Restored(0, 0)
        await self._ensure_tenant(catalogue)
        keys = PartitionKeys(partition)
        with store_errors("reading how far the ledger is trimmed"):
            raw: Any = await self._redis.hget(keys.archived, TRIMMED)
        trimmed = None if raw is None else Position.of_stream_id(partition.bucket, raw.decode())
        added = present = 0
        async for records in self._archive.records(partition, trimmed, catalogue.end):
            new = await self._put(partition, records)
            added += new
            present += len(records) - new
        with store_errors("noting what is archived"):
            await self._redis.hset(keys.archived, ARCHIVED, catalogue.end.stream_id)
        return Restored(added, present)

    async def _ensure_tenant(self, catalogue: Catalogue) -> None:
        newest = catalogue.segments[-1]
        tenant = await self._tenants.ensure(newest.partition.tenant, newest.buckets)
        if tenant.buckets != newest.buckets:
            raise ConfigurationError(
                f"tenant {tenant.name} has {tenant.buckets} buckets here and {newest.buckets} in the archive: "
                "its sessions would be looked for in other partitions; restore into a Redis without this tenant"
            )

    async def _put(self, partition: Partition, records: Sequence[Record]) -> int:
        keys = PartitionKeys(partition)
        names = [keys.ledger, keys.ids]
        lists: dict[bytes, int] = {}
        arguments: list[str | bytes | int] = []
        for record in records:
            index = 0
            if record.session_id:
                index = lists.get(record.session_id, 0)
                if not index:
                    names.append(keys.session_events(record.session_id.decode()))
                    index = lists[record.session_id] = len(names)
            stream_id, fields = record.entry
            arguments += (stream_id, record.event_id, record.content_hash, index, 2 * len(fields))
            arguments += [part for pair in fields.items() for part in pair]
        with store_errors("restoring events"):
            verdict, value, *_ = await self._script(keys=names, args=arguments)
        if verdict == b"other":
            raise ConfigurationError(
                f"the stream of {partition} holds other events than the archive, seen at {value.decode()}: "
                "restore into an empty Redis, with nothing writing to it"
            )
        return int(value)
