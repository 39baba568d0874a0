"""An archive beside the test's ledger: small segments, nothing waits, stages that finish when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.domain.stages import STAGES
from context_graph.store.archive import Archive
from context_graph.store.archive_checking import ArchiveChecks, ArchiveReport
from context_graph.store.archive_files import ArchiveFiles
from context_graph.store.archive_writing import Archived, Archiver, Retention
from context_graph.store.connection import RedisClient
from context_graph.store.groups import Groups
from context_graph.store.keys import PartitionKeys
from context_graph.store.leases import Leases
from context_graph.store.ledger import Ledger

AT_ONCE = Retention(
    segment_events=7, segment_bytes=1 << 20, segment_age_ms=0, settle_ms=0, keep_ms=0, keep_events=1
)  # fmt: skip


@dataclass(slots=True)
class Archiving:
    """A ledger with an archive, and the process that fills it."""

    redis: RedisClient
    files: ArchiveFiles
    tenant: Tenant
    retention: Retention = AT_ONCE
    archive: Archive = field(init=False)
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.reopen()

    def reopen(self) -> None:
        """As a new process would see it: nothing cached."""
        self.archive = Archive(self.files, 1 << 20)
        self.ledger = Ledger(self.redis, archive=self.archive)

    @property
    def partition(self) -> Partition:
        [partition] = self.tenant.partitions
        return partition

    async def run(self, *, flush: bool = True, **changes: Any) -> Archived:
        """One pass."""
        retention = replace(self.retention, **changes)
        archiver = Archiver(self.redis, self.archive, Leases(self.redis), retention)
        return await archiver.run(self.tenant, self.partition, "test", asyncio.Event(), flush=flush)

    async def verify(self) -> ArchiveReport:
        return await ArchiveChecks(self.redis, self.archive).verify(self.partition)

    async def finish(self, groups: Groups, *, but: Sequence[str] = (), through: Position | None = None) -> None:
        """Every stage reads and acknowledges what is there, up to and including `through`; some only read it."""
        for stage in STAGES:
            await groups.ensure(self.partition, stage.group)
            read = await groups.read([self.partition], stage.group, "worker", 100_000)
            done = [entry.position for entry in read if through is None or entry.position <= through]
            if stage.group not in but:
                await groups.acknowledge(self.partition, stage.group, done)

    async def hot(self) -> list[str]:
        """Stream ids in Redis."""
        entries: Any = await self.redis.xrange(PartitionKeys(self.partition).ledger)
        return [stream_id.decode() for stream_id, _ in entries]

    async def everything(self) -> list[LedgerEvent]:
        return await self.ledger.after(self.partition, None, 100_000)
