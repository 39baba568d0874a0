"""Whether what is served is what the ledger leads to: a replay in memory against the live generation.

The ledger is read from the first event, archive then stream, and every stage's pure part says which facts follow. They
are summed as they come, so it needs no room for all of them and writes nothing; buckets that differ are replayed once
more to name what differs and how. Reads and writes go on: both sides are held against each other up to a position that
the live generation has passed.

Where several events decide one fact the same one wins as in the stores: of a scope's summaries the newest, of an
appearance in a session the first.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from functools import partial

from context_graph.bootstrap import Resources
from context_graph.derivations import Derivation, derivations
from context_graph.domain.event import JsonValue, LedgerEvent
from context_graph.domain.forgetting import Decisions, decision_of
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.domain.stages import stages_of
from context_graph.domain.text import SUMMARY_ID_PREFIX
from context_graph.errors import NotNow, PermanentError
from context_graph.operations import Tell
from context_graph.store.archive_segments import RawEntry
from context_graph.store.facts import (
    DOCUMENT,
    FIRST_SEEN,
    GRAPH_KINDS,
    PINNED,
    REGISTERED,
    SUMMARY,
    VECTOR,
    Fact,
    decision_fact,
    facts_of_delta,
    registered,
    summary_fact,
)
from context_graph.store.keys import GraphKeys
from context_graph.store.ledger import Ledger
from context_graph.store.state import StateReader, Tally
from projections.compare import SHOWN, compare_sides, counts_json
from projections.fold import fold
from projections.forgotten import read_decisions, without_forgotten

_PATIENCE = 60.0  # seconds for stages that are behind
_LOOK_AGAIN = 0.05
_TELL_EVERY = 2.0  # seconds between two lines about how far it is
_ENTITIES = "entity:"  # timelines that need the recogniser


def _facts(events: Sequence[LedgerEvent]) -> Iterator[Fact]:
    delta = fold(events)
    yield from facts_of_delta(delta)
    yield from map(summary_fact, delta.summaries.values())
    for kind, identifier in delta.timelines:
        yield registered(f"{kind}:{identifier}")
    for event in events:
        decision = decision_of(event)
        if decision is not None:
            yield decision_fact(decision)


DERIVATION = Derivation("projection", GRAPH_KINDS, _facts)


class _Contested:
    """Facts that several events decide: the one that wins."""

    def __init__(self) -> None:
        self._winners: dict[tuple[str, str], Fact] = {}

    def takes(self, fact: Fact) -> bool:
        """Whether it is such a fact; it is kept then, if it wins."""
        if not _is_contested(fact):
            return False
        key = (fact.kind, fact.name)
        self._winners[key] = _winner(self._winners.get(key), fact)
        return True

    @property
    def winners(self) -> list[Fact]:
        return list(self._winners.values())


def replayed_facts(rules: Sequence[Derivation], events: Sequence[LedgerEvent]) -> list[Fact]:
    """All the facts that a few events lead to, each once."""
    contested = _Contested()
    rest = [fact for rule in rules for fact in _bisected(rule, events) if not contested.takes(fact)]
    return rest + contested.winners


class Replay:
    """The facts that the ledger of a partition leads to."""

    def __init__(
        self, ledger: Ledger, partition: Partition, until: Position, rules: Sequence[Derivation], tell: Tell
    ) -> None:
        self._tell = tell
        self._ledger = ledger
        self._partition = partition
        self._until = until
        self._rules = rules
        self._decided: dict[str, Decisions] | None = None
        self.unreadable = 0
        self.events = 0

    async def facts(self, buckets: Collection[int] | None) -> AsyncIterator[list[Fact]]:
        """Those of these buckets (None: all), each once. Raises what reading the ledger raises."""
        if self._decided is None:
            self._decided = await read_decisions(self._ledger, self._partition, self._until)
        wanted = None if buckets is None else frozenset(buckets)
        contested = _Contested()
        self.unreadable = self.events = 0
        looked = time.monotonic()
        async for batch in self._ledger.replay(self._partition, None):
            if time.monotonic() - looked >= _TELL_EVERY:
                looked = time.monotonic()
                self._tell(f"{self._partition}: {self.events:,} events of the ledger replayed")
            events = [event for event in await self._events(batch) if event.position <= self._until]
            page = []
            for fact in await asyncio.to_thread(self._derived, events):
                if wanted is not None and fact.bucket not in wanted:
                    continue
                if not contested.takes(fact):
                    page.append(fact)
            yield page
            if not batch or _place(self._partition, batch[-1]) >= self._until:
                break
        yield contested.winners

    async def _events(self, batch: Sequence[RawEntry]) -> list[LedgerEvent]:
        """The batch decoded; what is no envelope is counted, as the stages bury it."""
        self.events += len(batch)
        try:
            return await self._ledger.events(self._partition, batch)
        except (ValueError, PermanentError):
            if len(batch) == 1:
                self.unreadable += 1
                return []
            middle = len(batch) // 2
            self.events -= len(batch)
            return await self._events(batch[:middle]) + await self._events(batch[middle:])

    def _derived(self, events: Sequence[LedgerEvent]) -> list[Fact]:
        found: list[Fact] = []
        for rule in self._rules:
            found += _bisected(rule, events)
        return list(without_forgotten(events, found, self._decided)) if self._decided else found


def _silent(_line: str) -> None:
    return


async def verify(resources: Resources, tenant: Tenant, tell: Tell = _silent) -> Mapping[str, JsonValue]:
    """A report on a tenant's live generation. Raises NotNow while stages are behind, and what reading raises."""
    rules = derivations()
    kinds = frozenset(kind for rule in rules for kind in rule.kinds)
    live = (await resources.generations.read(tenant.name)).live
    expected, actual, differing = Tally(), Tally(), Counter[str]()
    differences: list[JsonValue] = []
    more = events = unreadable = letters = 0
    for partition in tenant.partitions:
        until = await resources.ledger.last(partition)
        if until is None:
            continue
        await _passed(resources, partition, live, until, tell)
        tell(f"{partition}: replaying {await resources.ledger.count(partition):,} events of the ledger")
        replay = Replay(resources.ledger, partition, until, rules, tell)

        held = partial(_held, StateReader(resources.derived_redis), GraphKeys(partition, live), until, kinds)
        found = await compare_sides(replay.facts, held)
        expected.merge(found.left)
        actual.merge(found.right)
        differing += found.differing
        more += found.more_buckets
        differences += [difference.as_json() for difference in found.differences]
        events += replay.events
        unreadable += replay.unreadable
        letters += await resources.dead_letters.count(partition)
    return {
        "equal": not differing and not more,
        "tenant": tenant.name,
        "generation": live,
        "events": events,
        "ledger_hash": expected.hash,
        "live_hash": actual.hash,
        "ledger_counts": counts_json(expected),
        "live_counts": counts_json(actual),
        "differing": dict(sorted(differing.items())),
        "differing_buckets_not_read": more,
        "differences": differences[:SHOWN],
        "unreadable": unreadable,
        "dead_letters": letters,
    }


async def _held(
    reader: StateReader, keys: GraphKeys, until: Position, kinds: frozenset[str], buckets: Collection[int] | None
) -> AsyncIterator[list[Fact]]:
    """What the generation holds, as far as a replay can say it."""
    async for facts in reader.facts(keys, until, buckets):
        yield [fact for fact in facts if fact.kind in kinds and not fact.name.startswith(_ENTITIES)]


async def _passed(resources: Resources, partition: Partition, generation: int, until: Position, tell: Tell) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE
    told = -_TELL_EVERY
    while True:
        states = {s.group: await resources.groups.state(partition, s.group) for s in stages_of(generation)}
        behind = {group: state for group, state in states.items() if not state.has_passed(until)}
        if not behind:
            return
        words = ", ".join(f"{group} by {state.lag + state.pending:,} events" for group, state in behind.items())
        if loop.time() - told >= _TELL_EVERY:
            told = loop.time()
            tell(f"{partition}: waiting up to {max(deadline - told, 0):.0f} s for stages that are behind ({words})")
        if loop.time() >= deadline:
            raise NotNow(f"{partition}: stages are behind ({words}); run their workers, then verify again")
        await asyncio.sleep(_LOOK_AGAIN)


def _bisected(rule: Derivation, events: Sequence[LedgerEvent]) -> list[Fact]:
    """The facts of those events that the stage does not bury."""
    if not events:
        return []
    try:
        return list(rule.facts(events))
    except PermanentError:
        if len(events) == 1:
            return []
        middle = len(events) // 2
        return _bisected(rule, events[:middle]) + _bisected(rule, events[middle:])


def _is_contested(fact: Fact) -> bool:
    if fact.kind in (DOCUMENT, VECTOR):
        return fact.name.startswith(SUMMARY_ID_PREFIX)
    return fact.kind in (SUMMARY, FIRST_SEEN, REGISTERED, PINNED)


def _winner(known: Fact | None, fact: Fact) -> Fact:
    if known is None or known.at == fact.at:
        return fact
    earlier, later = sorted((known, fact), key=lambda each: each.at)
    return earlier if fact.kind == FIRST_SEEN else later


def _place(partition: Partition, entry: RawEntry) -> Position:
    return Position.of_stream_id(partition.bucket, entry[0].decode())
