"""Order within a session, for the stages to which it matters; for all others nothing here costs anything.

Three rules give it. One worker at a time reads a partition, under a lease that it renews with its heartbeat; whoever
takes the lease first takes over all that is pending there. While an event of a session waits for another try, is a
dead letter, or later ones are parked, what comes of that session is parked too (`store/parking.py`). When the first of
them was handled, re-driven or discarded, the parked ones go on one after the other, before anything newer of theirs.

What the lease cannot prevent: a worker that was suspended for longer than its lease and wakes in the middle of a batch
finishes that batch beside its successor. Its effects are harmless by themselves; their order is not promised then.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from context_graph.delivery.heartbeat import MISSED_BEATS
from context_graph.delivery.inbox import Inbox
from context_graph.delivery.source import Delivery, Source, Via
from context_graph.delivery.trimmed import just_before
from context_graph.domain.partition import Partition
from context_graph.domain.stages import Stage
from context_graph.store.leases import Lease

_EVERYTHING = 100_000  # pending entries taken over with a partition, more than any batch

log = structlog.get_logger(__name__)


class Ordering:
    """The order that one consumer keeps."""

    def __init__(self, source: Source, stage: Stage, inbox: Inbox) -> None:
        self._source = source
        self._stage = stage
        self._inbox = inbox
        self._leases: dict[Partition, Lease] = {}
        self._inherited: list[Delivery] = []

    async def mine(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        """The partitions that this consumer may read now; what was pending in one just taken comes with `freed`."""
        if not self._stage.ordered:
            return partitions
        ttl_ms = int(self._source.settings.heartbeat_seconds * MISSED_BEATS * 1000)
        for partition in partitions:
            if partition not in self._leases:
                lease = await self._source.leases.acquire(
                    partition, f"stage-{self._stage.group}", self._inbox.consumer, ttl_ms
                )
                if lease is not None:
                    self._leases[partition] = lease
                    self._inherited += await self._inbox.take_over(partition, 0, 0, _EVERYTHING)
        return [partition for partition in partitions if partition in self._leases]

    async def freed(self, partitions: Sequence[Partition]) -> list[Delivery]:
        """What was taken over with a partition, and the next parked event that nothing holds any more."""
        if not self._stage.ordered:
            return []
        freed, self._inherited = self._inherited, []
        for partition in partitions:
            found = await self._source.parking.free(partition, self._stage.group, self._trying(partition))
            if found is None:
                continue
            session, position = found
            tries = await self._source.parking.deliveries(partition, self._stage.group, position)
            entries = await self._source.ledger.entries_anywhere(partition, [position])
            if not entries:
                await self._inbox.trimmed.lost(partition, just_before(position), position, 1, session=session)
            for entry in entries:
                delivery = Delivery(entry, Via.PARKED, tries, counted=False)
                if not await self._inbox.buried_as_killer(delivery):
                    freed.append(delivery)
        return freed

    async def open(self, partitions: Sequence[Partition]) -> list[Partition]:
        """Those in which news may be read: nothing trimmed is to be looked for first, and few enough are parked."""
        found: list[Partition] = []
        for partition in partitions:
            full = await self._source.parking.count(partition, self._stage.group) >= self._source.settings.max_parked
            if full:
                log.error("too_many_parked", stage=self._stage.group, partition=str(partition))
            elif not await self._source.gaps.open(partition, self._stage.group):
                found.append(partition)
        return found

    async def unparked(self, partition: Partition, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those that may be handled now; the others are parked."""
        if not self._stage.ordered:
            return deliveries
        sessions = sorted({delivery.entry.session_id for delivery in deliveries})
        waiting = await self._source.parking.waiting(partition, self._stage.group, sessions)
        waiting |= self._trying(partition)
        first = {delivery.place for delivery in self._inbox.retried}
        parked = [
            delivery
            for delivery in deliveries
            if delivery.entry.session_id in waiting
            and delivery.via is not Via.PARKED
            and delivery.letter is None
            and delivery.place not in first
        ]
        if not parked:
            return deliveries
        await self._source.parking.park(self._stage.group, [delivery.entry for delivery in parked])
        self._inbox.tally.parked += len(parked)
        log.info("parked", stage=self._stage.group, partition=str(partition), events=len(parked))
        places = {delivery.place for delivery in parked}
        return [delivery for delivery in deliveries if delivery.place not in places]

    async def renew(self) -> None:
        """With each heartbeat: the partitions stay this consumer's; one that was lost is no longer read."""
        for partition, lease in list(self._leases.items()):
            if not await self._source.leases.renew(lease):
                log.warning("partition_lost", stage=self._stage.group, partition=str(partition))
                self._leases.pop(partition, None)

    async def leave(self) -> None:
        """Others may read the partitions at once."""
        while self._leases:
            _, lease = self._leases.popitem()
            await self._source.leases.release(lease)

    def _trying(self, partition: Partition) -> set[str]:
        """Sessions in which something waits for another try."""
        return {d.entry.session_id for d in self._inbox.retried if d.partition == partition}
