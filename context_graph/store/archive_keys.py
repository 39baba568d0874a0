"""Data keys in the archive: what makes sealed segments worth reading when Redis is gone, and what an erasure destroys.

Beside each segment lies a file with the wrapped keys of everybody its entries tell about, and the pepper their tags are
made with. The master key that wrapped them is in neither Redis nor archive. These are the only files of the archive
that ever change: an erasure first writes who was erased into a file of its own, then writes every key file anew without
that key and reads it back. So a key that could not be removed, or that an old copy of the archive brings back, is
refused by the file and by the tombstones in the segments (adr/0015).

    <segment>.keys     the keys a segment needs, by tag; written before the manifest
    <erasure>.erased   the tag of an erased subject

Who changes key files holds the partition's archive lease, so the archiver never writes one beside an erasure.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import orjson

from context_graph.domain.event import ERASURE_TYPE
from context_graph.domain.partition import Partition
from context_graph.errors import ArchiveDamaged, ArchiveUnavailable
from context_graph.store import sealing
from context_graph.store.archive import Archive, Catalogue
from context_graph.store.archive_segments import Manifest, Record
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import PEPPER, PartitionKeys

_FORMAT = 1
_KEYS, _ERASED = ".keys", ".erased"
_ERASURE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class SegmentKeys:
    """The wrapped keys that a segment's entries need. `pepper` is None where nothing in the partition was sealed."""

    partition: Partition
    segment: str
    pepper: bytes | None
    keys: Mapping[str, bytes]

    @property
    def name(self) -> str:
        return f"{self.segment}{_KEYS}"

    def encode(self) -> bytes:
        """The file: JSON with a checksum of everything else in it."""
        return _signed(
            {
                "format": _FORMAT,
                "partition": str(self.partition),
                "segment": self.segment,
                "pepper": None if self.pepper is None else b64encode(self.pepper).decode(),
                "keys": {tag: b64encode(key).decode() for tag, key in sorted(self.keys.items())},
            }
        )

    @classmethod
    def decode(cls, data: bytes, name: str) -> SegmentKeys:
        """The inverse. Raises ArchiveDamaged naming the file."""
        fields = _verified(data, name)
        try:
            pepper = fields["pepper"]
            return cls(
                Partition.parse(fields["partition"]),
                fields["segment"],
                None if pepper is None else b64decode(pepper),
                {str(tag): b64decode(key) for tag, key in fields["keys"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArchiveDamaged(f"the key file {name} is damaged: {error!r}") from error

    def without(self, tags: Iterable[str]) -> SegmentKeys:
        return replace(self, keys={tag: key for tag, key in self.keys.items() if tag not in set(tags)})


@dataclass(frozen=True, slots=True)
class KeysRemoved:
    """What an erasure found and removed in a partition's archive: key files looked at, keys that were in them."""

    files: int = 0
    keys: int = 0


@dataclass(frozen=True, slots=True)
class KeptKeys:
    """Everything a restore needs to know: keys by tag, the pepper, and who was erased (tag -> erasure id)."""

    pepper: bytes | None
    keys: Mapping[str, bytes]
    erased: Mapping[str, str]


class ArchivedKeys:
    """Key files of any partition's archive."""

    def __init__(self, redis: RedisClient, archive: Archive) -> None:
        self._redis = redis
        self._files = archive.files

    async def keep(self, manifest: Manifest, records: Iterable[Record]) -> None:
        """Write the key file of a segment, without the keys of the erased. Raises ArchiveUnavailable, StoreUnavailable.

        Looks again after it has written: a key that was destroyed meanwhile is taken out, whoever held which lease.
        """
        tags = tags_of(records)
        found = await self._held(manifest, tags)
        while True:
            await self._put(found)
            now = await self._held(manifest, tags)
            if not found.keys.keys() - now.keys.keys():
                return
            found = now

    async def _held(self, manifest: Manifest, tags: Sequence[str]) -> SegmentKeys:
        pepper, found = await self._wrapped(manifest.partition, tags)
        return SegmentKeys(manifest.partition, manifest.stem, pepper if tags else None, found)

    async def _wrapped(self, partition: Partition, tags: Sequence[str]) -> tuple[bytes | None, dict[str, bytes]]:
        """The pepper and the keys of these tags as Redis has them."""
        with store_errors("reading data keys to archive them"):
            answer: Any = await self._redis.hmget(PartitionKeys(partition).vault, [PEPPER, *tags])
        return answer[0], {tag: key for tag, key in zip(tags, answer[1:], strict=True) if key is not None}

    async def destroy(self, partition: Partition, tag: str, erasure_id: str) -> KeysRemoved:
        """Remove a subject's key from every key file; when this returns, none that can be read has it.

        The caller holds the partition's archive lease. Repeating it changes nothing. Raises ArchiveUnavailable and
        ArchiveDamaged (a key file that cannot be read may hold the key): then it is not removed.
        """
        names = await self._files.sizes(partition)
        marker = _marker(erasure_id)
        data = _signed({"format": _FORMAT, "partition": str(partition), "tag": tag, "erasure": erasure_id})
        if marker not in names or await self._files.read(partition, marker) != data:
            await self._write(partition, marker, data)
        for name in names:
            if f"{_KEYS}." in name:  # half written by a process that was killed
                await self._files.delete(partition, name)
        files = keys = 0
        for name in sorted(name for name in names if name.endswith(_KEYS)):
            files += 1
            known = await self.read(partition, name)
            if tag in known.keys:
                await self._put(known.without((tag,)))
                keys += 1
        return KeysRemoved(files, keys)

    async def restorable(self, partition: Partition, catalogue: Catalogue) -> KeptKeys:
        """What the key files of the catalogue hold, and who must not come back. Raises ArchiveDamaged."""
        erased = await self.erased(partition)
        keys: dict[str, bytes] = {}
        pepper: bytes | None = None
        names = await self._files.sizes(partition)
        for segment in catalogue.segments:
            name = f"{segment.stem}{_KEYS}"
            if name in names:
                known = await self.read(partition, name)
                pepper = known.pepper or pepper
                keys |= known.keys
        return KeptKeys(pepper, {tag: key for tag, key in keys.items() if tag not in erased}, erased)

    async def erased(self, partition: Partition) -> dict[str, str]:
        """Tag -> erasure id of everybody whose erasure reached this archive. Raises ArchiveDamaged."""
        found: dict[str, str] = {}
        for name in sorted(await self._files.sizes(partition)):
            if name.endswith(_ERASED):
                fields = _verified(await self._files.read(partition, name), name)
                found[str(fields["tag"])] = str(fields["erasure"])
        return found

    async def rewrap(self, partition: Partition) -> int:
        """Give every archived key the wrapping that Redis has of it; returns how many files were written.

        The caller holds the partition's archive lease.
        """
        written = 0
        for name in sorted(name for name in await self._files.sizes(partition) if name.endswith(_KEYS)):
            known = await self.read(partition, name)
            pepper, now = await self._wrapped(partition, sorted(known.keys))
            # What Redis has lost stays here: this may be the last copy. Taking keys away is `destroy`'s alone.
            renewed = replace(known, pepper=known.pepper and (pepper or known.pepper), keys={**known.keys, **now})
            if renewed != known:
                await self._put(renewed)
                written += 1
        return written

    async def read(self, partition: Partition, name: str) -> SegmentKeys:
        """A key file. Raises ArchiveDamaged when it is missing, changed or another's."""
        known = SegmentKeys.decode(await self._files.read(partition, name), name)
        if known.partition != partition or known.name != name:
            raise ArchiveDamaged(f"the key file {name} in the folder of {partition} is of another segment")
        return known

    async def _put(self, found: SegmentKeys) -> None:
        await self._write(found.partition, found.name, found.encode())

    async def _write(self, partition: Partition, name: str, data: bytes) -> None:
        """Write and read back: a store that keeps the old object must not look as if it had the new one."""
        await self._files.write(partition, name, data)
        if await self._files.read(partition, name) != data:
            raise ArchiveUnavailable(f"the archive still gives the old content of {self._files.where(partition, name)}")


def key_file(manifest: Manifest) -> str:
    """The name of a segment's key file."""
    return f"{manifest.stem}{_KEYS}"


def is_about_keys(name: str) -> bool:
    """Whether a file of the archive is a key file or tells of an erasure."""
    return name.endswith((_KEYS, _ERASED))


def tags_of(records: Iterable[Record]) -> list[str]:
    """The tags of everybody whose key is needed to open these entries."""
    groups = {sealing.tags_of(body) for record in records if sealing.is_sealed(body := record.entry[1].get(b"e", b""))}
    return sorted({tag for group in groups for tag in group})


def erased_by(records: Iterable[Record]) -> dict[str, str]:
    """Tag -> erasure id of the tombstones among these entries."""
    found: dict[str, str] = {}
    for record in records:
        body = record.entry[1].get(b"e", b"")
        if ERASURE_TYPE.encode() in body and not sealing.is_sealed(body):
            fields: Any = orjson.loads(body)
            if fields.get("event_type") == ERASURE_TYPE:
                found[fields["payload"]["tag"]] = fields["event_id"]
    return found


def _marker(erasure_id: str) -> str:
    if _ERASURE_ID.fullmatch(erasure_id) is None:
        raise ValueError(f"{erasure_id!r} is no id of an erasure")
    return f"{erasure_id}{_ERASED}"


def _signed(fields: dict[str, Any]) -> bytes:
    return orjson.dumps(fields | {"file_sha256": _checksum(fields)}, option=orjson.OPT_INDENT_2)


def _verified(data: bytes, name: str) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = orjson.loads(data)
        known = fields.pop("file_sha256")
    except (ValueError, KeyError, AttributeError) as error:
        raise ArchiveDamaged(f"the key file {name} is damaged: {error!r}") from error
    if known != _checksum(fields):
        raise ArchiveDamaged(f"the key file {name} is damaged: its checksum does not match")
    if fields.get("format") != _FORMAT:
        raise ArchiveDamaged(f"the key file {name} has format {fields.get('format')}; this version reads {_FORMAT}")
    return fields


def _checksum(fields: Mapping[str, Any]) -> str:
    return sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()
