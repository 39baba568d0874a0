"""What is forgotten leaves graph and index in every order of delivery, stays in the ledger, and comes back."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.erasure import Subject
from context_graph.domain.event import Envelope, EventId, LedgerEvent, SessionId, TenantId
from context_graph.domain.forgetting import pin_event
from context_graph.domain.partition import Partition
from context_graph.store import codec
from context_graph.store.forgotten import Forgotten
from context_graph.store.ledger import Appendable
from context_graph.store.sweeping import Sweeper
from tests.forgetting import append, decided, derive, everything, stages
from tests.graph_state import State, graph_state

HERE = Partition(TenantId("default"), 0)
MINUTE = 60_000
RECEIPT = EventId("receipt-0198a3c2-5b1e-7c44-9d3a-2f6b8e0d1c55")
PARTS = ("event:", "doc:", "vec:0:")


def said(session: str, i: int, *, cause: str | None = None) -> Envelope:
    return Envelope(
        event_id=EventId(f"{session}-{i}"),
        event_type="tool.call" if i % 3 == 0 else "user.message",
        session_id=SessionId(session),
        agent_id="support" if i % 2 else "billing",
        occurred_at=i * MINUTE,
        user_id="lena",
        tool_name="lookup" if i % 3 == 0 else None,
        parent_event_id=EventId(cause) if cause else None,
        caused_by=(RECEIPT,) if cause else (),
        payload={"text": f"Parcel {i} of {session} went to Lisbon by Maria."},
    )


async def talked(resources: Resources) -> dict[str, LedgerEvent]:
    await append(resources, HERE, [said("a", i, cause=f"a-{i - 1}" if i else None) for i in range(8)])
    await append(resources, HERE, [said("b", i, cause="a-7" if i == 0 else None) for i in range(3)])
    return {event.envelope.event_id: event for event in await everything(resources, HERE)}


def parts_of(state: State, event_id: str) -> list[str]:
    return [prefix for prefix in PARTS if f"{prefix}{event_id}" in state]


def members(state: State, key: str) -> set[str]:
    return {member[17:] for member in state.get(key, {})}


async def test_forgotten_events_leave_graph_and_index_and_their_places_stay(resources: Resources) -> None:
    known = await talked(resources)
    await derive(resources, HERE)
    gone = [known[f"a-{i}"] for i in range(4)]
    await append(resources, HERE, [decided(gone, forgotten=True, occurred_at=0)])
    await derive(resources, HERE)
    state = await graph_state(resources.derived_redis, HERE)
    assert [parts_of(state, f"a-{i}") for i in range(4)] == [[]] * 4
    assert [parts_of(state, f"a-{i}") for i in range(4, 8)] == [list(PARTS)] * 4
    assert members(state, "timeline:agent:support") == {"a-5", "a-7", "b-1"}
    assert members(state, "timeline:tool:lookup") == {"a-6", "b-0"}
    assert members(state, "timeline:entity:person:maria") == set()  # "Maria." is the word
    assert members(state, "timeline:entity:person:lisbon") == {f"a-{i}" for i in range(4, 8)} | {"b-0", "b-1", "b-2"}
    assert "effects:a-0" not in state
    assert members(state, "effects:a-3") == {"a-4"}
    assert {key for key in state if key.startswith("feedback:")} == {f"feedback:a-{i}" for i in range(3, 8)}
    assert members(state, "timeline:session:a") == {f"a-{i}" for i in range(8)}
    assert members(state, "timeline:user:lena") == {f"a-{i}" for i in range(4, 8)} | {"b-0", "b-1", "b-2"}
    assert not [key for key in state if key.startswith("event:forgotten-")]
    for i in range(4):
        found = await resources.ledger.get(HERE, f"a-{i}")
        assert found is not None
        assert found.envelope == known[f"a-{i}"].envelope


async def test_order_and_repetition_do_not_matter(resources: Resources) -> None:
    """Forgotten, recalled, in part forgotten again, pinned and not: every order of delivery ends in the same state."""
    known = await talked(resources)
    a = [known[f"a-{i}"] for i in range(8)]
    await append(resources, HERE, [decided(a[:6], forgotten=True, occurred_at=1)])
    await append(resources, HERE, [decided(a[:6], forgotten=False, occurred_at=2, after="1")])
    await append(resources, HERE, [decided(a[1:3], forgotten=True, occurred_at=3, after="2")])
    await append(resources, HERE, [replace(said("a", 2), event_id=EventId("late"))])
    for number, pinned in enumerate((True, False, True)):
        pin = pin_event("b-1", pinned=pinned, event_id_of_pin=f"pin-{number}", occurred_at=0)
        await append(resources, HERE, [pin])
    events = await everything(resources, HERE)
    await derive(resources, HERE, events)
    expected = await graph_state(resources.derived_redis, HERE)
    assert [parts_of(expected, f"a-{i}") for i in (0, 1, 2, 3)] == [list(PARTS), [], [], list(PARTS)]
    assert parts_of(expected, "late") == list(PARTS)  # it arrived after the decision
    assert await Forgotten(resources.derived_redis, resources.graph).pinned(HERE) == {"b-1"}
    for seed in range(8):
        chance = random.Random(seed)
        generation = seed + 2
        for stage in stages(resources, generation):
            shuffled = [*events, *chance.sample(events, 5)]
            chance.shuffle(shuffled)
            while shuffled:
                size = chance.randint(1, 6)
                await stage.handle(HERE, shuffled[:size])
                del shuffled[:size]
        assert await graph_state(resources.derived_redis, HERE, generation) == expected, seed


async def test_two_workers_at_once_end_in_the_same_state(resources: Resources) -> None:
    known = await talked(resources)
    a = [known[f"a-{i}"] for i in range(8)]
    await append(resources, HERE, [decided(a[:6], forgotten=True, occurred_at=1)])
    await append(resources, HERE, [decided(a[2:4], forgotten=False, occurred_at=2, after="1")])
    events = await everything(resources, HERE)
    await derive(resources, HERE, events)
    expected = await graph_state(resources.derived_redis, HERE)
    for seed in range(6):
        chance = random.Random(seed)
        generation = seed + 2
        halves = [events[::2], events[1::2]]
        chance.shuffle(halves[0])

        async def work(mine: list[LedgerEvent], number: int) -> None:
            for stage in stages(resources, number):
                for event in mine:
                    await stage.handle(HERE, [event])

        await asyncio.gather(*(work(half, generation) for half in halves))
        assert await graph_state(resources.derived_redis, HERE, generation) == expected, seed


@pytest.mark.parametrize("generation", [1, 7])
async def test_nothing_is_embedded_that_is_known_to_be_forgotten(resources: Resources, generation: int) -> None:
    known = await talked(resources)
    gone = [known[f"a-{i}"] for i in range(8)]
    await append(resources, HERE, [decided(gone, forgotten=True, occurred_at=1)])
    projection, _, enrichment = stages(resources, generation)
    events = await everything(resources, HERE)
    await projection.handle(HERE, events)
    calls = (await resources.derived_redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    await enrichment.handle(HERE, [event for event in events if event.envelope.session_id == "a"])
    assert (await resources.derived_redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == calls


async def test_an_erasure_counts_forgotten_events_in_the_clear(resources: Resources) -> None:
    """From before sealing was on: their bytes stay, and the certificate says how many, though no timeline has them."""
    told = [said("a", i) for i in range(4)] + [replace(said("a", 9), user_id="omar")]
    await resources.ledger.append(
        HERE, [Appendable(e.event_id, e.session_id, codec.encode(e), clear=True) for e in told]
    )
    known = await everything(resources, HERE)
    await append(resources, HERE, [decided(known[:3], forgotten=True, occurred_at=0)])
    await derive(resources, HERE)
    last = await resources.ledger.last(HERE)
    assert last is not None
    sweeper = Sweeper(resources.ledger_redis, resources.derived_redis, resources.generations)
    removal = await sweeper.sweep(HERE, Subject("user", "lena"), last)
    assert removal.left_in_clear == 4
    assert (removal.first, removal.last) == (str(known[0].position), str(known[3].position))
    assert not any(key.startswith("timeline:user:lena") for key in await graph_state(resources.derived_redis, HERE))
