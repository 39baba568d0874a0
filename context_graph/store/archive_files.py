"""Where the archive's files lie: a folder or an object store, by fsspec.

Owns how a file gets there whole or not at all: on a local disk by a temporary name, fsync, rename and fsync of the
folder; on an object store by the one put that makes an object visible. Segments and manifests are never changed and
never deleted; key files are (`store/archive_keys.py`). fsspec blocks, so every call runs in a thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from context_graph.domain.partition import TENANT_NAME, Partition
from context_graph.errors import ArchiveDamaged, ArchiveUnavailable, ConfigurationError


class ArchiveFiles:
    """Files of the archive by partition: `<root>/<tenant>/<bucket>/<name>`."""

    def __init__(self, filesystem: Any, root: str) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")

    def where(self, partition: Partition, name: str = "") -> str:
        """The path of a file or, without a name, of a partition's folder."""
        return f"{self._root}/{partition.tenant}/{partition.bucket}/{name}".rstrip("/")

    async def write(self, partition: Partition, name: str, data: bytes) -> None:
        """Put a file there, whole; when this returns it is as durable as the store can make it.

        Raises ArchiveUnavailable, after which the file is there or not.
        """
        with _errors(f"writing {self.where(partition, name)}"):
            await asyncio.to_thread(self._write, self.where(partition, name), data)

    def _write(self, path: str, data: bytes) -> None:
        if isinstance(self._fs, LocalFileSystem):
            _write_local(Path(path), data)
        else:
            self._fs.pipe_file(path, data)

    async def read(self, partition: Partition, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """A file, or its bytes from `start` up to `end`. Raises ArchiveDamaged when it is missing."""
        path = self.where(partition, name)
        with _errors(f"reading {path}"):
            data: bytes = await asyncio.to_thread(self._fs.cat_file, path, start, end)
        return data

    async def delete(self, partition: Partition, name: str) -> None:
        """Remove a file. Raises ArchiveUnavailable, and ArchiveDamaged when there is none."""
        path = self.where(partition, name)
        with _errors(f"deleting {path}"):
            await asyncio.to_thread(self._fs.rm_file, path)

    async def sizes(self, partition: Partition) -> dict[str, int]:
        """The files of a partition with their bytes; none when it has no folder yet."""
        folder = self.where(partition)
        with _errors(f"listing {folder}"):
            found = await asyncio.to_thread(self._list, folder)
        return {_last(item): int(item["size"] or 0) for item in found if item["type"] == "file"}

    async def partitions(self) -> list[Partition]:
        """Every partition that has a folder, in order."""
        with _errors(f"listing {self._root}"):
            return sorted(await asyncio.to_thread(self._partitions))

    def _partitions(self) -> list[Partition]:
        names = [(_last(tenant), tenant["name"]) for tenant in self._list(self._root) if tenant["type"] == "directory"]
        return [
            Partition.parse(f"{tenant}.{_last(bucket)}")
            for tenant, path in names
            if TENANT_NAME.fullmatch(tenant) is not None
            for bucket in self._list(path)
            if bucket["type"] == "directory" and _last(bucket).isdecimal()
        ]

    def _list(self, folder: str) -> list[dict[str, Any]]:
        self._fs.invalidate_cache(folder)  # another process may have written since
        try:
            found: list[dict[str, Any]] = self._fs.ls(folder, detail=True)
        except FileNotFoundError:
            return []
        return found


def open_files(url: str) -> ArchiveFiles:
    """The files at an address such as file:///var/lib/cg or s3://bucket/prefix.

    Raises ConfigurationError when the address is none or needs a package that is not installed.
    """
    try:
        filesystem, root = url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(f"CG_ARCHIVE__URL={url} cannot be opened: {error}") from error
    return ArchiveFiles(filesystem, root)


def _write_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _last(item: dict[str, Any]) -> str:
    return str(item["name"]).rstrip("/").rpartition("/")[2]


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ArchiveDamaged(f"the archive misses a file, seen when {doing}") from error
    except OSError as error:
        raise ArchiveUnavailable(f"the archive does not answer when {doing}: {error}") from error
