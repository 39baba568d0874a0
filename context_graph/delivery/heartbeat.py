"""A worker's heartbeat: that it lives, and what it has counted since it started."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from context_graph.errors import StoreUnavailable
from context_graph.store.worker_reports import WorkerReport, WorkerReports

MISSED_BEATS = 5
"""Heartbeats that a worker may miss before it counts as dead."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Tally:
    """What a consumer counts."""

    stage: str
    started_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    events: int = 0
    batches: int = 0
    busy_seconds: float = 0.0
    retries: int = 0
    dead_letters: int = 0
    took_over: int = 0
    outages: int = 0
    recovered: int = 0
    lost: int = 0
    parked: int = 0
    _told_events: int = 0
    _told_at: float = field(default_factory=time.monotonic)

    def report(self) -> WorkerReport:
        """The counts, and the rate since the last report."""
        now = time.monotonic()
        rate = (self.events - self._told_events) / max(now - self._told_at, 1e-3)
        self._told_events, self._told_at = self.events, now
        return WorkerReport(
            stage=self.stage, started_ms=self.started_ms, events=self.events, batches=self.batches,
            busy_seconds=round(self.busy_seconds, 6), rate=round(rate, 1), retries=self.retries,
            dead_letters=self.dead_letters, took_over=self.took_over, outages=self.outages, recovered=self.recovered,
            lost=self.lost, parked=self.parked,
        )  # fmt: skip


async def beat(
    reports: WorkerReports, consumer: str, tally: Tally, every: float, also: Callable[[], Awaitable[None]]
) -> None:
    """Beat every `every` seconds until cancelled, and do `also` with it; an outage of the store is waited out."""
    lifetime_ms = int(every * MISSED_BEATS * 1000)
    while True:
        try:
            await reports.beat(consumer, tally.report(), lifetime_ms)
            await also()
        except StoreUnavailable as error:
            log.warning("heartbeat_missed", consumer=consumer, reason=str(error))
        await asyncio.sleep(every)
