"""Passes over partitions: summaries, then forgetting; when one is due, for whom, and what is told of it.

A pass is due every `consolidation.every_seconds`, at once when somebody asks (`POST /v1/admin/consolidation/runs`), and
in a partition in which the importance of what came since its last pass adds up to more than `reflect_importance` (the
reflection of generative agents, Park et al. 2023: 150). That sum is one aggregation over the text index, of what was
recorded since: exact, written by nobody, and small, because a pass follows soon after it is reached.

A pass works in slices of `slice_seconds`: what is left when one is over comes in the next, after the other partitions
had their turn. Sessions go by what came new to them, the most important first (`run.py`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import structlog

from context_graph.bootstrap import Resources
from context_graph.domain.event import JsonValue, TenantId
from context_graph.domain.partition import Partition
from context_graph.errors import ContextGraphError, TemporaryError
from context_graph.store.retention import RetentionStore
from context_graph.store.runs import Run, RunKind, Runs
from enrichment.reconsolidation.forgetting_pass import Forgot, forget
from enrichment.reconsolidation.run import Outcome, consolidate
from enrichment.reconsolidation.writing import Writer

_LOOK_AGAIN = 0.2  # seconds between two tries for a lease that somebody holds
_PATIENCE = 60.0  # seconds, as long as a lease lives

log = structlog.get_logger(__name__)


def now_ms() -> int:
    """By the wall clock; tests and simulations give their own."""
    return int(time.time() * 1000)


@dataclass(slots=True)
class Passed:
    """What passes did. `unfinished`: a slice was over before the work was."""

    summaries: Outcome = field(default_factory=Outcome)
    forgot: list[Forgot] = field(default_factory=list)
    unfinished: bool = False

    @property
    def words(self) -> str:
        """In a line."""
        known = [forgot.words for forgot in self.forgot if forgot.words]
        return "; ".join([self.summaries.words, *known])


@dataclass(frozen=True, slots=True)
class Passes:
    """Runs passes. `writer`: asks the language model, where one is set. `now`: ms UTC."""

    resources: Resources
    writer: Writer | None = None
    now: Callable[[], int] = now_ms

    async def over(
        self, partition: Partition, stop: asyncio.Event, *, kind: RunKind = "all", dry_run: bool = False
    ) -> Passed:
        """One slice of a pass over a partition. Raises TemporaryError when Redis goes away or the lease is lost."""
        began, done = self.now(), Passed()
        clock = time.monotonic()
        through = await self.resources.ledger.last(partition)
        async with self._slice(stop) as over:
            if kind != "forgetting" and not dry_run:
                done.summaries = await consolidate(self.resources, partition, holder(), over, self.writer)
            if kind != "summaries" and not over.is_set():
                done.forgot.append(await forget(self.resources, partition, holder(), began, dry_run=dry_run, stop=over))
            done.unfinished = over.is_set() and not stop.is_set()
        if not dry_run and not done.summaries.busy:
            spent = int((time.monotonic() - clock) * 1000)
            counted = {"passes": 1, "pass_ms": spent}
            known = kind != "forgetting" and not done.unfinished and through is not None
            numbers = {"through": through.ms} if known and through is not None else {}
            await self._store.count(partition, counted, numbers)
        return done

    @asynccontextmanager
    async def _slice(self, stop: asyncio.Event) -> AsyncIterator[asyncio.Event]:
        """An event that is set when the slice is over, or `stop` is."""
        over = asyncio.Event()

        async def wait() -> None:
            try:
                async with asyncio.timeout(self.resources.settings.consolidation.slice_seconds):
                    await stop.wait()
            except TimeoutError:
                log.info("slice over")
            over.set()

        waiting = asyncio.create_task(wait(), name="consolidation slice")
        try:
            yield over
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def patiently(self, partition: Partition, stop: asyncio.Event, kind: RunKind = "all") -> Passed:
        """A whole pass; a partition that another worker is at is waited for, as long as a lease lives."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE
        total = Passed()
        while True:
            done = await self.over(partition, stop, kind=kind)
            busy = done.summaries.busy or any(forgot.busy for forgot in done.forgot)
            if busy and loop.time() < deadline and not stop.is_set():
                await asyncio.sleep(_LOOK_AGAIN)
                continue
            total.summaries += done.summaries
            total.forgot += done.forgot
            if not done.unfinished:
                return total

    async def over_all(self, stop: asyncio.Event) -> Passed:
        """One slice of each partition, again until none is left."""
        total, left = Passed(), await self.partitions()
        while left and not stop.is_set():
            again = []
            for partition in left:
                done = await self.over(partition, stop)
                total.summaries += done.summaries
                total.forgot += done.forgot
                again += [partition] if done.unfinished else []
            left = again
        return total

    async def partitions(self, tenant: TenantId | None = None) -> list[Partition]:
        """Of every tenant, or of one."""
        tenants = await self.resources.tenants.all()
        return [p for known in tenants if tenant in (None, known.name) for p in known.partitions]

    # what somebody asked for

    async def asked(self, stop: asyncio.Event) -> int:
        """Do what was asked for; how many runs that were."""
        runs, count = Runs(self.resources.ledger_redis), 0
        for tenant, run_id in await runs.waiting():
            run = await runs.get(tenant, run_id)
            if stop.is_set():
                return count
            if run is None or run.state in ("done", "failed"):
                run = run or Run(id=run_id, kind="all", dry_run=False, asked_at=self.now(), state="failed")
                await runs.put(tenant, run)
                continue
            await runs.put(tenant, await self._run(runs, tenant, run, stop))
            count += 1
        return count

    async def _run(self, runs: Runs, tenant: TenantId, run: Run, stop: asyncio.Event) -> Run:
        partitions = await self.partitions(tenant)
        run = replace(run, state="running", started_at=self.now(), partitions=len(partitions), done=0)
        outcome: dict[str, str] = {}
        plans: dict[str, JsonValue] = {}
        try:
            for partition in partitions:
                await runs.put(tenant, run)
                if run.dry_run:
                    done = await self.over(partition, stop, kind=run.kind, dry_run=True)
                    plans |= {str(partition): dict(forgot.plan.as_json()) for forgot in done.forgot}
                else:
                    outcome[str(partition)] = (await self.patiently(partition, stop, run.kind)).words
                run = replace(run, done=run.done + 1, outcome=outcome or None, plan=plans or None)
        except TemporaryError:
            raise  # it stays asked for
        except ContextGraphError as error:
            return replace(run, state="failed", problem=str(error), finished_at=self.now())
        if stop.is_set() and run.done < len(partitions):
            return replace(run, state="waiting")
        return replace(run, state="done", finished_at=self.now())

    # reflection

    async def reflect(self, stop: asyncio.Event) -> int:
        """A pass over each partition in which enough has come to reflect on; how many these were."""
        wanted, count = self.resources.settings.consolidation.reflect_importance, 0
        for partition in await self.partitions():
            if stop.is_set() or not wanted or await self.new_importance(partition) <= wanted:
                continue
            log.info("reflecting", partition=str(partition))
            await self._store.count(partition, {"reflections": 1}, {})
            await self.over(partition, stop)
            count += 1
        return count

    async def new_importance(self, partition: Partition) -> int:
        """The importance of what was indexed since the last pass, added up."""
        since = (await self._store.told(partition)).get("through", 0)
        return sum((await self._store.new_importance(partition, since)).values())

    @property
    def _store(self) -> RetentionStore:
        resources = self.resources
        return RetentionStore(resources.derived_redis, resources.graph, resources.ledger_redis)


def holder() -> str:
    """A name that no other pass has, and that says where to look."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
