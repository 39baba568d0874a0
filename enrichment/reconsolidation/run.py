"""One pass over a partition, under its lease: look, read what changed, decide, append, remember.

A session is remembered after its summary is in the ledger, so a crash between the two costs one more decision and a
`duplicate`. The lease is renewed before every append; a pass that finds it lost stops. What a holder suspended in that
instant could still append is a summary of what was there when it read: it then remembers that older input, so the next
pass reads the session again and, where its summary exists but is no longer the newest, appends it under another id.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import structlog

from context_graph.bootstrap import Resources
from context_graph.domain.partition import Partition
from context_graph.errors import TemporaryError
from context_graph.store import codec
from context_graph.store.consolidation import ConsolidationStore, SessionState
from context_graph.store.leases import Lease
from context_graph.store.ledger import Appendable, Appended
from enrichment.importance import importance_of
from enrichment.reconsolidation.plan import ConsolidationPlan, Rules, plan_session
from enrichment.reconsolidation.reading import SessionReading

LEASE = "consolidation"
LEASE_MS = 60_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pass did, by sessions. `busy` counts partitions that another worker was consolidating."""

    summarised: int = 0
    unchanged: int = 0
    short: int = 0
    failed: int = 0
    busy: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.summarised + other.summarised,
            self.unchanged + other.unchanged,
            self.short + other.short,
            self.failed + other.failed,
            self.busy + other.busy,
        )

    @property
    def words(self) -> str:
        """`3 sessions summarised, 5 unchanged`, and what else there was to say."""
        noun = "session" if self.summarised == 1 else "sessions"
        parts = [f"{self.summarised} {noun} summarised", f"{self.unchanged} unchanged"]
        rest = ((self.short, "too short"), (self.failed, "failed (see the log)"), (self.busy, "busy elsewhere"))
        return ", ".join(parts + [f"{count} {what}" for count, what in rest if count])


class LeaseLostError(TemporaryError):
    """Another worker took over; this pass stops where it is."""


async def consolidate(
    resources: Resources, partition: Partition, holder: str, stop: asyncio.Event | None = None
) -> Outcome:
    """Summarise what changed in a partition since the last pass, unless somebody is at it.

    When `stop` is set the session in hand is finished and the rest is left to the next pass. Raises TemporaryError when
    Redis goes away or the lease is lost; whatever else fails concerns one session, is logged and counted, and the
    others go on.
    """
    lease = await resources.leases.acquire(partition, LEASE, holder, LEASE_MS)
    if lease is None:
        return Outcome(busy=1)
    try:
        return await _Pass(resources, lease).run(stop or asyncio.Event())
    finally:
        await resources.leases.release(lease)


class _Pass:
    """A pass while it runs."""

    def __init__(self, resources: Resources, lease: Lease) -> None:
        self._resources = resources
        self._lease = lease
        self._partition = lease.partition
        self._rules = Rules.of(resources.settings)
        self._store = ConsolidationStore(resources.derived_redis, resources.graph, resources.ledger)

    async def run(self, stop: asyncio.Event) -> Outcome:
        total = Outcome()
        async for page in self._store.sessions(self._partition):
            await self._hold()
            for state in page:
                if not stop.is_set():
                    total += await self._session(state)
        log.info("consolidated", partition=str(self._partition), fence=self._lease.fence, outcome=total.words)
        return total

    async def _session(self, state: SessionState) -> Outcome:
        if state.count < self._rules.min_events:
            return Outcome(short=1)
        if state.is_unchanged(self._rules.digest):
            return Outcome(unchanged=1)
        try:
            return await self._summarise(state)
        except TemporaryError:
            raise
        except Exception:  # one session's defect must not cost the others theirs; it is counted
            log.exception("session not consolidated", partition=str(self._partition), session_id=state.session_id)
            return Outcome(failed=1)

    async def _summarise(self, state: SessionState) -> Outcome:
        reading = SessionReading(state.session_id)
        async for events in self._store.events(self._partition, state.session_id):
            await asyncio.to_thread(reading.add, events, importance_of)
            await self._hold()
        plan = await asyncio.to_thread(plan_session, reading, self._rules)
        outcome = Outcome(short=1) if plan is None else await self._append(plan)
        await self._store.remember(self._partition, state.session_id, state.seen_by(self._rules.digest))
        return outcome

    async def _append(self, plan: ConsolidationPlan) -> Outcome:
        appended = await self._append_once(plan)
        if appended.status == "duplicate":
            newest = await self._resources.graph.summary(self._partition, plan.scope)
            if newest is None or newest.position <= appended.position:
                return Outcome(unchanged=1)
            renewed = replace(plan, summary=plan.under_another_id(str(newest.position)))
            appended = await self._append_once(renewed)
        return Outcome(summarised=1) if appended.status == "created" else Outcome(unchanged=1)

    async def _append_once(self, plan: ConsolidationPlan) -> Appended:
        await self._hold()
        summary = plan.summary
        event = Appendable(summary.event_id, summary.session_id, codec.encode(summary), people=plan.people)
        (appended,) = await self._resources.ledger.append(self._partition, [event])
        if appended.status == "conflict":
            raise ValueError(
                f"summary {summary.event_id} exists with other content: SUMMARY_VERSION was not raised with a change"
            )
        return appended

    async def _hold(self) -> None:
        if not await self._resources.leases.renew(self._lease):
            raise LeaseLostError(f"the lease on {self._partition} was lost to another worker")
