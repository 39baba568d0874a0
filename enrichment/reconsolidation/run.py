"""One pass over a partition, under its lease: look, read what changed, decide, append, remember.

A session is remembered after its summary is in the ledger, so a crash between the two costs one more decision and a
`duplicate`. The lease is renewed before every append and checked again in the very step of it; a pass that finds it
lost stops. What a holder suspended between reading and appending could still write while the lease is its own is a
summary of what was there when it read: the next pass reads the session again and, where its summary exists but is no
longer the newest, appends it under another id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog

from context_graph.bootstrap import Resources
from context_graph.domain.document import filter_tag
from context_graph.domain.event import SERVICE_SESSION, Envelope
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.errors import LeaseLostError, TemporaryError
from context_graph.store import codec
from context_graph.store.consolidation import ConsolidationStore, SessionState
from context_graph.store.leases import Lease
from context_graph.store.ledger import Appendable, Appended
from context_graph.store.retention import RetentionStore
from enrichment.importance import importance_of
from enrichment.reconsolidation.asking import Asking, Question
from enrichment.reconsolidation.facts_pass import FactsPass
from enrichment.reconsolidation.plan import ConsolidationPlan, Rules, existing, plan_session, written_id
from enrichment.reconsolidation.reading import SessionReading
from enrichment.reconsolidation.scopes import input_of
from enrichment.reconsolidation.scopes_pass import ScopesPass
from enrichment.reconsolidation.writing import Unwritten, Writer, Written, summary_of
from enrichment.reconsolidation.written import Line, lines_of

LEASE = "consolidation"
LEASE_MS = 60_000

_T = TypeVar("_T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pass did, by sessions. `busy` counts partitions that another worker was consolidating."""

    summarised: int = 0
    unchanged: int = 0
    short: int = 0
    failed: int = 0
    busy: int = 0
    waiting: int = 0
    """Of the others: those that a language model is to read as soon as it can."""
    facts: int = 0
    """Facts and preferences that were noted."""
    scopes: int = 0
    """Agents, people and topics that were summarised."""

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.summarised + other.summarised,
            self.unchanged + other.unchanged,
            self.short + other.short,
            self.failed + other.failed,
            self.busy + other.busy,
            self.waiting + other.waiting,
            self.facts + other.facts,
            self.scopes + other.scopes,
        )

    @property
    def words(self) -> str:
        """`3 sessions summarised, 5 unchanged`, and what else there was to say."""
        noun = "session" if self.summarised == 1 else "sessions"
        parts = [f"{self.summarised} {noun} summarised", f"{self.unchanged} unchanged"]
        rest = (
            (self.short, "too short"),
            (self.failed, "failed (see the log)"),
            (self.busy, "busy elsewhere"),
            (self.waiting, "waiting for the language model"),
            (self.facts, "facts noted"),
            (self.scopes, "agents, people and topics summarised"),
        )
        return ", ".join(parts + [f"{count} {what}" for count, what in rest if count])


def _is_written(summary: Envelope) -> bool:
    """Whether a model wrote it: another call for the same input gives other words under the same id."""
    return isinstance(summary.payload, dict) and summary.payload.get("method") == "llm"


async def consolidate(
    resources: Resources,
    partition: Partition,
    holder: str,
    stop: asyncio.Event | None = None,
    writer: Writer | None = None,
) -> Outcome:
    """Summarise what changed in a partition since the last pass, unless somebody is at it.

    `writer` asks the language model that the settings name; without one summaries are extractive.
    When `stop` is set the session in hand is finished and the rest is left to the next pass. Raises TemporaryError when
    Redis goes away or the lease is lost; whatever else fails concerns one session, is logged and counted, and the
    others go on.
    """
    lease = await resources.leases.acquire(partition, LEASE, holder, LEASE_MS)
    if lease is None:
        return Outcome(busy=1)
    try:
        return await _Pass(resources, lease, writer).run(stop or asyncio.Event())
    finally:
        await resources.leases.release(lease)


class _Pass:
    """A pass while it runs."""

    def __init__(self, resources: Resources, lease: Lease, writer: Writer | None) -> None:
        self._resources = resources
        self._lease = lease
        self._partition = lease.partition
        rules = Rules.of(resources.settings)
        self._rules = rules if writer is not None else replace(rules, model=None)
        self._store = ConsolidationStore(resources.derived_redis, resources.graph, resources.ledger)
        self._asking = None if writer is None else Asking(resources, lease, writer, self._held)
        self._newest: dict[str, tuple[str, Position]] = {}
        self._facts: FactsPass | None = None
        if self._asking is not None and resources.settings.llm.facts:
            self._facts = FactsPass(resources, lease, self._asking)

    async def run(self, stop: asyncio.Event) -> Outcome:
        total = Outcome()
        retention = RetentionStore(self._resources.derived_redis, self._resources.graph, self._resources.ledger_redis)
        since = (await retention.told(self._partition)).get("through", 0)
        new = await retention.new_importance(self._partition, since)  # what a slice may not reach comes last
        async for page in self._store.sessions(self._partition):
            await self._hold()
            outcomes: dict[str, Outcome] = {}
            for state in sorted(page, key=lambda state: -new.get(filter_tag(state.session_id), 0)):
                if not stop.is_set():
                    outcomes[state.session_id] = await self._counted(state, self._summary(state))
            for state in reversed(page):  # oldest first: what is said later ends what was known before
                if not stop.is_set() and self._facts is not None:
                    noted = await self._counted(state, self._noted(state, self._facts, stop))
                    outcome = outcomes.get(state.session_id, Outcome())
                    together = outcome + noted
                    outcomes[state.session_id] = replace(together, waiting=max(outcome.waiting, noted.waiting))
            total = sum(outcomes.values(), total)
        settings = self._resources.settings.consolidation
        if (settings.scopes or settings.topics) and not stop.is_set():
            total += await self._scopes(stop)
        log.info("consolidated", partition=str(self._partition), fence=self._lease.fence, outcome=total.words)
        return total

    async def _scopes(self, stop: asyncio.Event) -> Outcome:
        async def append(plan: ConsolidationPlan) -> bool:
            return (await self._append(plan)).summarised > 0

        async def ask(lines: Sequence[Line]) -> Written | Unwritten:
            assert self._asking is not None
            question = Question("summary", SERVICE_SESSION, input_of(lines, self._rules))
            return await self._asking.ask(question, *summary_of(lines, self._rules.sentences))

        scopes = ScopesPass(self._resources, self._partition, self._rules, append, ask if self._asking else None)
        written, waiting = await scopes.run(self._newest, stop)
        return Outcome(scopes=written, waiting=waiting)

    async def _counted(self, state: SessionState, work: Awaitable[Outcome]) -> Outcome:
        try:
            return await work
        except TemporaryError:
            raise
        except Exception:  # one session's defect must not cost the others theirs; it is counted
            log.exception("session not consolidated", partition=str(self._partition), session_id=state.session_id)
            return Outcome(failed=1)

    async def _noted(self, state: SessionState, facts: FactsPass, stop: asyncio.Event) -> Outcome:
        noted, again = await facts.session(state, stop)
        return Outcome(facts=noted, waiting=int(again))

    async def _summary(self, state: SessionState) -> Outcome:
        if state.count < self._rules.min_events:
            return Outcome(short=1)
        if state.is_unchanged(self._rules.digest):
            return Outcome(unchanged=1)
        return await self._summarise(state)

    async def _summarise(self, state: SessionState) -> Outcome:
        reading = SessionReading(state.session_id)
        async for events in self._store.events(self._partition, state.session_id):
            await asyncio.to_thread(reading.add, events, importance_of)
            await self._hold()
        plan, written = await self._plan(reading)
        outcome = Outcome(short=1) if plan is None else await self._append(plan)
        if isinstance(written, Unwritten) and written.again:
            return replace(outcome, waiting=1)  # not remembered: the next pass asks again
        await self._store.remember(self._partition, state.session_id, state.seen_by(self._rules.digest))
        return outcome

    async def _plan(self, reading: SessionReading) -> tuple[ConsolidationPlan | None, Written | Unwritten | None]:
        """By the model when there is one, unless the ledger has what it wrote of this very input."""
        rules = self._rules
        if self._asking is None or len(reading.moments) < rules.min_events:
            return await asyncio.to_thread(plan_session, reading, rules), None
        known = await self._resources.ledger.get(self._partition, written_id(reading, rules))
        if known is not None and not known.erased:
            return existing(reading, rules, known.envelope), None
        lines = await asyncio.to_thread(lines_of, reading.sentences, rules.model_characters)
        if not lines:
            return None, None
        question = Question("summary", reading.session_id, written_id(reading, rules))
        written = await self._asking.ask(question, *summary_of(lines, rules.sentences))
        return await asyncio.to_thread(plan_session, reading, rules, written), written

    async def _held(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of `work`, which may take longer than the lease lives: it is renewed meanwhile."""
        task = asyncio.create_task(work, name="consolidation write")
        try:
            while not task.done():
                await self._hold()
                await asyncio.wait({task}, timeout=LEASE_MS / 3000)
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

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
        event = Appendable(
            summary.event_id, summary.session_id, codec.encode(summary), people=plan.people, sessions=plan.sessions
        )
        (appended,) = await self._resources.ledger.append(self._partition, [event], self._lease)
        if appended.status == "created":
            self._newest[summary.session_id] = (summary.event_id, appended.position)
        if appended.status == "conflict" and _is_written(summary):
            log.info("summary written by another pass", event_id=summary.event_id)  # the first one stands
        elif appended.status == "conflict":
            raise ValueError(
                f"summary {summary.event_id} exists with other content: SUMMARY_VERSION was not raised with a change"
            )
        return appended

    async def _hold(self) -> None:
        if not await self._resources.leases.renew(self._lease):
            raise LeaseLostError(f"the lease on {self._partition} was lost to another worker")
