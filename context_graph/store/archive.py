"""The archive: what was moved out of a partition's stream, found again by position.

Owns the catalogue of a partition's segments and the reading of entries from them. The catalogue is read from the
manifests, never from Redis: Redis may be what was lost. Segments are immutable, so manifests and blocks are cached by
name; the cache of blocks is bounded in bytes. What is missing is an error, never an empty answer: a reader that asks
for entries between two positions gets all of them or ArchiveDamaged.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.errors import ArchiveDamaged
from context_graph.store import archive_segments as segments
from context_graph.store.archive_files import ArchiveFiles
from context_graph.store.archive_segments import BlockPlace, Manifest, RawEntry, Record

_ENTRY_OVERHEAD = 400  # bytes of Python's objects for an entry, beside its content


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A partition's segments in order of position, those left out that others cover wholly."""

    segments: tuple[Manifest, ...] = ()
    lasts: tuple[Position, ...] = field(default=())

    @property
    def end(self) -> Position | None:
        """The last archived position."""
        return self.lasts[-1] if self.lasts else None

    @property
    def count(self) -> int:
        """Archived entries."""
        return sum(segment.count for segment in self.segments)

    def behind(self, after: Position | None) -> int:
        """Index of the first segment that holds something behind `after`."""
        return 0 if after is None else bisect_right(self.lasts, after)

    def gaps(self) -> list[str]:
        """Where segments are missing, in words."""
        found = []
        before: Position | None = None
        for segment in self.segments:
            if is_gap(before, segment):
                found.append(missing(segment.partition, before, segment.previous))
            before = segment.last
        return found


def catalogue_of(manifests: Iterable[Manifest]) -> Catalogue:
    """The catalogue of these manifests.

    Two archivers of which one was suspended may leave overlapping segments. Their entries are the same, so a segment
    that adds nothing behind those before it is left out, and readers skip what they have read.
    """
    kept: list[Manifest] = []
    for manifest in sorted(manifests, key=lambda known: (known.first, known.last)):
        if not kept or manifest.last > kept[-1].last:
            kept.append(manifest)
    return Catalogue(tuple(kept), tuple(manifest.last for manifest in kept))


def is_gap(before: Position | None, segment: Manifest) -> bool:
    """Whether entries are missing between a position and the next segment behind it."""
    return segment.previous is not None and (before is None or segment.previous > before)


def missing(partition: Partition, before: Position | None, until: Position | None) -> str:
    """The words for entries that no segment holds."""
    since = "the beginning" if before is None else before.stream_id
    return (
        f"the archive of {partition} misses a segment: no manifest covers what follows {since} "
        f"up to {until.stream_id if until is not None else 'the next segment'}"
    )


class Archive:
    """The archived entries of any partition."""

    def __init__(self, files: ArchiveFiles, cache_bytes: int) -> None:
        self.files = files
        self._catalogues: dict[Partition, Catalogue] = {}
        self._manifests: dict[Partition, dict[str, Manifest]] = {}
        self._blocks = _BlockCache(cache_bytes)

    async def refresh(self, partition: Partition) -> Catalogue:
        """The catalogue as the manifests say now; only new ones are read.

        Raises ArchiveDamaged when a manifest is damaged, ArchiveUnavailable.
        """
        names = sorted(name for name in await self.files.sizes(partition) if name.endswith(".json"))
        known = self._manifests.get(partition, {})
        found: dict[str, Manifest] = {}
        for name in names:
            found[name] = known[name] if name in known else await self.read_manifest(partition, name)
        self._manifests[partition] = found
        self._catalogues[partition] = catalogue = catalogue_of(found.values())
        return catalogue

    async def newest(self, partition: Partition) -> Position | None:
        """The last archived position by the manifests' names alone; None where there is no manifest.

        Raises ArchiveUnavailable.
        """
        names = [name for name in await self.files.sizes(partition) if name.endswith(".json")]
        return max((segments.last_of_name(partition, name) for name in names), default=None)

    async def read_manifest(self, partition: Partition, name: str) -> Manifest:
        """A manifest from its file. Raises ArchiveDamaged."""
        manifest = segments.decode_manifest(await self.files.read(partition, name), name)
        if manifest.partition != partition or manifest.name != name:
            raise ArchiveDamaged(f"the manifest {name} in the folder of {partition} is of another segment")
        return manifest

    async def covering(self, partition: Partition, position: Position) -> Catalogue:
        """The catalogue, read again when it does not reach `position`. Raises ArchiveDamaged when it still does not."""
        catalogue = self._catalogues.get(partition)
        if catalogue is None or catalogue.end is None or catalogue.end < position:
            catalogue = await self.refresh(partition)
        if catalogue.end is None or catalogue.end < position:
            raise ArchiveDamaged(missing(partition, catalogue.end, position))
        return catalogue

    async def between(
        self, partition: Partition, after: Position | None, through: Position, limit: int
    ) -> list[RawEntry]:
        """Up to `limit` entries behind `after` up to and including `through`, oldest first."""
        catalogue = await self.covering(partition, through)
        found: list[RawEntry] = []
        for segment in catalogue.segments[catalogue.behind(after) :]:
            _refuse_gap(partition, after, segment, through)
            for index in range(_block_behind(segment, after), len(segment.blocks)):
                block = await self._block(segment, index)
                found += block.range(after, through)
                if len(found) >= limit or block.positions[-1] >= through:
                    return found[:limit]
                after = block.positions[-1] if after is None else max(after, block.positions[-1])
        return found

    async def before(self, partition: Partition, before: Position, through: Position, limit: int) -> list[RawEntry]:
        """Up to `limit` entries ahead of `before` (exclusive) and none beyond `through`, newest first."""
        catalogue = await self.covering(partition, through)
        found: list[RawEntry] = []
        for index in range(min(bisect_left(catalogue.lasts, before), len(catalogue.segments) - 1), -1, -1):
            segment = catalogue.segments[index]
            ahead = catalogue.lasts[index - 1] if index else None
            for number in range(len(segment.blocks) - 1, -1, -1):
                if segment.blocks[number].first < before:
                    block = await self._block(segment, number)
                    found += block.backwards(ahead, before, through)
                if len(found) >= limit:
                    return found[:limit]
            if is_gap(ahead, segment):
                raise ArchiveDamaged(missing(partition, ahead, segment.previous))
        return found

    async def at(self, partition: Partition, positions: Sequence[Position], through: Position) -> list[RawEntry | None]:
        """The entries at these positions (none beyond `through`), None for each that never was; in the order asked."""
        catalogue = await self.covering(partition, through)
        found: list[RawEntry | None] = []
        for position in positions:
            index = bisect_left(catalogue.lasts, position)
            segment = catalogue.segments[index]
            if segment.first > position:
                before = catalogue.lasts[index - 1] if index else None
                if is_gap(before, segment):
                    raise ArchiveDamaged(missing(partition, before, segment.previous))
                found.append(None)
                continue
            block = await self._block(segment, _block_of(segment, position))
            found.append(block.at(position))
        return found

    async def records(
        self, partition: Partition, after: Position | None, through: Position
    ) -> AsyncIterator[list[Record]]:
        """Everything behind `after` up to `through` in batches of a block, whole segments read at once and checked.

        Raises ArchiveDamaged at what is missing or changed; what came before was right.
        """
        catalogue = await self.covering(partition, through)
        for segment in catalogue.segments[catalogue.behind(after) :]:
            if after is not None and after >= through:
                return
            _refuse_gap(partition, after, segment, through)
            blocks = segments.read_segment(segment, await self.files.read(partition, segment.file))
            while (block := await asyncio.to_thread(next, blocks, None)) is not None:
                fresh = [record for record in block if _is_within(partition, record, after, through)]
                if fresh:
                    after = _position(partition, fresh[-1].entry)
                    yield fresh

    async def _block(self, segment: Manifest, index: int) -> _Block:
        key = (segment.partition, segment.name, index)
        block = self._blocks.get(key)
        if block is None:
            place = segment.blocks[index]
            frame = await self.files.read(segment.partition, segment.file, place.offset, place.offset + place.length)
            block = await asyncio.to_thread(_Block.read, segment, place, frame)
            self._blocks.put(key, block)
        return block


@dataclass(frozen=True, slots=True)
class _Block:
    """A block's entries, with their positions to bisect by. `size`: bytes it is counted with."""

    positions: tuple[Position, ...]
    entries: tuple[RawEntry, ...]
    size: int

    @classmethod
    def read(cls, segment: Manifest, place: BlockPlace, frame: bytes) -> _Block:
        records = segments.read_block(segment, place, frame)
        size = sum(segments.record_bytes(record) + _ENTRY_OVERHEAD for record in records)
        entries = tuple(record.entry for record in records)
        return cls(tuple(_position(segment.partition, entry) for entry in entries), entries, size)

    def range(self, after: Position | None, through: Position) -> Sequence[RawEntry]:
        start = 0 if after is None else bisect_right(self.positions, after)
        return self.entries[start : bisect_right(self.positions, through)]

    def backwards(self, after: Position | None, before: Position, through: Position) -> Sequence[RawEntry]:
        """Newest first, `before` excluded."""
        start = 0 if after is None else bisect_right(self.positions, after)
        end = min(bisect_left(self.positions, before), bisect_right(self.positions, through))
        return self.entries[start : max(start, end)][::-1]

    def at(self, position: Position) -> RawEntry | None:
        index = bisect_left(self.positions, position)
        return self.entries[index] if index < len(self.positions) and self.positions[index] == position else None


class _BlockCache:
    """The blocks read last, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._blocks: OrderedDict[tuple[Partition, str, int], _Block] = OrderedDict()

    def get(self, key: tuple[Partition, str, int]) -> _Block | None:
        block = self._blocks.get(key)
        if block is not None:
            self._blocks.move_to_end(key)
        return block

    def put(self, key: tuple[Partition, str, int], block: _Block) -> None:
        if key in self._blocks:
            return  # two readers wanted it at once
        self._blocks[key] = block
        self._size += block.size
        while self._size > self._limit and self._blocks:
            _, oldest = self._blocks.popitem(last=False)
            self._size -= oldest.size


def _refuse_gap(partition: Partition, after: Position | None, segment: Manifest, through: Position) -> None:
    if is_gap(after, segment) and (after is None or after < through):
        raise ArchiveDamaged(missing(partition, after, segment.previous))


def _block_behind(segment: Manifest, after: Position | None) -> int:
    """Index of the first block that may hold something behind `after`."""
    if after is None:
        return 0
    return max(bisect_right(segment.blocks, after, key=lambda place: place.first) - 1, 0)


def _block_of(segment: Manifest, position: Position) -> int:
    return bisect_right(segment.blocks, position, key=lambda place: place.first) - 1


def _position(partition: Partition, entry: RawEntry) -> Position:
    return Position.of_stream_id(partition.bucket, entry[0].decode())


def _is_within(partition: Partition, record: Record, after: Position | None, through: Position) -> bool:
    position = _position(partition, record.entry)
    return (after is None or position > after) and position <= through
