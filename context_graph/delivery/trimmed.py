"""What was trimmed before a stage had read it: found in the archive, or told.

Redis skips what is gone without a word. Here nothing is skipped silently: `Groups.read` and `Groups.reclaim` say what
is missing. What the archive holds is queued to be delivered (`store/again.py`; where order matters it is parked, which
keeps it in order and ahead of what comes); what is nowhere becomes a dead letter that counts the events, fails
readiness, and can be re-driven when the archive has come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from context_graph.delivery.heartbeat import Tally
from context_graph.delivery.source import Source
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.stages import Stage
from context_graph.errors import ArchiveDamaged, ConfigurationError
from context_graph.store.dead_letters import DeadLetter
from context_graph.store.gaps import Gap
from context_graph.store.groups import Orphan

_PAGE = 1_000  # archived entries queued at once
_QUEUE_FULL = 10_000  # queued entries of a group in a partition above which no more are added
_LEASE_MS = 30_000

log = structlog.get_logger(__name__)


class Trimmed:
    """Closes the gaps of one group, as one consumer of it."""

    def __init__(self, source: Source, stage: Stage, consumer: str, tally: Tally) -> None:
        self._source = source
        self._group = stage.group
        self._ordered = stage.ordered
        self._consumer = consumer
        self._tally = tally

    async def close_gaps(self, partition: Partition) -> bool:
        """Queue what the archive has of the partition's gaps; whether there are any. One consumer at a time does it."""
        gaps = await self._source.gaps.open(partition, self._group)
        if not gaps:
            return False
        lease = await self._source.leases.acquire(partition, f"gaps-{self._group}", self._consumer, _LEASE_MS)
        if lease is None:
            return True
        try:
            for gap in await self._source.gaps.open(partition, self._group):
                await self._close(partition, gap)
        finally:
            await self._source.leases.release(lease)
        return True

    async def find(self, partition: Partition, orphans: Sequence[Orphan]) -> None:
        """Orphans that the stream has no more: those of the archive are queued, the others told."""
        try:
            found = await self._source.ledger.entries_anywhere(partition, [orphan.position for orphan in orphans])
        except (ArchiveDamaged, ConfigurationError) as error:
            log.error("trimmed_unread", group=self._group, partition=str(partition), events=len(orphans),
                      reason=str(error))  # fmt: skip
            return
        there = [entry.position for entry in found]
        if there:
            if self._ordered:
                await self._source.parking.park(self._group, found)
            else:
                await self._source.again.move(partition, self._group, there)
            self._tally.recovered += len(there)
        for orphan in orphans:
            if orphan.position not in there:
                await self.lost(partition, just_before(orphan.position), orphan.position, 1)

    async def lost(
        self, partition: Partition, after: Position, until: Position, count: int, *,
        letter: DeadLetter | None = None, session: str = "",
    ) -> None:  # fmt: skip
        """Tell that events are nowhere: a dead letter without an event."""
        self._tally.lost += count
        reason = (
            f"{count:,} events behind {after.stream_id} up to {until.stream_id} were trimmed before {self._group} had "
            "read them, and no archive holds them"
        )
        log.error("events_lost", group=self._group, partition=str(partition), events=count, after=str(after))
        await self._source.dead_letters.bury(
            partition, self._group, until, event_id=letter.event_id if letter is not None else "", reason=reason,
            traceback="", deliveries=0, lost=count, after=after, redriven_from=letter,
            session_id=letter.session_id if letter is not None else session,
        )  # fmt: skip

    async def _close(self, partition: Partition, gap: Gap) -> None:
        gaps, group = self._source.gaps, self._group
        while await self._waiting(partition) < _QUEUE_FULL:
            try:
                found = await self._source.ledger.archived(partition, gap.after, gap.until, _PAGE)
            except (ArchiveDamaged, ConfigurationError) as error:
                log.error("trimmed_unread", group=group, partition=str(partition), reason=str(error))
                await gaps.note(partition, group, replace(gap, problem=str(error)))
                return
            if not found:
                if gap.lost:
                    await self.lost(partition, gap.after, gap.until, gap.lost)
                await gaps.close(partition, group, gap)
                return
            places = [entry.position for entry in found]
            if self._ordered:  # behind what is parked of their sessions, ahead of what comes
                await self._source.parking.park(group, found)
            gap = await gaps.found(partition, group, gap, places, queue=not self._ordered)
            self._tally.recovered += len(found)
            log.warning("read_from_archive", group=group, partition=str(partition), events=len(found))

    async def _waiting(self, partition: Partition) -> int:
        if self._ordered:
            return await self._source.parking.count(partition, self._group)
        return await self._source.gaps.waiting(partition, self._group)


def just_before(position: Position) -> Position:
    """A place with nothing between it and `position`."""
    if position.seq:
        return Position(position.bucket, position.ms, position.seq - 1)
    return Position(position.bucket, max(position.ms - 1, 0), 2**53 - 1 if position.ms else 0)
