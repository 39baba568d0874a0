"""What the delivery runtime reads from and writes to, and what it hands to a stage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol, TypeAlias

from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.upcast import UPCASTERS, Upcasters
from context_graph.settings import DeliverySettings
from context_graph.store.again import Again
from context_graph.store.dead_letters import DeadLetter, DeadLetters
from context_graph.store.entries import Entry
from context_graph.store.gaps import Gaps
from context_graph.store.groups import Groups
from context_graph.store.leases import Leases
from context_graph.store.ledger import Ledger
from context_graph.store.parking import Parking
from context_graph.store.tenants import Tenants
from context_graph.store.vault import Vault
from context_graph.store.worker_reports import WorkerReports

Partitions: TypeAlias = Callable[[], Awaitable[Sequence[Partition]]]
"""Which partitions to follow now."""


class Handler(Protocol):
    """What a stage does with a batch of one partition: all of it, or raise."""

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None: ...


class Via(Enum):
    """Where a delivery comes from, and so where it is finished."""

    STREAM = "stream"
    AGAIN = "again"
    PARKED = "parked"


@dataclass(frozen=True, slots=True)
class Delivery:
    """An entry on its way to the handler. `deliveries`: this one included. `letter`: what it is re-driven from.

    `counted` is false where this delivery is to be counted just before it is handled, alone: an entry that was in a
    worker's hand when that ended may be what ended it, and others must not be counted for it.
    """

    entry: Entry
    via: Via = Via.STREAM
    deliveries: int = 1
    counted: bool = True
    letter: DeadLetter | None = None

    @property
    def partition(self) -> Partition:
        return self.entry.partition

    @property
    def position(self) -> Position:
        return self.entry.position

    @property
    def place(self) -> tuple[Partition, Position]:
        """What names it: two tenants may hold the same stream id."""
        return (self.entry.partition, self.entry.position)

    @property
    def alone(self) -> bool:
        """Whether it must not share a batch."""
        return not self.counted or (self.via is not Via.STREAM and self.deliveries > 1)


@dataclass(frozen=True, slots=True)
class Source:
    """The stores of delivery, opened."""

    groups: Groups
    tenants: Tenants
    dead_letters: DeadLetters
    settings: DeliverySettings
    ledger: Ledger
    again: Again
    parking: Parking
    gaps: Gaps
    leases: Leases
    reports: WorkerReports
    upcasters: Upcasters = UPCASTERS
    vault: Vault | None = None

    async def partitions(self) -> list[Partition]:
        """Those of every tenant. Raises StoreUnavailable."""
        return [partition for tenant in await self.tenants.all() for partition in tenant.partitions]

    async def events(self, partition: Partition, entries: Sequence[Entry]) -> list[LedgerEvent]:
        """Entries opened and decoded. Raises PermanentError on one that is no envelope, StoreUnavailable."""
        if self.vault is not None:
            opened = await self.vault.open(partition, [entry.body for entry in entries])
            entries = [
                replace(entry, body=found.body, erased=found.erased)
                for entry, found in zip(entries, opened, strict=True)
            ]
        return [entry.event(self.upcasters) for entry in entries]
