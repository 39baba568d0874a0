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
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

from context_graph.bootstrap import Resources
from context_graph.derivations import Derivation, derivations
from context_graph.domain.event import JsonValue, LedgerEvent
from context_graph.domain.forgetting import Decisions, decision_of
from context_graph.domain.graph import split_member
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.domain.text import SUMMARY_ID_PREFIX
from context_graph.errors import PermanentError
from context_graph.operations import Tell
from context_graph.store.answers import StoredAnswer
from context_graph.store.archive_segments import RawEntry
from context_graph.store.facts import (
    DOCUMENT,
    ENTITIES,
    FIRST_SEEN,
    GRAPH_KINDS,
    PINNED,
    REGISTERED,
    SUMMARY,
    UNREADABLE,
    VECTOR,
    Fact,
    decision_fact,
    facts_of_delta,
    registered,
    summary_fact,
)
from context_graph.store.index import Index
from context_graph.store.keys import GraphKeys
from context_graph.store.ledger import Ledger
from context_graph.store.state import StateReader, Tally
from projections.compare import SHOWN, compare_sides, counts_json
from projections.fold import fold
from projections.forgotten import read_decisions, without_forgotten
from projections.passing import Passing

_TELL_EVERY = 2.0  # seconds between two lines about how far it is
_ENTITIES = "entity:"  # whose timelines need the recogniser


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


def replayed_facts(
    rules: Sequence[Derivation], events: Sequence[LedgerEvent], answers: Mapping[str, StoredAnswer], recogniser_id: str
) -> list[Fact]:
    """All the facts that a few events lead to, each once. `answers`: what is remembered of them, by id."""
    contested = _Contested()
    found = [fact for rule in rules for fact in _bisected(rule, events)]
    for rule in rules:
        told = {} if rule.of_answers is None else rule.of_answers(events, answers, recogniser_id)
        found += (fact for facts in told.values() for fact in facts)
    return [fact for fact in found if not contested.takes(fact)] + contested.winners


class Replay:
    """The facts that the ledger of a partition leads to."""

    def __init__(
        self, ledger: Ledger, partition: Partition, until: Position, rules: Sequence[Derivation], *,
        index: Index, recogniser_id: str, tell: Tell,
    ) -> None:  # fmt: skip
        """`index`: what the generation remembers of what models said; `recogniser_id`: that of its recipe."""
        self._tell = tell
        self._index = index
        self._recogniser_id = recogniser_id
        self._ledger = ledger
        self._partition = partition
        self._until = until
        self._rules = rules
        self._kinds = frozenset(kind for rule in rules for kind in rule.kinds)
        self._decided: dict[str, Decisions] | None = None
        self.unreadable = 0
        self.events = 0
        self.up_to_end = 0
        """Entries that were there up to the end of the replay, readable or not."""
        self.untold: set[str] = set()
        """Events of whose entities nothing can be said."""
        self.entities: set[str] = set()
        """Owners of the timelines that were told."""

    def tells(self, fact: Fact) -> bool:
        """Whether a replay can say that this fact of the generation should be there, or not."""
        if fact.kind == UNREADABLE:
            return True
        if fact.kind not in self._kinds:
            return False
        if fact.kind == ENTITIES:
            return fact.name not in self.untold
        owner, _, member = fact.name.partition("\0")
        if not owner.startswith(_ENTITIES):
            return True
        if fact.kind == REGISTERED:
            return owner in self.entities
        return split_member(self._partition.bucket, member)[1] not in self.untold

    async def facts(self, buckets: Collection[int] | None) -> AsyncIterator[list[Fact]]:
        """Those of these buckets (None: all), each once. Raises what reading the ledger raises."""
        if self._decided is None:
            self._decided = await read_decisions(self._ledger, self._partition, self._until)
        wanted = None if buckets is None else frozenset(buckets)
        contested = _Contested()
        self.unreadable = self.events = self.up_to_end = 0
        looked = time.monotonic()
        async for batch in self._ledger.replay(self._partition, None):
            if time.monotonic() - looked >= _TELL_EVERY:
                looked = time.monotonic()
                self._tell(f"{self._partition}: {self.events:,} events of the ledger replayed")
            self.up_to_end += sum(_place(self._partition, entry) <= self._until for entry in batch)
            events = [event for event in await self._events(batch) if event.position <= self._until]
            page = []
            for fact in await asyncio.to_thread(self._derived, events, await self._answers(events)):
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

    async def _answers(self, events: Sequence[LedgerEvent]) -> dict[str, StoredAnswer]:
        ids = [event.envelope.event_id for event in events]
        answers = await self._index.read_answers(self._partition, ids)
        return {i: answer for i, answer in zip(ids, answers, strict=True) if answer is not None}

    def _derived(self, events: Sequence[LedgerEvent], answers: Mapping[str, StoredAnswer]) -> list[Fact]:
        found: list[Fact] = []
        for rule in self._rules:
            found += _bisected(rule, events)
        if self._decided:
            found = list(without_forgotten(events, found, self._decided))
        for of_answers in (rule.of_answers for rule in self._rules if rule.of_answers is not None):
            told = of_answers(events, answers, self._recogniser_id)
            self.untold |= {event.envelope.event_id for event in events} - told.keys()
            found += (fact for facts in told.values() for fact in facts)
            self.entities |= {f.name for facts in told.values() for f in facts if f.kind == REGISTERED}
        return found


def _silent(_line: str) -> None:
    return


async def verify(resources: Resources, tenant: Tenant, tell: Tell = _silent) -> Mapping[str, JsonValue]:
    """A report on a tenant's live generation. Raises NotNow while stages are behind, and what reading raises."""
    rules = derivations()
    table = await resources.generations.read(tenant.name)
    live, recipe = table.live, table.recipes.get(table.live)
    recogniser_id = "" if recipe is None else recipe.recogniser
    expected, actual, differing = Tally(), Tally(), Counter[str]()
    differences: list[JsonValue] = []
    passing = Passing(resources, live, recipe, tell)
    more = events = unreadable = letters = untold = missing = 0
    for partition in tenant.partitions:
        known = await resources.ledger.count(partition)
        until = await resources.ledger.last(partition)
        if until is None:
            continue
        await passing.passed(partition, until)
        tell(f"{partition}: replaying {await resources.ledger.count(partition):,} events of the ledger")
        replay = Replay(
            resources.ledger, partition, until, rules,
            index=resources.index.at(live), recogniser_id=recogniser_id, tell=tell,
        )  # fmt: skip
        reader = StateReader(resources.derived_redis)
        held = partial(_told, partial(reader.facts, GraphKeys(partition, live), until), replay.tells)
        found = await compare_sides(replay.facts, held)
        expected.merge(found.left)
        actual.merge(found.right)
        differing += found.differing
        more += found.more_buckets
        differences += [difference.as_json() for difference in found.differences]
        events += replay.events
        unreadable += replay.unreadable
        untold += len(replay.untold)
        missing += max(0, known - replay.up_to_end)
        letters += await resources.dead_letters.count(partition)
    return {
        "equal": not differing and not more and not missing,
        "events_missing": missing,
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
        "entities_untold": untold,
        "dead_letters": letters,
    }


async def _told(
    held: Callable[[Collection[int] | None], AsyncIterator[list[Fact]]], tells: Callable[[Fact], bool],
    buckets: Collection[int] | None,
) -> AsyncIterator[list[Fact]]:  # fmt: skip
    """What the generation holds, as far as a replay can say it."""
    async for facts in held(buckets):
        yield [fact for fact in facts if tells(fact)]


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
