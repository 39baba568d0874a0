"""Segments: consecutive entries of a partition's stream as bytes, and the manifest that says what they are. Pure.

A segment's content is a row of records; a record is a stream entry as Redis holds it (id, field names and values, not
interpreted) with what a restore needs beside it: event id, session id and the content hash that the deduplication
keeps. The content is cut into blocks of about 256 KiB, each a zstd frame of its own with its checksum, so that one
event is read back without the rest of its segment.

The manifest is JSON with a checksum over itself. `previous` is the position of the entry before the first one: by it a
missing segment is seen although ids leave gaps by nature.

    record: ms u64, seq u64, content hash 16 bytes, lengths of event id and session id u16, number of fields u16,
            event id, session id, then per field: lengths of name u16 and value u32, name, value   (little endian)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from struct import Struct
from struct import error as struct_error
from typing import Any, TypeAlias

import orjson
import zstandard

from context_graph.domain.event import iso
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.errors import ArchiveDamaged

RawEntry: TypeAlias = "tuple[bytes, dict[bytes, bytes]]"
"""A stream entry as XRANGE gives it: stream id, fields."""

FORMAT = 1
_BLOCK_BYTES = 256 * 1024  # of content; smaller blocks compress worse, larger ones make a single read dearer
_LEVEL = 3  # zstd's default: level 9 makes 15 % less of agents' events and takes ten times as long
_HEAD = Struct("<QQ16sHHH")
_FIELD = Struct("<HI")
_NO_HASH = bytes(16)


@dataclass(frozen=True, slots=True)
class Record:
    """An entry with what a restore needs. `content_hash` is empty when the deduplication does not know the entry."""

    entry: RawEntry
    event_id: bytes = b""
    session_id: bytes = b""
    content_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class BlockPlace:
    """Where a block lies in its segment: its first position, byte offset and length, number of records."""

    first: Position
    offset: int
    length: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a segment is. Positions are inclusive; `buckets` is the tenant's number of partitions."""

    partition: Partition
    buckets: int
    previous: Position | None
    first: Position
    last: Position
    count: int
    uncompressed_bytes: int
    compressed_bytes: int
    content_sha256: str
    compressed_sha256: str
    created_at: int
    blocks: tuple[BlockPlace, ...]

    @property
    def stem(self) -> str:
        """The file names' common part: by it, segments sort by position."""
        return f"{self.first.sort_key}_{self.last.sort_key}"

    @property
    def file(self) -> str:
        return f"{self.stem}.zst"

    @property
    def name(self) -> str:
        return f"{self.stem}.json"


def last_of_name(partition: Partition, name: str) -> Position:
    """The last position of a segment by the name of its manifest. Raises ArchiveDamaged when that is none."""
    try:
        return Position.of_sort_key(partition.bucket, name.removesuffix(".json").partition("_")[2])
    except ValueError as error:
        raise ArchiveDamaged(f"{name} in the archive's folder of {partition} is no name of a manifest") from error


def build(
    partition: Partition, buckets: int, previous: Position | None, records: Sequence[Record], created_at: int
) -> tuple[Manifest, bytes]:
    """A segment of these records (at least one, in stream order). `created_at`: ms since the epoch, UTC."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True)
    content, data, places, size = sha256(), bytearray(), [], 0
    for block in _blocks(records):
        packed = b"".join(map(_pack, block))
        frame = compressor.compress(packed)
        places.append(BlockPlace(_position(partition, block[0].entry[0]), len(data), len(frame), len(block)))
        content.update(packed)
        data += frame
        size += len(packed)
    compressed = bytes(data)
    manifest = Manifest(
        partition=partition,
        buckets=buckets,
        previous=previous,
        first=_position(partition, records[0].entry[0]),
        last=_position(partition, records[-1].entry[0]),
        count=len(records),
        uncompressed_bytes=size,
        compressed_bytes=len(compressed),
        content_sha256=content.hexdigest(),
        compressed_sha256=sha256(compressed).hexdigest(),
        created_at=created_at,
        blocks=tuple(places),
    )
    return manifest, compressed


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest's file: indented JSON, with the SHA-256 of everything else in it as `manifest_sha256`."""
    fields: dict[str, Any] = {
        "format": FORMAT,
        "partition": str(manifest.partition),
        "buckets": manifest.buckets,
        "previous": manifest.previous.stream_id if manifest.previous is not None else None,
        "first": manifest.first.stream_id,
        "last": manifest.last.stream_id,
        "count": manifest.count,
        "uncompressed_bytes": manifest.uncompressed_bytes,
        "compressed_bytes": manifest.compressed_bytes,
        "content_sha256": manifest.content_sha256,
        "compressed_sha256": manifest.compressed_sha256,
        "created_at": iso(manifest.created_at),
        "created_at_ms": manifest.created_at,
        "file": manifest.file,
        "blocks": [[place.first.stream_id, place.offset, place.length, place.count] for place in manifest.blocks],
    }
    return orjson.dumps(fields | {"manifest_sha256": _checksum(fields)}, option=orjson.OPT_INDENT_2)


def decode_manifest(data: bytes, name: str) -> Manifest:
    """The inverse. Raises ArchiveDamaged, naming the file, on anything that `encode_manifest` did not make."""
    try:
        fields: Any = orjson.loads(data)
        known = fields.pop("manifest_sha256")
        if known != _checksum(fields):
            raise ArchiveDamaged(f"the manifest {name} is damaged: its checksum does not match")
        if fields["format"] != FORMAT:
            raise ArchiveDamaged(f"the manifest {name} has format {fields['format']}; this version reads {FORMAT}")
        return _manifest(fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArchiveDamaged(f"the manifest {name} is damaged: {error!r}") from error


def _manifest(fields: dict[str, Any]) -> Manifest:
    partition = Partition.parse(fields["partition"])

    def position(stream_id: str) -> Position:
        return Position.of_stream_id(partition.bucket, stream_id)

    return Manifest(
        partition=partition,
        buckets=fields["buckets"],
        previous=position(fields["previous"]) if fields["previous"] is not None else None,
        first=position(fields["first"]),
        last=position(fields["last"]),
        count=fields["count"],
        uncompressed_bytes=fields["uncompressed_bytes"],
        compressed_bytes=fields["compressed_bytes"],
        content_sha256=fields["content_sha256"],
        compressed_sha256=fields["compressed_sha256"],
        created_at=fields["created_at_ms"],
        blocks=tuple(BlockPlace(position(row[0]), *row[1:]) for row in fields["blocks"]),
    )


def read_block(manifest: Manifest, place: BlockPlace, frame: bytes) -> list[Record]:
    """The records of one block. Raises ArchiveDamaged when the bytes are not the block's."""
    return _records(manifest, place, _decompress(manifest, frame))


def read_segment(manifest: Manifest, data: bytes) -> Iterator[list[Record]]:
    """The records of a whole segment by blocks; its size and SHA-256 are checked first. Raises ArchiveDamaged."""
    check_bytes(manifest, data)
    for place in manifest.blocks:
        yield read_block(manifest, place, data[place.offset : place.offset + place.length])


def verify(manifest: Manifest, data: bytes) -> None:
    """Check everything a manifest says of its segment. Raises ArchiveDamaged with the first thing that is wrong."""
    check_bytes(manifest, data)
    content, count = sha256(), 0
    before = manifest.previous
    for place in manifest.blocks:
        packed = _decompress(manifest, data[place.offset : place.offset + place.length])
        content.update(packed)
        for record in _records(manifest, place, packed):
            position = _position(manifest.partition, record.entry[0])
            if before is not None and position <= before:
                raise ArchiveDamaged(f"the segment {manifest.file} is out of order at {position.stream_id}")
            before = position
            count += 1
    if count != manifest.count or before != manifest.last:
        raise ArchiveDamaged(
            f"the segment {manifest.file} holds {count} entries up to {before}; its manifest says {manifest.count} "
            f"up to {manifest.last}"
        )
    if content.hexdigest() != manifest.content_sha256:
        raise ArchiveDamaged(f"the segment {manifest.file} is damaged: its content has another SHA-256")


def check_bytes(manifest: Manifest, data: bytes) -> None:
    """Compare a segment's size and SHA-256 with its manifest. Raises ArchiveDamaged."""
    if len(data) != manifest.compressed_bytes:
        raise ArchiveDamaged(
            f"the segment {manifest.file} has {len(data)} bytes; its manifest says {manifest.compressed_bytes}"
        )
    if sha256(data).hexdigest() != manifest.compressed_sha256:
        raise ArchiveDamaged(f"the segment {manifest.file} is damaged: its SHA-256 does not match its manifest")


def _blocks(records: Sequence[Record]) -> Iterator[list[Record]]:
    block: list[Record] = []
    size = 0
    for record in records:
        block.append(record)
        size += record_bytes(record)
        if size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def record_bytes(record: Record) -> int:
    """Bytes of a record before compression."""
    fields = sum(_FIELD.size + len(name) + len(value) for name, value in record.entry[1].items())
    return _HEAD.size + len(record.event_id) + len(record.session_id) + fields


def _pack(record: Record) -> bytes:
    stream_id, fields = record.entry
    ms, _, seq = stream_id.partition(b"-")
    head = _HEAD.pack(
        int(ms), int(seq), record.content_hash or _NO_HASH, len(record.event_id), len(record.session_id), len(fields)
    )
    parts = [head, record.event_id, record.session_id]
    for name, value in fields.items():
        parts += (_FIELD.pack(len(name), len(value)), name, value)
    return b"".join(parts)


def _decompress(manifest: Manifest, frame: bytes) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(frame)
    except zstandard.ZstdError as error:
        raise ArchiveDamaged(f"the segment {manifest.file} is damaged: a block does not decompress: {error}") from error


def _records(manifest: Manifest, place: BlockPlace, packed: bytes) -> list[Record]:
    try:
        records = list(_unpack(packed))
    except (struct_error, IndexError) as error:
        raise ArchiveDamaged(f"the segment {manifest.file} is damaged: a record is cut off: {error}") from error
    if len(records) != place.count or _position(manifest.partition, records[0].entry[0]) != place.first:
        raise ArchiveDamaged(f"the segment {manifest.file} is damaged: a block is not the one its manifest names")
    return records


def _unpack(packed: bytes) -> Iterator[Record]:
    at = 0
    while at < len(packed):
        ms, seq, content_hash, event_length, session_length, fields = _HEAD.unpack_from(packed, at)
        at += _HEAD.size
        event_id = packed[at : at + event_length]
        at += event_length
        session_id = packed[at : at + session_length]
        at += session_length
        values: dict[bytes, bytes] = {}
        for _ in range(fields):
            name_length, value_length = _FIELD.unpack_from(packed, at)
            at += _FIELD.size + name_length
            name = packed[at - name_length : at]
            values[name] = packed[at : at + value_length]
            at += value_length
        known = b"" if content_hash == _NO_HASH else content_hash
        yield Record((b"%d-%d" % (ms, seq), values), event_id, session_id, known)


def _position(partition: Partition, stream_id: bytes) -> Position:
    return Position.of_stream_id(partition.bucket, stream_id.decode())


def _checksum(fields: dict[str, Any]) -> str:
    return sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()
