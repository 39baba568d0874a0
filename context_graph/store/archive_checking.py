"""`archive verify`: what the archive is worth when Redis is doubted.

A check reads every byte of a partition's archive and says all that is wrong, not only the first thing: also a segment
whose entries need keys that its key file does not have, although nobody was erased.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.errors import ArchiveDamaged
from context_graph.store import archive_segments as segments
from context_graph.store.archive import Archive, Catalogue, catalogue_of
from context_graph.store.archive_continuity import continuity
from context_graph.store.archive_keys import ArchivedKeys, is_about_keys, key_file, tags_of
from context_graph.store.archive_segments import Manifest
from context_graph.store.archive_writing import missing_files
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.history import ARCHIVED, TRIMMED
from context_graph.store.keys import PartitionKeys


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
            problems += await self._keys(partition, manifests, sizes)
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

    async def _keys(self, partition: Partition, manifests: Sequence[Manifest], sizes: dict[str, int]) -> list[str]:
        """Key files that are damaged, or lack keys of subjects of whom no erasure is known."""
        kept, problems = ArchivedKeys(self._redis, self._archive), []
        try:
            erased = set(await kept.erased(partition))
        except ArchiveDamaged as error:
            return [str(error)]
        with store_errors("comparing the archive's keys with the erased"):
            known: Any = await self._redis.hkeys(PartitionKeys(partition).erased)
        erased |= {tag.decode() for tag in known}
        for manifest in manifests:
            try:
                if key_file(manifest) in sizes:
                    held = await kept.read(partition, key_file(manifest))
                    data = await self._archive.files.read(partition, manifest.file)
                    tags = await asyncio.to_thread(_tags_in, manifest, data)
                    lacking = len(set(tags) - held.keys.keys() - erased)
                    problems += [f"the key file {held.name} lacks {lacking} keys of its segment"] if lacking else []
            except ArchiveDamaged as error:
                problems.append(str(error))
        return problems

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


def _tags_in(manifest: Manifest, data: bytes) -> list[str]:
    return tags_of(record for block in segments.read_segment(manifest, data) for record in block)


def _notes(manifests: Sequence[Manifest], sizes: dict[str, int]) -> list[str]:
    known = {manifest.file for manifest in manifests}
    stray = sorted(
        name for name in sizes if not name.endswith(".json") and name not in known and not is_about_keys(name)
    )
    keyless = [manifest.file for manifest in manifests if key_file(manifest) not in sizes]
    notes = [f"{name} belongs to no manifest: an unfinished attempt, or its manifest is missing" for name in stray]
    return notes + [f"{name} has no key file yet: the next pass of the worker writes it" for name in keyless]
