"""One pass of forgetting over a partition, under its lease: look, read what may be due, decide, append.

It only appends decisions; the stages take away what they name, in every generation. A session is read again when an
event of it changes its tier, when something happened or was decided in it, when it has a newer summary, or when the
policy changed. What a stage has not passed yet, or has given up on, is not decided about: nothing is forgotten that no
summary could have read.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from context_graph.bootstrap import Resources
from context_graph.delivery.recalling import Recalling
from context_graph.domain.event import Envelope
from context_graph.domain.forgetting import Decisions, Member, Place
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.domain.retention import TIERS, ForgettingPolicy
from context_graph.errors import LeaseLostError
from context_graph.store import codec
from context_graph.store.consolidation import ConsolidationStore
from context_graph.store.forgotten import Forgotten
from context_graph.store.leases import Lease
from context_graph.store.ledger import Appendable
from context_graph.store.retention import Look, Mark, Policies, RetentionStore
from enrichment.reconsolidation.chains import Chains
from enrichment.reconsolidation.facts_reader import FactsReader
from enrichment.reconsolidation.forgetting import (
    ForgettingPlan,
    SessionFacts,
    due_episodes,
    next_look,
    plan_forgetting,
    room_of,
)
from enrichment.reconsolidation.old_summaries import Resting, decision_about, decisions_about_all, leaving
from enrichment.reconsolidation.telling import most_telling

LEASE = "forgetting"
LEASE_MS = 60_000
_TOGETHER = 200  # sessions decided about at once
_NONE = Decisions()

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Forgot:
    """What a pass did. `off`: the tenant has no policy that is enabled. `busy`: somebody else is at it."""

    plan: ForgettingPlan = field(default_factory=ForgettingPlan)
    looked: int = 0
    unchanged: int = 0
    appended: int = 0
    off: bool = False
    busy: bool = False

    @property
    def words(self) -> str:
        """In a line; empty where forgetting is off."""
        if self.off or self.busy:
            return "" if self.off else "forgetting busy elsewhere"
        events, sessions = self.plan.events, len(self.plan.chosen)
        left = f"{len(self.plan.summaries):,} summaries left the index, " if self.plan.summaries else ""
        left += f"{len(self.plan.left):,} sessions left whole, " if self.plan.left else ""
        return f"{events:,} events of {sessions:,} sessions forgotten, {left}{self.unchanged:,} sessions not looked at"


async def forget(
    resources: Resources, partition: Partition, holder: str, now: int, *,
    dry_run: bool = False, stop: asyncio.Event | None = None,
) -> Forgot:  # fmt: skip
    """Forget what is due by the tenant's policy; `dry_run`: only say what would go, also by one that is off.

    `now`: ms UTC. Raises TemporaryError when Redis goes away or the lease is lost.
    """
    policy = await Policies(resources.ledger_redis).get(partition.tenant)
    if not policy.enabled and not dry_run:
        return Forgot(off=True)
    if dry_run:
        return await _Pass(resources, partition, policy, now, None).run(stop or asyncio.Event())
    lease = await resources.leases.acquire(partition, LEASE, holder, LEASE_MS)
    if lease is None:
        return Forgot(busy=True)
    try:
        return await _Pass(resources, partition, policy, now, lease).run(stop or asyncio.Event())
    finally:
        await resources.leases.release(lease)


class _Pass:
    """A pass while it runs. Without a lease it writes nothing."""

    def __init__(
        self, resources: Resources, partition: Partition, policy: ForgettingPolicy, now: int, lease: Lease | None
    ) -> None:
        self._resources = resources
        self._partition = partition
        self._policy = policy
        self._now = now
        self._lease = lease
        graph, redis = resources.graph, resources.derived_redis
        self._store = RetentionStore(redis, graph, resources.ledger_redis)
        self._sessions = ConsolidationStore(redis, graph, resources.ledger)
        self._forgotten = Forgotten(redis, graph)
        self._pinned: set[str] = set()
        self._share = policy.keep_share
        self._resting: list[Resting] = []
        self._left: dict[str, tuple[Member, ...]] = {}

    async def run(self, stop: asyncio.Event) -> Forgot:
        self._pinned = await self._forgotten.pinned(self._partition)
        self._began = await self._resources.ledger.last(self._partition)
        self._reading = await FactsReader.at_now(self._resources, self._partition, self._pinned)
        if self._lease is not None:
            await self._bring_pinned_back()
        told = await self._store.told(self._partition)
        self._share = self._policy.share(told.get("due", 0) + told.get("forgotten", 0))
        done, tiers = Forgot(), Counter[str]()
        async for looks in self._pages():
            due = [look for look in looks if look.is_due(self._policy, self._now, self._share) or self._lease is None]
            done.unchanged += len(looks) - len(due)
            for look in looks:
                if look not in due and look.mark is not None:
                    tiers.update(look.mark.tiers)
                    self._rest(look, look.mark.rests)
            for start in range(0, len(due), _TOGETHER):
                if not stop.is_set():
                    tiers += await self._decide(due[start : start + _TOGETHER], done)
        if not stop.is_set():
            await self._leave(done)
            await self._leave_whole(done)
        if self._lease is not None and not stop.is_set():
            await self._store.tell(self._partition, {tier: tiers[tier] for tier in (*TIERS, "forgotten")})
        if not done.off:
            log.info("forgot", partition=str(self._partition), dry_run=self._lease is None, outcome=done.words)
        return done

    async def _pages(self) -> AsyncIterator[list[Look]]:
        async for page in self._sessions.sessions(self._partition):
            await self._hold()
            yield await self._store.looks(self._partition, [state.session_id for state in page])

    async def _decide(self, looks: Sequence[Look], done: Forgot) -> Counter[str]:
        """Plan for some sessions, append what goes, remember what was found. Their events by tier."""
        facts = {look.session_id: await self._reading.facts(look.session_id) for look in looks}
        chained: set[str] = set()
        tenant = await self._tenant()
        partitions = (self._partition,) if tenant is None else tenant.partitions
        chains = Chains(self._resources.graph, partitions, self._policy, self._now, self._pinned)
        for session in facts.values():
            for episode in due_episodes(session, self._policy, self._now):
                if session.summary is not None and await chains.hold(episode.events):
                    chained |= {event.event_id for event in episode.events}
        room = self._policy.max_events_per_run - done.plan.events
        policy = self._policy if self._lease is not None else replace(self._policy, enabled=True)
        telling = await self._telling(facts.values(), chained)
        plan = plan_forgetting(list(facts.values()), policy, self._now, chained, room, telling=telling)
        done.looked += len(looks)
        done.plan.chosen += plan.chosen
        done.plan.kept += plan.kept
        done.plan.tiers += plan.tiers
        for look in looks:
            self._rest(look, facts[look.session_id].rests(self._policy, self._now))
            if left := facts[look.session_id].left:
                self._left[look.session_id] = left
        if self._lease is not None:
            for choice in plan.chosen:
                done.appended += await self._append(choice.decisions(self._partition.bucket, self._policy))
            chosen = {choice.session_id for choice in plan.chosen}
            marks = {
                look.session_id: self._mark(look, facts[look.session_id], look.session_id in chosen) for look in looks
            }
            await self._store.remember(self._partition, marks)
        return plan.tiers + Counter({"forgotten": sum(session.gone for session in facts.values())})

    def _rest(self, look: Look, since: int | None) -> None:
        if since is not None and since >= 0:
            self._resting.append(Resting(look.session_id, since, look.summary))

    async def _leave(self, done: Forgot) -> None:
        """Too many summaries of sessions that rest: those that leave the index."""
        if len(self._resting) <= self._policy.keep_summaries:
            return
        uses = await self._store.summary_uses(self._partition, [one.session_id for one in self._resting])
        chosen = leaving(self._resting, uses, self._policy, self._now)
        done.plan.summaries += [one.session_id for one in chosen]
        for start in range(0, len(chosen) if self._lease is not None else 0, _TOGETHER):
            some = chosen[start : start + _TOGETHER]
            known = await self._forgotten.of(self._partition, [one.session_id for one in some])
            ids = [Position.of_sort_key(self._partition.bucket, one.order).stream_id for one in some]
            summaries = await self._resources.ledger.at(self._partition, ids)
            made = [
                decision_about(summary, self._policy, known.get(summary.envelope.session_id, _NONE))
                for summary in summaries
                if not summary.erased
            ]
            done.appended += await self._append(made)

    async def _leave_whole(self, done: Forgot) -> None:
        """Sessions of which nothing is left: the places of their events, unless something else was decided meanwhile.

        It would be overruled. So every stage has passed what was in the ledger when the pass began.
        """
        done.plan.left += self._left
        if self._lease is None or not self._left or self._began is None:
            return
        reading = await FactsReader.at_now(self._resources, self._partition, self._pinned)
        if not reading.has_passed(self._began):
            return
        for session_id, events in self._left.items():
            known = (await self._forgotten.of(self._partition, [session_id])).get(session_id, _NONE)
            if all(known.forgotten(event.place) for event in events):
                made = decisions_about_all(self._partition, session_id, events, self._policy, known.known[0].order)
                done.appended += await self._append(list(made))

    def _mark(self, look: Look, facts: SessionFacts, chosen: bool) -> Mark:
        tiers = Counter[str]({"forgotten": facts.gone})
        for episode in facts.episodes:
            tiers[episode.tier(self._policy, self._now)] += len(episode.events)
        again = 0 if chosen else next_look(facts, self._policy, self._now, self._share)
        return Mark(
            self._policy.version, look.count, look.last, look.decisions, again, dict(tiers), self._share, look.summary,
            rests=facts.rests(self._policy, self._now),
        )  # fmt: skip

    async def _telling(self, sessions: Iterable[SessionFacts], chained: set[str]) -> frozenset[str]:
        """Of the episodes that will go, the events that say most and stay."""
        kept: set[str] = set()
        for session in sessions:
            due = [
                episode
                for episode in due_episodes(session, self._policy, self._now)
                if session.summary is not None and not chained.intersection(e.event_id for e in episode.events)
            ]
            room, events = room_of(due, self._share), [event for episode in due for event in episode.events]
            if len(events) > room > 0:
                texts = await self._reading.texts(events)
                events = [events[i] for i in await asyncio.to_thread(most_telling, texts, room)]
            kept.update(event.event_id for event in events[:room])
        return frozenset(kept)

    async def _tenant(self) -> Tenant | None:
        return await self._resources.tenants.get(self._partition.tenant)

    async def _bring_pinned_back(self) -> None:
        """A pin that came while a pass was deciding has lost a race; it wins now."""
        tenant = await self._tenant()
        gone = []
        for event_id in sorted(self._pinned):
            event = await self._resources.ledger.get(self._partition, event_id)
            if event is not None:
                session = event.envelope.session_id
                known = (await self._forgotten.of(self._partition, [session])).get(session, _NONE)
                place = Place(event.envelope.occurred_at, event.position.sort_key)
                gone += [event_id] if known.forgotten(place) else []
        if gone and tenant is not None:
            recalling = Recalling(self._resources.ledger, self._forgotten, lambda: self._now)
            await recalling.recall_events(tenant, gone)

    async def _append(self, decisions: Sequence[Envelope]) -> int:
        """All of a session's at once. One that is there already is of a pass that ended before it was applied."""
        if self._lease is None:
            return 0
        await self._hold()
        events = [Appendable(e.event_id, e.session_id, codec.encode(e), clear=True) for e in decisions]
        answers = await self._resources.ledger.append(self._partition, events, self._lease)
        return sum(answer.status == "created" for answer in answers)

    async def _hold(self) -> None:
        if self._lease is not None and not await self._resources.leases.renew(self._lease):
            raise LeaseLostError(f"the lease on {self._partition} was lost to another worker")
