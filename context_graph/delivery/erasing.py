"""Finishing erasures: what was derived from an erased subject is removed when no stage can bring it back.

The order is the whole point. The keys are destroyed and the tombstones appended already (`store/erasures.py`; again
here if that was interrupted), so nothing of the subject can be opened any more or be appended behind the tombstone.
But a worker may still hold an event that it opened before. So: take out of indexes and facts what answers could quote,
because a stage may be behind for an hour; wait until every consumer group that the stream has, has finished everything
up to the tombstone; wait as long as processes remember keys; take the keys out of the archive; sweep every generation
of every partition; write the certificate; have the servers write their files anew.

A generation that is being built is not waited for: its replay may take hours. What its stages open from now on they
open as erased, so it is enough that nobody holds an event any more that was handed out while a process could remember
the key. For the same reason a group that comes later has nothing to remove.

Nothing is certified that was not seen: while the archive cannot be written, or this process has none although there is
one, the erasure stays unfinished and says why.

Any worker may do it, one at a time under a lease; interrupted anywhere, the next one does the same again.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import time

import structlog

from context_graph.domain.erasure import Erasure, Removal, Subject
from context_graph.domain.generations import Table
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.domain.stages import generation_of
from context_graph.errors import ArchiveDamaged, ArchiveUnavailable, TemporaryError
from context_graph.store.archive_keys import ArchivedKeys
from context_graph.store.archive_writing import LEASE as ARCHIVE_LEASE
from context_graph.store.connection import RedisClient
from context_graph.store.erasures import Erasures
from context_graph.store.generations import Generations
from context_graph.store.groups import Groups
from context_graph.store.hiding import tombstones
from context_graph.store.history import History
from context_graph.store.idempotency import IdempotencyKeys
from context_graph.store.leases import Lease, Leases
from context_graph.store.server_files import rewrite_files
from context_graph.store.sweeping import Sweeper
from context_graph.store.tenants import Tenants
from context_graph.store.vault import Vault

_LEASE = "erasure"
_LEASE_MS = 60_000
_LOOK_AGAIN = 0.05  # seconds between two looks at the groups
_PATIENCE = 5.0  # seconds for stages that are behind, before other erasures have their turn
_FILES_SECONDS = 60.0
_LONGEST_PAUSE = 30.0

log = structlog.get_logger(__name__)


def _now_ms() -> int:
    return int(time() * 1000)


@dataclass(frozen=True, slots=True)
class Eraser:
    """Finishes the erasures of every tenant. The servers are those of the ledger and of what is derived.

    `archived_keys`: the archive's, None in a process without one; `history` knows whether there is an archive.
    """

    erasures: Erasures
    sweeper: Sweeper
    groups: Groups
    leases: Leases
    tenants: Tenants
    vault: Vault
    servers: tuple[tuple[str, RedisClient], ...]
    history: History
    kept_answers: IdempotencyKeys
    generations: Generations
    again_seconds: float
    archived_keys: ArchivedKeys | None = None
    now_ms: Callable[[], int] = _now_ms

    async def run(self, stop: asyncio.Event, poll_seconds: float) -> None:
        """Look for erasures every `poll_seconds` until `stop`; an outage of the store is waited out."""
        pause = poll_seconds
        rewrapped = False
        while not stop.is_set():
            try:
                if not rewrapped:
                    await self.rewrap_all()
                    rewrapped = True
                await self.finish_all(stop)
                pause = poll_seconds
            except TemporaryError as error:
                log.warning("erasure_interrupted", reason=str(error), retry_in_seconds=pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                async with asyncio.timeout(pause):
                    await stop.wait()
            except TimeoutError:
                continue

    async def finish_all(self, stop: asyncio.Event) -> None:
        """Every erasure that can be finished now. Raises StoreUnavailable."""
        for tenant in await self.tenants.all() if self.vault.enabled else ():
            if await self.erasures.running(tenant):
                await self._finish_those_of(tenant, stop)

    async def _finish_those_of(self, tenant: Tenant, stop: asyncio.Event) -> None:
        holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        lease = await self.leases.acquire(tenant.partitions[0], _LEASE, holder, _LEASE_MS)
        if lease is None:
            return
        try:
            struck = [await self._strike(tenant, erasure) for erasure in await self.erasures.running(tenant)]
            deadline = asyncio.get_running_loop().time() + _PATIENCE
            for erasure in struck:
                await self._finish(tenant, erasure, lease, stop, deadline)
        finally:
            await self.leases.release(lease)

    async def _strike(self, tenant: Tenant, erasure: Erasure) -> Erasure:
        """Struck, and out of every index that stages may still be behind with: answers quote what is in there."""
        if erasure.subject is None:
            return erasure
        struck = await self.erasures.strike(tenant, erasure)
        for partition, at in tombstones(struck).items():
            if await self._behind_in(partition, at):
                removed = await self.sweeper.hide(partition, Subject(erasure.kind, erasure.subject), at)
                await self.erasures.add_hidden(tenant, struck.id, removed)
        return struck

    async def _finish(
        self, tenant: Tenant, struck: Erasure, lease: Lease, stop: asyncio.Event, deadline: float
    ) -> None:
        if struck.subject is None:
            return
        places = tombstones(struck)
        subject = Subject(struck.kind, struck.subject)
        behind = await self._behind(places, lease, stop, deadline)
        if behind:
            await self.erasures.keep_waiting(tenant, struck, f"stages that have not passed it: {', '.join(behind)}")
            log.info("erasure_waits_for_stages", tenant=tenant.name, erasure_id=struck.id, groups=behind)
            return
        await asyncio.sleep(self.vault.cache_seconds)
        try:
            archived = [await self._leave_archive(partition, subject, struck.id) for partition in places]
        except (ArchiveUnavailable, ArchiveDamaged) as error:
            await self.erasures.keep_waiting(tenant, struck, str(error))
            log.warning("erasure_waits_for_archive", tenant=tenant.name, erasure_id=struck.id, reason=str(error))
            return
        removals = [*struck.removals, *archived]
        removals += [await self.sweeper.sweep(partition, subject, at) for partition, at in places.items()]
        answers = await self.kept_answers.leave_explanations_out(tenant.name)
        removals.append(Removal(removed={"kept_explanations": answers} if answers else {}))
        await self.generations.change(tenant.name, Table.unquoted)
        done = await self.erasures.finish(tenant, replace(struck, removals=tuple(removals)), self.now_ms())
        # After the record, which held the subject's name until now.
        files = {name: await rewrite_files(client, _FILES_SECONDS) for name, client in self.servers}
        await self.erasures.keep(tenant, replace(done, files=files))
        log.info("erased", tenant=tenant.name, erasure_id=struck.id, kind=struck.kind)

    async def _leave_archive(self, partition: Partition, subject: Subject, erasure_id: str) -> Removal:
        """Take the subject's key out of the partition's archive. Raises ArchiveUnavailable while that cannot be."""
        if self.archived_keys is None:
            if await self.history.archived_through(partition) is None:
                return Removal()
            raise ArchiveUnavailable(f"{partition} has an archive, and the workers do not know it: set CG_ARCHIVE__URL")
        lease = await self.leases.acquire(partition, ARCHIVE_LEASE, f"{socket.gethostname()}-{os.getpid()}", _LEASE_MS)
        if lease is None:
            raise ArchiveUnavailable(f"the archive of {partition} is being written; its keys are removed after that")
        try:
            tag = await self.vault.tag_of(partition, subject)
            done = await self.archived_keys.destroy(partition, tag, erasure_id)
        finally:
            await self.leases.release(lease)
        return Removal(scanned={"archived_key_files": done.files}, removed={"archived_keys": done.keys})

    async def _behind(
        self, places: dict[Partition, Position], lease: Lease, stop: asyncio.Event, deadline: float
    ) -> list[str]:
        """Groups that may still hold what was opened before the tombstones; waits a while for them to be none."""
        loop = asyncio.get_running_loop()
        while True:
            behind = {group for at in places.items() for group in await self._behind_in(*at)}
            if not behind or stop.is_set() or loop.time() >= deadline:
                return sorted(behind)
            await self.leases.renew(lease)
            await asyncio.sleep(_LOOK_AGAIN)

    async def _behind_in(self, partition: Partition, tombstone: Position) -> list[str]:
        building = (await self.generations.read(partition.tenant)).building
        opened_by = tombstone.ms + int(self.vault.cache_seconds * 1000)
        behind = []
        for group in await self.groups.names(partition):
            if (await self.groups.state(partition, group)).has_passed(tombstone):
                continue
            again_ms = int(self.again_seconds * 1000)
            if generation_of(group) == building and await self.groups.let_go(partition, group, opened_by, again_ms):
                continue
            behind.append(group)
        return behind

    async def rewrap_all(self) -> None:
        """After a rotation of the master key: wrap what the previous ones wrapped, so that they can be dropped."""
        for tenant in await self.tenants.all():
            for partition in tenant.partitions:
                count = await self.vault.keys.rewrap(partition)
                if count:
                    log.info("keys_rewrapped", partition=str(partition), keys=count)
                if self.vault.keys.was_rotated and self.archived_keys is not None:
                    await self._rewrap_archive(partition, self.archived_keys)

    async def _rewrap_archive(self, partition: Partition, archived: ArchivedKeys) -> None:
        """The archive's copies too, while previous master keys are named: they must not be needed for a restore."""
        lease = await self.leases.acquire(partition, ARCHIVE_LEASE, f"{socket.gethostname()}-{os.getpid()}", _LEASE_MS)
        if lease is None:
            raise ArchiveUnavailable(f"the archive of {partition} is being written; its keys are wrapped after that")
        try:
            files = await archived.rewrap(partition)
        finally:
            await self.leases.release(lease)
        log.info("archived_keys_rewrapped", partition=str(partition), files=files)
