"""The law of everything derived: events shuffled, doubled, split over workers, the stages interleaved at random lead to
the state that the ledger says, by the same hash."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from context_graph.bootstrap import Resources
from context_graph.derivations import derivations
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.store.facts import Fact
from context_graph.store.keys import GraphKeys
from context_graph.store.state import StateReader, Tally
from enrichment.enrich import enrichment_of
from enrichment.found import find
from enrichment.indexing import documents_of
from enrichment.known import packed_spans
from projections.compare import compare_sides
from projections.fold import fold
from projections.verify import replayed_facts
from tests.laws.strategies import LEDGERS
from tests.ledger_events import only_partition

Write = Callable[[Sequence[LedgerEvent]], Awaitable[None]]
_VECTOR = np.full(384, 1 / np.sqrt(384), dtype=np.float32).tobytes()
_numbers = iter(range(2, 10_000))


def stages(resources: Resources, partition: Partition, generation: int) -> list[Write]:
    """What the three stages write, without their models."""
    graph, index = resources.graph.at(generation), resources.index.at(generation)

    async def project(events: Sequence[LedgerEvent]) -> None:
        await graph.apply(partition, fold(events))

    async def make_findable(events: Sequence[LedgerEvent]) -> None:
        await index.put_documents(partition, documents_of(events))

    async def enrich(events: Sequence[LedgerEvent]) -> None:
        found = [
            enrichment_of(document, find(document, [], packed_spans("nobody", [])), _VECTOR, "model")
            for document in documents_of(events)
        ]
        await index.put_enrichments(partition, found)

    return [project, make_findable, enrich]


def cut(events: list[LedgerEvent], chance: random.Random) -> list[list[LedgerEvent]]:
    batches = []
    while events:
        size = chance.randint(1, 5)
        batches.append(events[:size])
        events = events[size:]
    return batches


@hypothesis.settings(
    max_examples=25, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(ledger=LEDGERS, chance=st.randoms(use_true_random=False), workers=st.integers(1, 3))
async def test_any_order_any_workers_any_interleaving_and_repetition_lead_to_the_ledgers_state(
    resources: Resources, ledger: list[LedgerEvent], chance: random.Random, workers: int
) -> None:
    partition = await only_partition(resources.tenants, "default")
    generation = next(_numbers)
    work: list[tuple[Write, list[LedgerEvent]]] = []
    for write in stages(resources, partition, generation):
        doubled = ledger + chance.sample(ledger, len(ledger) // 2)
        chance.shuffle(doubled)
        work += [(write, batch) for batch in cut(doubled, chance)]
    chance.shuffle(work)

    async def worker(lane: int) -> None:
        for write, batch in work[lane::workers]:
            await write(batch)

    async with asyncio.TaskGroup() as tasks:
        for lane in range(workers):
            tasks.create_task(worker(lane))

    expected = Tally()
    keys = GraphKeys(partition, generation)
    ids = [event.envelope.event_id for event in ledger]
    read = await resources.index.at(generation).read_answers(partition, ids)
    answers = {str(doc_id): answer for doc_id, answer in zip(ids, read, strict=True) if answer is not None}
    expected.add(replayed_facts(derivations(), ledger, answers, "nobody"))
    found = await held(resources, keys)
    actual = Tally()
    actual.add(found)
    assert actual.hash == expected.hash, {f.name for f in found}
    assert {kind: n for kind, n in actual.counts.items() if n} == {k: n for k, n in expected.counts.items() if n}
    await resources.index.at(generation).drop(partition)


async def held(resources: Resources, keys: GraphKeys) -> list[Fact]:
    kinds = {kind for rule in derivations() for kind in rule.kinds}
    found = [fact async for page in StateReader(resources.derived_redis).facts(keys) for fact in page]
    return [fact for fact in found if fact.kind in kinds]


def test_a_hash_changes_with_every_part_of_a_fact_and_not_with_their_order() -> None:
    facts = [Fact("event", f"e{n}", {"a": b"1", "b": b"%d" % n}, "0") for n in range(50)]
    forward, backward = Tally(), Tally()
    forward.add(facts)
    backward.add(reversed(facts))
    assert forward.hash == backward.hash
    changed = [
        Fact("event", "e7", {"a": b"1", "b": b"8"}), Fact("event", "e77", {"a": b"1", "b": b"7"}),
        Fact("effect", "e7", {"a": b"1", "b": b"7"}), Fact("event", "e7", {"a": b"1b", "": b"7"}),
        Fact("event", "e7", {"a": b"1"}),
    ]  # fmt: skip
    hashes = {forward.hash}
    for other in changed:
        tally = Tally()
        tally.add([other if fact.name == "e7" else fact for fact in facts])
        hashes.add(tally.hash)
    assert len(hashes) == 1 + len(changed)


async def test_a_fact_that_is_read_twice_makes_no_difference_and_one_that_is_written_meanwhile_none_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A scan may show a key twice, and an event may arrive between two looks."""
    monkeypatch.setattr("projections.compare._PAUSE", 0)
    facts = [Fact("event", f"e{n}", {"a": b"1"}, "0") for n in range(100)]
    looks = 0

    async def left(buckets):  # type: ignore[no-untyped-def]
        nonlocal looks
        looks += 1
        yield [fact for fact in facts if buckets is None or fact.bucket in buckets]
        if looks == 1:
            yield facts[:30]

    async def right(buckets):  # type: ignore[no-untyped-def]
        late = facts[:-1] if looks < 3 else facts
        yield [fact for fact in late if buckets is None or fact.bucket in buckets]

    found = await compare_sides(left, right)
    assert found.equal
    assert found.left.hash == found.right.hash
