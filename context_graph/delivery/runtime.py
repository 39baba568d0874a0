"""The delivery runtime: how every stage reads the ledger.

What a consumer promises, in prose. A stage sees every event of every partition at least once, in batches. A batch is
handled, then acknowledged; a crash between the two delivers it again, which is harmless because applying twice equals
applying once. When a batch fails it is halved until the events that fail stand alone; the good ones go on at once.

What becomes of a failure is a property of its type:

- `TemporaryError` (Redis or a model is away): an outage. The batch waits with growing pauses and nothing else is read;
  no delivery is counted, nothing becomes a dead letter.
- `PartlyDone`: what could be done without what is away is stored. The events go to the queue of those delivered once
  more, and what comes after them goes on. Of that queue a batch is tried after growing pauses; if it succeeds, all.
- `ConfigurationError`: the worker ends with it, for an operator to see; the events stay pending.
- any other `PermanentError`, or bytes that are no envelope: a dead letter at once, with reason and traceback.
- anything else: a defect, perhaps a passing one. Delivered again with backoff, a dead letter after `max_deliveries`.

What a dead worker held is taken over when its heartbeat is gone, and so is what this worker was given in an answer that
a broken connection lost. An event that was in a worker's hand when it ended may be what ended it: it is delivered
alone, counted before, and is a dead letter when that has happened `max_deliveries` times (`inbox.py`).

For a stage to which order matters, one worker at a time reads a partition, and behind a failed event the later ones of
its session are parked (`ordering.py`). What was trimmed unread is found in the archive or told (`trimmed.py`).

A graceful stop finishes the batch in hand, then leaves; what still waits for a retry stays pending and is taken over by
others. What is not finished within `stop_seconds` is left the same way.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from traceback import format_exception

import structlog

from context_graph.delivery.heartbeat import Tally, beat
from context_graph.delivery.inbox import Inbox
from context_graph.delivery.ordering import Ordering
from context_graph.delivery.source import Delivery, Handler, Partitions, Source, Via
from context_graph.domain.partition import Partition
from context_graph.domain.stages import Stage
from context_graph.errors import ConfigurationError, PartlyDone, PermanentError, StoreUnavailable, TemporaryError
from context_graph.store.wakes import Wakes

_LONGEST_BACKOFF = 30.0  # seconds

log = structlog.get_logger(__name__)


async def run_stage(
    source: Source, stage: Stage, handler: Handler, stop: asyncio.Event, *, batch: int | None = None,
    partitions: Partitions | None = None,
) -> None:  # fmt: skip
    """Deliver the ledger to `handler` as a member of the stage's group until `stop` is set.

    `batch` bounds the events handled at once (default: settings.batch_events); `partitions` says which are followed
    (default: all of every tenant), asked again at least every `poll_seconds`.
    """
    consumer = f"{stage.group}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    tally = Tally(stage.group)
    inbox = Inbox(source, stage, consumer, batch or source.settings.batch_events, tally)
    runner = _Runner(source, stage, handler, inbox, partitions=partitions or source.partitions)
    async with asyncio.TaskGroup() as tasks:
        every = source.settings.heartbeat_seconds
        beating = tasks.create_task(
            beat(source.reports, consumer, tally, every, runner.ordering.renew), name=f"{stage.group} heartbeat"
        )
        try:
            await _until_deadline(tasks.create_task(runner.run(stop), name=f"{stage.group} loop"), stop, source)
        finally:
            beating.cancel()
    await runner.leave()


async def _until_deadline(running: asyncio.Task[None], stop: asyncio.Event, source: Source) -> None:
    """Wait for the loop; when it is to stop, `stop_seconds` at most."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await asyncio.wait({running}, timeout=source.settings.stop_seconds)
        if not running.done():
            log.warning("stop_deadline_passed", task=running.get_name(), seconds=source.settings.stop_seconds)
            running.cancel()
            await asyncio.wait({running})
    finally:
        stopping.cancel()


class _Runner:
    """One consumer's loop."""

    def __init__(self, source: Source, stage: Stage, handler: Handler, inbox: Inbox, *, partitions: Partitions) -> None:
        self._source = source
        self._settings = source.settings
        self._stage = stage
        self._handler = handler
        self._inbox = inbox
        self._tally = inbox.tally
        self._all_partitions = partitions
        self._partitions: tuple[Partition, ...] = ()
        self._partitions_read_at = 0.0
        self._stop = asyncio.Event()
        self._again_pause = self._settings.backoff_seconds
        self._again_at = 0.0  # from when on (monotonic) what waits in the queue is tried
        self.ordering = Ordering(source, stage, inbox)

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
                self._tally.outages += 1
                log.warning("store_unavailable", stage=self._stage.group, retry_in_seconds=pause, reason=str(error))
                await self._sleep(pause)
                pause = min(pause * 2, _LONGEST_BACKOFF)

    async def leave(self) -> None:
        """Say goodbye to the groups; what is still pending stays for others."""
        try:
            await self.ordering.leave()
            for partition in self._partitions:
                await self._source.groups.leave(partition, self._stage.group, self._inbox.consumer)
            await self._source.reports.leave(self._inbox.consumer)
        except StoreUnavailable as error:
            log.warning("left_without_goodbye", stage=self._stage.group, reason=str(error))

    async def _round(self) -> bool:
        """What is to be delivered once more, then news. Returns whether there was anything to do."""
        await self._discover()
        mine = await self.ordering.mine(self._partitions)
        older = self._inbox.due(mine) + await self._inbox.orphans(mine)
        if time.monotonic() >= self._again_at:
            older += await self._inbox.again(mine)
        older += await self.ordering.freed(mine)
        if self._stage.ordered:  # what came before is finished, or its session waits, before news are read
            await self._deliver_all(older)
            news = await self._inbox.news(await self.ordering.open(mine))
            await self._deliver_all(news)
            return bool(older or news)
        entries = older + await self._inbox.news(mine)
        await self._deliver_all(entries)
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

    async def _deliver_all(self, deliveries: Sequence[Delivery]) -> None:
        ordered = sorted(deliveries, key=lambda delivery: delivery.place)
        for partition, group in groupby(ordered, key=lambda delivery: delivery.partition):
            for run in _runs(list(group), self._inbox.batch):
                await self._deliver(partition, run)

    async def _deliver(self, partition: Partition, deliveries: Sequence[Delivery]) -> None:
        """Handle and acknowledge; on failure halve, so that the good go on and the bad stand alone."""
        deliveries = await self.ordering.unparked(partition, deliveries)
        if not deliveries:
            return
        deliveries = await self._inbox.counted(partition, deliveries)
        try:
            await self._handle_through_outages(partition, deliveries)
        except PartlyDone as error:
            await self._postpone(partition, deliveries, error)
            return
        except (TemporaryError, ConfigurationError):
            raise  # stopping, or nothing of this kind can work until an operator acts: the entries stay pending
        except Exception as error:  # noqa: BLE001 - the loop's edge: every failure ends as a retry or a dead letter
            if len(deliveries) > 1:
                middle = len(deliveries) // 2
                await self._deliver(partition, deliveries[:middle])
                await self._deliver(partition, deliveries[middle:])
            else:
                await self._failed(deliveries[0], error)
            return
        self._tally.events += len(deliveries)
        await self._inbox.done(partition, deliveries)
        if any(delivery.via is Via.AGAIN for delivery in deliveries):
            self._again_pause, self._again_at = self._settings.backoff_seconds, 0.0

    async def _postpone(self, partition: Partition, deliveries: Sequence[Delivery], error: PartlyDone) -> None:
        """Into the queue; the first of it is tried after a pause that grows with every try in vain."""
        self._tally.outages += 1
        log.warning(
            "partly_done", stage=self._stage.group, partition=str(partition), events=len(deliveries), reason=str(error)
        )
        await self._inbox.postpone(partition, deliveries)
        if any(delivery.via is Via.AGAIN for delivery in deliveries):
            self._again_pause = min(self._again_pause * 2, _LONGEST_BACKOFF)
        self._again_at = time.monotonic() + self._again_pause

    async def _handle_through_outages(self, partition: Partition, deliveries: Sequence[Delivery]) -> None:
        pause = self._settings.backoff_seconds
        while True:
            began = time.monotonic()
            try:
                # Opened anew for each try: who was erased meanwhile is not handled.
                events = await self._source.events(partition, [delivery.entry for delivery in deliveries])
                await self._handler.handle(partition, events)
                return
            except PartlyDone:
                raise
            except TemporaryError as error:
                self._tally.outages += 1
                log.warning("outage", stage=self._stage.group, retry_in_seconds=pause, reason=str(error))
                waiting = await self._inbox.uncounted(partition, deliveries)
                await self._sleep(pause)
                if self._stop.is_set():
                    raise StoreUnavailable("stopping during an outage") from error
                deliveries = await self._inbox.counted(partition, waiting)
                pause = min(pause * 2, _LONGEST_BACKOFF)
            finally:
                self._tally.batches += 1
                self._tally.busy_seconds += time.monotonic() - began

    async def _failed(self, delivery: Delivery, error: Exception) -> None:
        if isinstance(error, PermanentError) or delivery.deliveries >= self._settings.max_deliveries:
            reason = f"{type(error).__name__}: {error}"
            await self._inbox.bury(delivery, reason, "".join(format_exception(error)))
            return
        delay = min(self._settings.backoff_seconds * 2 ** (delivery.deliveries - 1), _LONGEST_BACKOFF)
        log.warning(
            "will_retry", stage=self._stage.group, position=str(delivery.position), reason=repr(error),
            delivery=delivery.deliveries,
        )  # fmt: skip
        await self._inbox.retry(replace(delivery, counted=False), delay)

    async def _wait_for_news(self, wakes: Wakes) -> None:
        seconds = min(self._settings.poll_seconds, self._inbox.next_retry_seconds())
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


def _runs(deliveries: Sequence[Delivery], size: int) -> list[list[Delivery]]:
    """Batches of up to `size` in order; who must be alone is."""
    runs: list[list[Delivery]] = []
    for delivery in deliveries:
        if runs and len(runs[-1]) < size and not delivery.alone and not runs[-1][-1].alone:
            runs[-1].append(delivery)
        else:
            runs.append([delivery])
    return runs
