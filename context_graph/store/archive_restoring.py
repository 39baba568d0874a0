"""`archive restore`: the way back from the archive into a Redis that has lost a partition.

Entries come back under their own ids, with the ids hash and the session lists, in one script per batch: an interrupted
restore is simply run again. It goes on only where the stream holds what the archive says or nothing at all. Then the
wrapped data keys come back, but for those of the erased; who was erased is known by the archive's own files and by the
tombstones among its entries, and is refused from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.errors import ConfigurationError, VaultLocked
from context_graph.store.archive import Archive, Catalogue
from context_graph.store.archive_keys import ArchivedKeys, erased_by
from context_graph.store.archive_segments import Record
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.history import ARCHIVED, TRIMMED
from context_graph.store.keys import PartitionKeys
from context_graph.store.tenants import Tenants
from context_graph.store.vault import Vault


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did: entries put back and there already, keys the archive has, subjects that stay erased."""

    added: int
    present: int
    keys: int = 0
    erased: int = 0

    @property
    def words(self) -> str:
        """`30 events restored, 0 were there; 12 keys, 1 subject stays erased`."""
        said = f"{self.added:,} events restored, {self.present:,} were there"
        said += f"; {self.keys:,} data keys" if self.keys else ""
        return said + (f"; erased and kept so: {self.erased:,}" if self.erased else "")


class Restore:
    """Puts archived entries back into any partition's stream."""

    def __init__(self, redis: RedisClient, archive: Archive, tenants: Tenants, vault: Vault) -> None:
        self._redis = redis
        self._archive = archive
        self._tenants = tenants
        self._vault = vault
        self._keys = ArchivedKeys(redis, archive)
        self._script = redis.register_script(files("context_graph.store").joinpath("lua/restore.lua").read_text())

    async def run(self, partition: Partition) -> Restored:
        """Everything the archive has of a partition, into its stream; makes the tenant when it is gone.

        The keys come last, and of them none that a tombstone or the archive names as erased.
        Nothing may write to the partition meanwhile. Raises ConfigurationError where the stream holds other entries,
        VaultLocked where events are sealed and no master key is known (nothing is restored then),
        ArchiveDamaged at what is missing or changed (what came before is restored), StoreUnavailable.
        """
        catalogue = await self._archive.refresh(partition)
        if catalogue.end is None:
            return Restored(0, 0)
        kept = await self._keys.restorable(partition, catalogue)
        if kept.pepper is not None and not self._vault.enabled:
            raise VaultLocked(
                f"the archive of {partition} has sealed events, and no master key is known: set CG_VAULT__MASTER_KEY "
                "to the one they were sealed by, or put it into the file master-key of the data folder"
            )
        await self._ensure_tenant(catalogue)
        await self._vault.keys.check_pepper(partition, kept.pepper)
        keys = PartitionKeys(partition)
        with store_errors("reading how far the ledger is trimmed"):
            raw: Any = await self._redis.hget(keys.archived, TRIMMED)
        trimmed = None if raw is None else Position.of_stream_id(partition.bucket, raw.decode())
        added = present = 0
        erased = dict(kept.erased)
        async for records in self._archive.records(partition, trimmed, catalogue.end):
            new = await self._put(partition, records)
            erased |= erased_by(records)
            added += new
            present += len(records) - new
        with store_errors("noting what is archived"):
            await self._redis.hset(keys.archived, ARCHIVED, catalogue.end.stream_id)
        alive = {tag: key for tag, key in kept.keys.items() if tag not in erased}
        await self._vault.keys.restore(partition, kept.pepper, alive, erased)
        return Restored(added, present, len(alive), len(erased))

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
