"""The delivery runtime: how every stage reads the ledger.

What a consumer promises, in prose. A stage sees every event of every partition at least once, in batches. A batch is
handled, then acknowledged; a crash between the two delivers it again, which is harmless because applying twice equals
applying once. When a batch fails it is halved until the events that fail stand alone; the good ones go on at once.

What becomes of a failure is a property of its type:

- `TemporaryError` (Redis or a model is away): an outage. The batch waits with growing pauses and nothing else is read;
  no delivery is counted, nothing becomes a dead letter.
- `ConfigurationError`: the worker ends with it, for an operator to see; the events stay pending.
- any other `PermanentError`, or bytes that are no envelope: a dead letter at once, with reason and traceback.
- anything else: a defect, perhaps a passing one. Delivered again with backoff, a dead letter after `max_deliveries`.

What a dead worker held is taken over when its heartbeat is gone, and so is what this worker was given in an answer that
a broken connection lost. A graceful stop finishes the batch in hand, then
leaves; what still waits for a retry stays pending and is taken over by others.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from traceback import format_exception
from typing import Protocol, TypeAlias

import structlog

from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.stages import Stage
from context_graph.domain.upcast import UPCASTERS, Upcasters
from context_graph.errors import ConfigurationError, PermanentError, StoreUnavailable, TemporaryError
from context_graph.settings import DeliverySettings
from context_graph.store.dead_letters import DeadLetters
from context_graph.store.groups import Entry, Groups, Wakes
from context_graph.store.tenants import Tenants
from context_graph.store.vault import Vault

_LONGEST_BACKOFF = 30.0  # seconds
_RECLAIM_AT_ONCE = 256  # entries taken over in one round of one partition
_MISSED_BEATS = 5

log = structlog.get_logger(__name__)


Partitions: TypeAlias = Callable[[], Awaitable[Sequence[Partition]]]
"""Which partitions to follow now."""


class Handler(Protocol):
    """What a stage does with a batch of one partition: all of it, or raise."""

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None: ...


@dataclass(frozen=True, slots=True)
class Source:
    """What the runtime reads from and writes to."""

    groups: Groups
    tenants: Tenants
    dead_letters: DeadLetters
    settings: DeliverySettings
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


@dataclass(slots=True)
class _Retry:
    entry: Entry
    due: float
    deliveries: int


async def run_stage(
    source: Source, stage: Stage, handler: Handler, stop: asyncio.Event, *, batch: int | None = None,
    partitions: Partitions | None = None,
) -> None:  # fmt: skip
    """Deliver the ledger to `handler` as a member of the stage's group until `stop` is set.

    `batch` bounds the events handled at once (default: settings.batch_events); `partitions` says which are followed
    (default: all of every tenant), asked again at least every `poll_seconds`.
    """
    consumer = f"{stage.group}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    size = batch or source.settings.batch_events
    runner = _Runner(source, stage, handler, consumer, size, partitions=partitions or source.partitions)
    async with asyncio.TaskGroup() as tasks:
        beating = tasks.create_task(_beat(source, consumer), name=f"{stage.group} heartbeat")
        try:
            await runner.run(stop)
        finally:
            beating.cancel()
    await runner.leave()


async def _beat(source: Source, consumer: str) -> None:
    lifetime_ms = int(source.settings.heartbeat_seconds * _MISSED_BEATS * 1000)
    while True:
        try:
            await source.groups.beat(consumer, lifetime_ms)
        except StoreUnavailable as error:
            log.warning("heartbeat_missed", consumer=consumer, reason=str(error))
        await asyncio.sleep(source.settings.heartbeat_seconds)


class _Runner:
    """One consumer's loop and what it holds for later."""

    def __init__(
        self, source: Source, stage: Stage, handler: Handler, consumer: str, batch: int, *, partitions: Partitions
    ) -> None:
        self._source = source
        self._settings = source.settings
        self._stage = stage
        self._handler = handler
        self._consumer = consumer
        self._batch = batch
        self._all_partitions = partitions
        self._retries: list[_Retry] = []
        self._partitions: tuple[Partition, ...] = ()
        self._partitions_read_at = 0.0
        self._reclaimed_at = 0.0
        self._stop = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Rounds until `stop`; an outage of the store is waited out here, with a new subscription afterwards."""
        self._stop = stop
        pause = self._settings.backoff_seconds
        while not stop.is_set():
            try:
                async with self._source.groups.wakes() as wakes:
                    while not stop.is_set():
                        busy = await self._round()
                        pause = self._settings.backoff_seconds
                        if not busy:
                            await self._wait_for_news(wakes)
            except StoreUnavailable as error:
                log.warning("store_unavailable", stage=self._stage.group, retry_in_seconds=pause, reason=str(error))
                await self._sleep(pause)
                pause = min(pause * 2, _LONGEST_BACKOFF)

    async def leave(self) -> None:
        """Say goodbye to the groups; what is still pending stays for others."""
        try:
            for partition in self._partitions:
                await self._source.groups.leave(partition, self._stage.group, self._consumer)
        except StoreUnavailable as error:
            log.warning("left_without_goodbye", stage=self._stage.group, reason=str(error))

    async def _round(self) -> bool:
        """Retries that are due, orphans, then news. Returns whether there was anything to do."""
        await self._discover()
        entries = self._due() + await self._orphans()
        entries += await self._source.groups.read(self._partitions, self._stage.group, self._consumer, self._batch)
        entries.sort(key=lambda entry: (entry.partition, entry.position))
        for partition, group in groupby(entries, key=lambda entry: entry.partition):
            mine = list(group)
            for start in range(0, len(mine), self._batch):
                await self._deliver(partition, mine[start : start + self._batch])
        return bool(entries)

    async def _discover(self) -> None:
        now = time.monotonic()
        if not self._partitions or now - self._partitions_read_at >= self._settings.poll_seconds:
            known = set(self._partitions)
            self._partitions = tuple(await self._all_partitions())
            for partition in self._partitions:
                if partition not in known:  # the read that finds no group returns nothing, and a pause would follow
                    await self._source.groups.ensure(partition, self._stage.group)
            self._partitions_read_at = now

    def _due(self) -> list[Entry]:
        now = time.monotonic()
        return [retry.entry for retry in self._retries if retry.due <= now]

    async def _orphans(self) -> list[Entry]:
        now = time.monotonic()
        if now - self._reclaimed_at < self._settings.reclaim_idle_seconds / 2:
            return []
        self._reclaimed_at = now
        orphans: list[Entry] = []
        for partition in self._partitions:
            orphans += await self._source.groups.reclaim(
                partition,
                self._stage.group,
                self._consumer,
                held=[retry.entry.position for retry in self._retries if retry.entry.partition == partition],
                idle_ms=int(self._settings.reclaim_idle_seconds * 1000),
                stuck_ms=int(self._settings.stuck_seconds * 1000),
                count=_RECLAIM_AT_ONCE,
            )
        if orphans:
            log.info("took_over", stage=self._stage.group, events=len(orphans))
        return orphans

    async def _deliver(self, partition: Partition, entries: Sequence[Entry]) -> None:
        """Handle and acknowledge; on failure halve, so that the good go on and the bad stand alone."""
        try:
            await self._handle_through_outages(partition, entries)
        except (TemporaryError, ConfigurationError):
            raise  # stopping, or nothing of this kind can work until an operator acts: the entries stay pending
        except Exception as error:  # noqa: BLE001 - the loop's edge: every failure ends as a retry or a dead letter
            if len(entries) > 1:
                middle = len(entries) // 2
                await self._deliver(partition, entries[:middle])
                await self._deliver(partition, entries[middle:])
            else:
                await self._failed(entries[0], error)
            return
        await self._source.groups.acknowledge(partition, self._stage.group, [entry.position for entry in entries])
        self._forget_retries(entries)

    async def _handle_through_outages(self, partition: Partition, entries: Sequence[Entry]) -> None:
        pause = self._settings.backoff_seconds
        while True:
            try:
                # Opened anew for each try: who was erased meanwhile is not handled.
                await self._handler.handle(partition, await self._source.events(partition, entries))
                return
            except TemporaryError as error:
                log.warning("outage", stage=self._stage.group, retry_in_seconds=pause, reason=str(error))
                await self._sleep(pause)
                if self._stop.is_set():
                    raise StoreUnavailable("stopping during an outage") from error
                pause = min(pause * 2, _LONGEST_BACKOFF)

    async def _failed(self, entry: Entry, error: Exception) -> None:
        place = (entry.partition, entry.position)  # two tenants may hold the same stream id
        known = next((retry for retry in self._retries if (retry.entry.partition, retry.entry.position) == place), None)
        groups = self._source.groups
        deliveries = await groups.redeliver(entry.partition, self._stage.group, self._consumer, entry.position)
        attempts = max(deliveries - 1, known.deliveries + 1 if known else 1)
        if isinstance(error, PermanentError) or attempts >= self._settings.max_deliveries:
            await self._bury(entry, error, attempts)
            return
        delay = min(self._settings.backoff_seconds * 2 ** (attempts - 1), _LONGEST_BACKOFF)
        log.warning("will_retry", stage=self._stage.group, position=str(entry.position), reason=repr(error))
        self._forget_retries([entry])
        self._retries.append(_Retry(entry, time.monotonic() + delay, attempts))

    async def _bury(self, entry: Entry, error: Exception, attempts: int) -> None:
        log.error("dead_letter", stage=self._stage.group, position=str(entry.position), reason=repr(error))
        await self._source.dead_letters.bury(
            entry.partition,
            self._stage.group,
            entry.position,
            event_id=entry.event_id,
            reason=f"{type(error).__name__}: {error}",
            traceback="".join(format_exception(error)),
            deliveries=attempts,
        )
        self._forget_retries([entry])

    def _forget_retries(self, entries: Sequence[Entry]) -> None:
        done = {(entry.partition, entry.position) for entry in entries}
        self._retries = [r for r in self._retries if (r.entry.partition, r.entry.position) not in done]

    async def _wait_for_news(self, wakes: Wakes) -> None:
        now = time.monotonic()
        seconds = min([self._settings.poll_seconds, *(max(retry.due - now, 0.01) for retry in self._retries)])
        news = asyncio.create_task(wakes.wait(seconds), name=f"{self._stage.group} news")
        stopping = asyncio.create_task(self._stop.wait(), name=f"{self._stage.group} stop")
        try:
            await asyncio.wait({news, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if news.done():
                news.result()
        finally:
            for task in (news, stopping):
                task.cancel()
            await asyncio.gather(news, stopping, return_exceptions=True)

    async def _sleep(self, seconds: float) -> None:
        """A pause that ends early when the stage is to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return
