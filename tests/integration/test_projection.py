"""Stage 1 on a real Redis: whatever the order, however often, beside any other stage, the graph is the same."""

from __future__ import annotations

import random

import numpy as np
import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.document import Enrichment, Mention
from context_graph.domain.event import SUMMARY_TYPE, Envelope, LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.stages import PROJECTION
from context_graph.domain.text import document_of
from projections.fold import fold
from projections.worker import Projection
from tests.events import event
from tests.graph_state import State, graph_state, stage_one, stage_two, state_hash
from tests.ledger_events import append, envelope, only_partition, parsed
from tests.stages import caught_up, running
from tests.waiting import until


@pytest.fixture
async def partition(resources: Resources) -> Partition:
    return await only_partition(resources.tenants)


def story(seed: int, count: int = 60) -> list[Envelope]:
    """Events that share sessions, people and tools, name causes before and after themselves, and tie in time."""
    chance = random.Random(seed)
    raws = []
    for number in range(count):
        fields = {
            "session_id": chance.choice(["s1", "s2", "s 3}"]),
            "agent_id": chance.choice(["support", "coder"]),
            "user_id": chance.choice([None, "nadia", "omar"]),
            "tool_name": chance.choice([None, "refund"]),
            "status": chance.choice([None, "completed", "failed"]),
            "caused_by": sorted(
                {f"e{chance.randrange(count + 5)}" for _ in range(chance.randrange(3))} - {f"e{number}"}
            ),
            "occurred_at": f"2026-09-01T09:00:{chance.randrange(20):02d}Z",
        }
        raws.append(event(number, **{name: value for name, value in fields.items() if value is not None}))
    return parsed(raws)


async def ledger_of(resources: Resources, partition: Partition, envelopes: list[Envelope]) -> list[LedgerEvent]:
    """The envelopes and summaries of two sessions in the ledger."""
    summaries = [summary(number, f"session/s{number % 2 + 1}") for number in range(6)]
    await append(resources.ledger, partition, [*envelopes, *summaries])
    return await resources.ledger.after(partition, None, 1000)


def summary(number: int, scope: str) -> Envelope:
    """What the consolidation appends."""
    return Envelope(
        event_id=f"sum{number}",  # type: ignore[arg-type]
        event_type=SUMMARY_TYPE,
        session_id="s1",  # type: ignore[arg-type]
        agent_id="consolidation",
        occurred_at=1_700_000_000_000 - number,
        origin="derived",
        payload={"scope": scope, "sentences": [{"text": f"text {number}", "event_ids": [f"e{number}", "e1"]}]},
    )


async def projected(resources: Resources, partition: Partition, batches: list[list[LedgerEvent]]) -> State:
    """The state that these batches lead to, from nothing."""
    await forget(resources, partition)
    for batch in batches:
        await resources.graph.apply(partition, fold(batch))
    return await graph_state(resources.derived_redis, partition)


async def forget(resources: Resources, partition: Partition) -> None:
    tag = (await resources.graph.keys(partition)).tag
    keys = [key async for key in resources.derived_redis.scan_iter(f"{tag}:*")]
    if keys:
        await resources.derived_redis.delete(*keys)


def cut(events: list[LedgerEvent], chance: random.Random) -> list[list[LedgerEvent]]:
    """Batches of random sizes."""
    batches = []
    while events:
        size = chance.randint(1, 20)
        batches.append(events[:size])
        events = events[size:]
    return batches


@pytest.mark.parametrize("seed", range(6))
async def test_any_order_any_batches_and_repetition_give_the_same_graph(
    resources: Resources, partition: Partition, seed: int
) -> None:
    ledger = await ledger_of(resources, partition, story(seed))
    expected = await projected(resources, partition, [ledger])
    assert len([key for key in expected if key.startswith("event:")]) == len(ledger)
    chance = random.Random(seed)
    for _ in range(3):
        shuffled = ledger + chance.sample(ledger, 20)
        chance.shuffle(shuffled)
        batches = cut(shuffled, chance)
        state = await projected(resources, partition, [*batches, chance.choice(batches)])
        assert state == expected
        assert state_hash(state) == state_hash(expected)


def enriched(events: list[LedgerEvent]) -> list[Enrichment]:
    """Stage 2's part, made without models."""
    vector = np.full(384, 1 / np.sqrt(384), dtype=np.float32).tobytes()
    mentions = (Mention("person/nadia", "Nadia", "PERSON", 0, 5), Mention("person/nadia", "nadia", "PERSON", 9, 14))
    return [
        Enrichment(document_of(known, 5), vector, "test-model", "00" * 16, mentions)
        for known in events
        if not known.envelope.is_derived
    ]


@pytest.mark.parametrize("seed", range(3))
async def test_the_stages_do_not_disturb_each_other_in_whatever_order_they_come(
    resources: Resources, partition: Partition, seed: int
) -> None:
    ledger = await ledger_of(resources, partition, story(seed, 30))
    alone = await projected(resources, partition, [ledger])
    assert stage_one(alone) == alone
    await forget(resources, partition)
    await resources.index.put_enrichments(partition, enriched(ledger))
    other_alone = await graph_state(resources.derived_redis, partition)
    assert stage_one(other_alone) == {}

    await resources.graph.apply(partition, fold(ledger))  # Stage 1 after Stage 2
    both = await graph_state(resources.derived_redis, partition)
    assert stage_one(both) == alone
    assert stage_two(both) == other_alone

    await projected(resources, partition, [ledger])  # Stage 2 after Stage 1, then both again in pieces
    chance = random.Random(seed)
    for batch in [ledger, *cut(chance.sample(ledger, 20), chance)]:
        await resources.index.put_enrichments(partition, enriched(batch))
        await resources.graph.apply(partition, fold(batch))
    assert await graph_state(resources.derived_redis, partition) == both


async def test_an_event_of_which_only_the_enrichment_knows_is_not_there_yet(
    resources: Resources, partition: Partition
) -> None:
    [known] = (await ledger_of(resources, partition, [envelope(1)]))[:1]
    await resources.index.put_enrichments(partition, enriched([known]))
    assert await resources.graph.events(partition, ["e1"]) == {}
    await resources.graph.apply(partition, fold([known]))
    [node] = (await resources.graph.events(partition, ["e1"])).values()
    assert (node.id, node.position, node.session_id) == ("e1", known.position, "s1")


async def test_a_timeline_is_ordered_by_occurrence_then_by_position(resources: Resources, partition: Partition) -> None:
    seconds = [5, 3, 3, 9, 3, 1, 5]
    events = [envelope(n, occurred_at=f"2026-09-01T09:00:{second:02d}Z") for n, second in enumerate(seconds)]
    await append(resources.ledger, partition, events)
    ledger = await resources.ledger.after(partition, None, 100)
    for known in reversed(ledger):
        await resources.graph.apply(partition, fold([known]))
    expected = ["e5", "e1", "e2", "e4", "e0", "e6", "e3"]
    found = await resources.graph.timeline(partition, "session", "s1")
    assert [entry.event_id for entry in found] == expected
    newest = await resources.graph.timeline(partition, "session", "s1", newest_first=True, limit=3)
    assert [entry.event_id for entry in newest] == expected[::-1][:3]
    until_ms = ledger[0].envelope.occurred_at
    assert [
        entry.event_id for entry in await resources.graph.timeline(partition, "session", "s1", until=until_ms)
    ] == expected[:-1]


async def test_ties_at_one_millisecond_keep_the_ledgers_order_beyond_any_digit(
    resources: Resources, partition: Partition
) -> None:
    """Sequence numbers 9, 10, 15, 16, 255, 256: byte order of the members is the order of numbers."""
    numbers = [0, 9, 10, 15, 16, 255, 256, 4096]
    ledger = [
        LedgerEvent(partition.tenant, Position(0, 1_700_000_000_000, seq), envelope(1, event_id=f"q{seq}"))
        for seq in numbers
    ]
    await resources.graph.apply(partition, fold(reversed(ledger)))
    found = await resources.graph.timeline(partition, "session", "s1")
    assert [entry.position.seq for entry in found] == numbers


async def test_an_effect_before_its_cause_waits_for_it_by_name(resources: Resources, partition: Partition) -> None:
    await append(resources.ledger, partition, [envelope(2, caused_by=["e1"]), envelope(1)])
    effect, cause = await resources.ledger.after(partition, None, 10)
    await resources.graph.apply(partition, fold([effect]))
    assert set(await resources.graph.events(partition, ["e1", "e2"])) == {"e2"}
    before = await resources.graph.effects(partition, ["e1"], 10)
    assert [entry.event_id for entry in before["e1"]] == ["e2"]
    await resources.graph.apply(partition, fold([cause]))
    nodes = await resources.graph.events(partition, ["e1", "e2"])
    assert nodes["e2"].causes == ("e1",)
    assert nodes["e1"].causes == ()
    assert await resources.graph.effects(partition, ["e1"], 10) == before


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1), (0, 2, 2, 0, 1)])
async def test_the_newest_summary_of_a_scope_stays(
    resources: Resources, partition: Partition, order: tuple[int, ...]
) -> None:
    await append(resources.ledger, partition, [summary(number, "session/s1") for number in range(3)])
    ledger = await resources.ledger.after(partition, None, 10)
    for place in order:
        await resources.graph.apply(partition, fold([ledger[place]]))
    newest = await resources.graph.summary(partition, "session/s1")
    assert newest is not None
    assert (newest.id, newest.position, newest.event_ids) == ("sum2", ledger[2].position, ("e2", "e1"))


async def test_a_summary_that_says_nothing_is_buried_and_the_rest_projected(
    resources: Resources, partition: Partition
) -> None:
    broken = Envelope(
        event_id="broken", event_type=SUMMARY_TYPE, session_id="s1", agent_id="x", occurred_at=1, origin="derived"  # type: ignore[arg-type]
    )  # fmt: skip
    await append(resources.ledger, partition, [envelope(1), broken, envelope(2)])
    async with running(resources.source, Projection(resources.graph), stage=PROJECTION):
        await until(lambda: caught_up(resources.groups, partition, PROJECTION.group))
    assert set(await resources.graph.events(partition, ["e1", "broken", "e2"])) == {"e1", "e2"}
    [letter] = await resources.dead_letters.listed(partition)
    assert (letter.event_id, letter.deliveries) == ("broken", 1)


async def test_the_worker_leads_to_the_state_of_one_batch(resources: Resources, partition: Partition) -> None:
    ledger = await ledger_of(resources, partition, story(7, 300))
    expected = await projected(resources, partition, [ledger])
    await forget(resources, partition)
    projection = Projection(resources.graph)
    async with (
        running(resources.source, projection, stage=PROJECTION, batch=7),
        running(resources.source, projection, stage=PROJECTION, batch=11),
    ):
        await until(lambda: caught_up(resources.groups, partition, PROJECTION.group))
    assert await graph_state(resources.derived_redis, partition) == expected
