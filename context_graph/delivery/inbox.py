"""What a consumer is given and what it holds for later, and how each delivery is counted and finished.

Counting is what finds an event that kills its worker. The count lives in Redis (the pending list, or the queue of
entries to deliver again) and is raised before the handler runs, never after. A batch that a dead worker left is tried
once more as a batch; what was left twice comes alone, each counted in its own turn, so that the innocent behind a
killer are not counted with it. During an outage the count is taken back: nobody dies of that. What this process itself
lost sight of (a broken connection) is no suspect, because the process lives.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from context_graph.delivery.heartbeat import MISSED_BEATS, Tally
from context_graph.delivery.source import Delivery, Source, Via
from context_graph.delivery.trimmed import Trimmed, just_before
from context_graph.domain.partition import Partition
from context_graph.domain.stages import Stage
from context_graph.errors import ArchiveDamaged, ConfigurationError
from context_graph.store.again import Taken
from context_graph.store.entries import Entry
from context_graph.store.groups import Orphan

_RECLAIM_AT_ONCE = 256  # entries taken over in one round of one partition
_FEWEST_DEATHS = 3  # the first of a batch, the second of a batch, and one alone: fewer accuse nobody

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Retry:
    delivery: Delivery
    due: float


class Inbox:
    """The deliveries of one consumer."""

    def __init__(self, source: Source, stage: Stage, consumer: str, batch: int, tally: Tally) -> None:
        self._source = source
        self._settings = source.settings
        self._group = stage.group
        self._ordered = stage.ordered
        self.consumer = consumer
        self.batch = batch
        self.tally = tally
        self.trimmed = Trimmed(source, stage, consumer, tally)
        self._retries: list[_Retry] = []
        self._looked_at = 0.0
        self._dropped_at = time.monotonic()

    @property
    def retried(self) -> list[Delivery]:
        """What waits here for another try."""
        return [retry.delivery for retry in self._retries]

    def due(self, partitions: Iterable[Partition]) -> list[Delivery]:
        """Retries whose time has come."""
        now, mine = time.monotonic(), set(partitions)
        return [retry.delivery for retry in self._retries if retry.due <= now and retry.delivery.partition in mine]

    def next_retry_seconds(self) -> float:
        """Until the first retry is due; infinite without any."""
        now = time.monotonic()
        return min((max(retry.due - now, 0.01) for retry in self._retries), default=float("inf"))

    async def news(self, partitions: Sequence[Partition]) -> list[Delivery]:
        """New entries of all these partitions."""
        entries = await self._source.groups.read(
            partitions, self._group, self.consumer, self.batch, ordered=self._ordered
        )
        return [Delivery(entry) for entry in entries]

    async def orphans(self, partitions: Sequence[Partition]) -> list[Delivery]:
        """Now and then: what dead workers left, what was trimmed unread is looked for, dead consumers are removed."""
        now = time.monotonic()
        if now - self._looked_at < self._settings.reclaim_idle_seconds / 2:
            return []
        self._looked_at = now
        found: list[Delivery] = []
        for partition in partitions:
            idle_ms = int(self._settings.reclaim_idle_seconds * 1000)
            found += await self.take_over(partition, idle_ms, int(self._settings.stuck_seconds * 1000))
            await self.trimmed.close_gaps(partition)
        lifetime = self._settings.heartbeat_seconds * MISSED_BEATS
        if now - self._dropped_at > lifetime:
            self._dropped_at = now
            for partition in partitions:
                await self._source.groups.drop_dead(partition, self._group, int(lifetime * 2000))
        return found

    async def take_over(
        self, partition: Partition, idle_ms: int, stuck_ms: int, count: int = _RECLAIM_AT_ONCE
    ) -> list[Delivery]:
        """What nobody alive works on in a partition; who killed its workers too often is buried instead."""
        held = [retry.delivery.position for retry in self._retries if retry.delivery.partition == partition]
        orphans = await self._source.groups.reclaim(
            partition, self._group, self.consumer, held=held, idle_ms=idle_ms, stuck_ms=stuck_ms,
            count=count,
        )  # fmt: skip
        if not orphans:
            return []
        self.tally.took_over += len(orphans)
        log.info("took_over", stage=self._group, partition=str(partition), events=len(orphans))
        gone = [orphan for orphan in orphans if orphan.entry is None]
        if gone:
            await self.trimmed.find(partition, gone)
        deliveries: list[Delivery] = []
        for orphan in orphans:
            if orphan.entry is not None:
                deliveries += await self._inherited(orphan, orphan.entry)
        fresh = [orphan.position for orphan in orphans if orphan.entry and not orphan.own and orphan.deliveries <= 1]
        await self._source.groups.count_delivery(partition, self._group, self.consumer, fresh)
        return deliveries

    async def _inherited(self, orphan: Orphan, entry: Entry) -> list[Delivery]:
        if orphan.own:
            return [Delivery(entry, deliveries=max(orphan.deliveries, 1))]
        if orphan.deliveries <= 1:
            return [Delivery(entry, deliveries=orphan.deliveries + 1)]
        suspect = Delivery(entry, deliveries=orphan.deliveries, counted=False)
        return [] if await self.buried_as_killer(suspect) else [suspect]

    async def again(self, partitions: Sequence[Partition]) -> list[Delivery]:
        """What is to be delivered once more, out of its turn."""
        lease_ms = int(self._settings.again_seconds * 1000)
        taken = await self._source.again.take(partitions, self._group, count=self.batch, lease_ms=lease_ms)
        found: list[Delivery] = []
        for partition, places in taken:
            found += await self._taken(partition, places)
        return found

    async def _taken(self, partition: Partition, places: Sequence[Taken]) -> list[Delivery]:
        letters = {
            taken.position: await self._source.dead_letters.get(partition, f"{partition.bucket}-{taken.letter}")
            for taken in places
            if taken.letter
        }
        try:
            entries = await self._source.ledger.entries_anywhere(partition, [taken.position for taken in places])
        except (ArchiveDamaged, ConfigurationError) as error:
            log.error("not_delivered_again", stage=self._group, partition=str(partition), reason=str(error))
            return []  # they are anybody's again later
        bodies = {entry.position: entry for entry in entries}
        found: list[Delivery] = []
        for taken in places:
            letter = letters.get(taken.position)
            entry = bodies.get(taken.position)
            if entry is None:
                await self.trimmed.lost(partition, just_before(taken.position), taken.position, 1, letter=letter)
                continue
            delivery = Delivery(entry, Via.AGAIN, taken.deliveries, letter=letter)
            if not await self.buried_as_killer(delivery):
                found.append(delivery)
        return found

    async def counted(self, partition: Partition, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Count those that are not yet; each is then one delivery further."""
        ahead = [delivery for delivery in deliveries if not delivery.counted]
        await self._count(partition, ahead)
        return [
            delivery if delivery.counted else replace(delivery, counted=True, deliveries=delivery.deliveries + 1)
            for delivery in deliveries
        ]

    async def _count(self, partition: Partition, ahead: Sequence[Delivery]) -> None:
        by_via = {via: [d.position for d in ahead if d.via is via] for via in Via}
        await self._source.groups.count_delivery(partition, self._group, self.consumer, by_via[Via.STREAM])
        if by_via[Via.AGAIN]:
            lease_ms = int(self._settings.again_seconds * 1000)
            await self._source.again.recount(partition, self._group, by_via[Via.AGAIN], lease_ms)
        await self._source.parking.count_delivery(partition, self._group, by_via[Via.PARKED])

    async def uncounted(self, partition: Partition, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """An outage: this delivery did not happen."""
        before = [replace(d, counted=False, deliveries=d.deliveries - 1) for d in deliveries]
        by_count: dict[int, list[Delivery]] = {}
        for delivery in before:
            if delivery.via is Via.STREAM:
                by_count.setdefault(delivery.deliveries, []).append(delivery)
        for count, those in by_count.items():
            await self._source.groups.set_deliveries(
                partition, self._group, self.consumer, [d.position for d in those], count
            )
        others = [delivery.position for delivery in before if delivery.via is not Via.STREAM]
        await self._source.again.uncount(partition, self._group, others)
        return before

    async def done(self, partition: Partition, deliveries: Sequence[Delivery]) -> None:
        """They were handled."""
        stream = [delivery.position for delivery in deliveries if delivery.via is Via.STREAM]
        again = [delivery.position for delivery in deliveries if delivery.via is Via.AGAIN]
        await self._source.groups.acknowledge(partition, self._group, stream)
        await self._source.dead_letters.settle(partition, self._group, again)
        await self._source.parking.done(self._group, [d.entry for d in deliveries if d.via is Via.PARKED])
        self._forget_retries(deliveries)

    async def postpone(self, partition: Partition, deliveries: Sequence[Delivery]) -> None:
        """Done in part: the rest waits in the queue, for anybody, and no delivery is counted."""
        stream = [delivery.position for delivery in deliveries if delivery.via is Via.STREAM]
        if stream:
            await self._source.again.move(partition, self._group, stream)
        again = [delivery.position for delivery in deliveries if delivery.via is Via.AGAIN]
        await self._source.again.put_back(partition, self._group, again)
        self._forget_retries(deliveries)

    async def retry(self, delivery: Delivery, seconds: float) -> None:
        """Try it once more after a pause. What came from the queue waits there, for anybody."""
        self.tally.retries += 1
        self._forget_retries([delivery])
        if delivery.via is Via.AGAIN:
            due_ms = int((time.time() + seconds) * 1000)
            await self._source.again.defer(delivery.partition, self._group, delivery.position, due_ms)
        else:
            self._retries.append(_Retry(delivery, time.monotonic() + seconds))

    async def bury(self, delivery: Delivery, reason: str, traceback: str) -> None:
        """Make it a dead letter."""
        entry = delivery.entry
        self.tally.dead_letters += 1
        log.error("dead_letter", stage=self._group, position=str(entry.position), reason=reason)
        await self._source.dead_letters.bury(
            entry.partition, self._group, entry.position, event_id=entry.event_id, reason=reason, traceback=traceback,
            deliveries=delivery.deliveries, event_type=entry.event_type, session_id=entry.session_id,
            subjects=entry.subjects, redriven_from=delivery.letter,
        )  # fmt: skip
        self._forget_retries([delivery])

    async def buried_as_killer(self, delivery: Delivery) -> bool:
        """Whether it was in hand too often when a worker ended; it is a dead letter then."""
        deaths = delivery.deliveries if not delivery.counted else delivery.deliveries - 1
        if deaths < max(self._settings.max_deliveries, _FEWEST_DEATHS):
            return False
        reason = f"WorkerDied: killed its worker {deaths} times: each ended with this event in hand"
        await self.bury(replace(delivery, deliveries=deaths), reason, "")
        return True

    def _forget_retries(self, deliveries: Sequence[Delivery]) -> None:
        done = {delivery.place for delivery in deliveries}
        self._retries = [retry for retry in self._retries if retry.delivery.place not in done]
