"""Whether archive and stream are one sequence, and the watch that refuses a second history.

When Redis was lost, or set back to an old copy, the archive knows events that the ledger does not. Whatever is written
then starts a second history: old ids are taken again, the erased are unknown, and the archive cannot be restored any
more. So nothing is appended to such a partition (`Ledger.append` asks) until it was restored.

Asking is cheap: in a second one field of Redis for a partition in use. The archive itself is listed at a process' first
look, again when Redis' own record of it has gone or gone back, and every 30 s while nothing is archived.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.errors import ArchiveUnavailable, LedgerBehind
from context_graph.store.archive import Archive, Catalogue
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.history import ARCHIVED, TRIMMED
from context_graph.store.keys import PartitionKeys

_LOOK_SECONDS = 1.0
_BEHIND_SECONDS = 3.0  # between looks at a partition that is behind: each lists the archive
_LIST_SECONDS = 30.0
_REMEMBER_AT_MOST = 10_000  # partitions

log = structlog.get_logger(__name__)


async def continuity(redis: RedisClient, partition: Partition, catalogue: Catalogue) -> list[str]:
    """Why stream and archive are not one sequence, in words; nothing when they are."""
    end = catalogue.end
    trimmed, words = await _compare(redis, partition, end)
    if trimmed is not None and (end is None or end < trimmed):
        ends = "is empty" if end is None else f"ends at {end.stream_id}"
        return [f"the archive of {partition} {ends}, but the stream was trimmed through {trimmed.stream_id}"]
    return [words] if words else []


async def _compare(redis: RedisClient, partition: Partition, end: Position | None) -> tuple[Position | None, str]:
    """Up to where the stream is trimmed, and in words that it lacks events up to the archive's end."""
    keys = PartitionKeys(partition)
    pipe = redis.pipeline(transaction=False)
    pipe.hget(keys.archived, TRIMMED)
    pipe.exists(keys.ledger)
    if end is not None:
        pipe.xrange(keys.ledger, end.stream_id, end.stream_id)
    with store_errors("comparing the stream with the archive"):
        raw, exists, at_end = [*await pipe.execute(), None][:3]
    trimmed = _position(partition, raw)
    if end is None or at_end or (trimmed is not None and trimmed >= end):
        return trimmed, ""
    stream = "does not hold that event" if exists else "is empty"
    return trimmed, (
        f"the archive of {partition} ends at {end.stream_id}, and the stream {stream}: "
        "Redis lost events; stop what writes and run `context-graph archive restore`"
    )


@dataclass(slots=True)
class _Look:
    """The last look at a partition: until when it holds, what was wrong, and Redis' record of the archive then."""

    until: float = 0.0
    problem: str = ""
    mark: Position | None = None
    listed_until: float = 0.0
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)


class ArchiveWatch:
    """Knows which partitions lack events that the archive holds."""

    def __init__(self, redis: RedisClient, archive: Archive, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._archive = archive
        self._clock = clock
        self._looks: dict[Partition, _Look] = {}
        self._archived: tuple[Partition, ...] = ()
        self._listed_until = 0.0
        self._listing = asyncio.Lock()

    async def check(self, partition: Partition) -> None:
        """Return when events may be appended. Raises LedgerBehind, and StoreUnavailable when that cannot be known."""
        problem = await self.problem(partition)
        if problem:
            raise LedgerBehind(problem)

    async def problem(self, partition: Partition) -> str:
        """What the partition lacks, in words with the remedy; empty: nothing. Raises StoreUnavailable."""
        look = self._looks.get(partition)
        if look is None:
            if len(self._looks) >= _REMEMBER_AT_MOST:
                self._looks.clear()
            look = self._looks[partition] = _Look()
        if self._clock() >= look.until:
            async with look.looking:
                if self._clock() >= look.until:
                    await self._look(partition, look)
        return look.problem

    async def problems(self, known: Iterable[Partition]) -> tuple[str, ...]:
        """The same of every partition that is known or that the archive has, also of tenants that Redis lost."""
        async with self._listing:
            if self._clock() >= self._listed_until:
                try:
                    self._archived = tuple(await self._archive.files.partitions())
                except ArchiveUnavailable as error:
                    log.warning("archive_not_listed", reason=str(error))
                self._listed_until = self._clock() + _LIST_SECONDS
        found = []
        for partition in sorted({*known, *self._archived}):
            try:
                found.append(await self.problem(partition))
            except ArchiveUnavailable as error:
                found.append(f"whether the archive is ahead of {partition} is not known: {error}")
        return tuple(words for words in found if words)

    async def _look(self, partition: Partition, look: _Look) -> None:
        mark, exists = await self._marks(partition)
        now = self._clock()
        in_step = mark is not None and look.mark is not None and mark >= look.mark
        nothing_there = mark is None and look.mark is None and now < look.listed_until
        if not (in_step or nothing_there):
            problem = await self._ask(partition, known=exists)
            if bool(problem) != bool(look.problem):
                log.warning("ledger_behind_archive", partition=str(partition), problem=problem or "over")
            look.problem, look.mark = problem, None if problem else mark
            look.listed_until = 0.0 if problem else now + _LIST_SECONDS
        look.until = self._clock() + (_BEHIND_SECONDS if look.problem else _LOOK_SECONDS)

    async def _ask(self, partition: Partition, *, known: bool) -> str:
        """Compare with the archive itself. Where it is away, a ledger with events goes on; an empty one may be lost."""
        try:
            end = await self._archive.newest(partition)
        except ArchiveUnavailable as error:
            if not known:
                raise
            log.warning("archive_not_compared", partition=str(partition), reason=str(error))
            return ""
        return "" if end is None else (await _compare(self._redis, partition, end))[1]

    async def _marks(self, partition: Partition) -> tuple[Position | None, bool]:
        """How far Redis says the partition is archived, and whether its stream has ever had an event."""
        keys = PartitionKeys(partition)
        pipe = self._redis.pipeline(transaction=False)
        pipe.hget(keys.archived, ARCHIVED)
        pipe.exists(keys.ledger)
        with store_errors("asking how far the ledger is archived"):
            raw, exists = await pipe.execute()
        return _position(partition, raw), bool(exists)


def _position(partition: Partition, raw: bytes | None) -> Position | None:
    return None if raw is None else Position.of_stream_id(partition.bucket, raw.decode())
