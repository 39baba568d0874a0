"""A session of which nothing is left leaves the lists too: in every order of delivery, counted by an erasure, and it
comes back by recall."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from context_graph.bootstrap import Resources
from context_graph.delivery.recalling import Recalling
from context_graph.domain.erasure import Subject
from context_graph.domain.event import Envelope, EventId, LedgerEvent, SessionId
from context_graph.domain.retention import DAY_MS
from context_graph.retrieval.forgotten import ForgottenNodes
from context_graph.store import codec
from context_graph.store.forgotten import Forgotten
from context_graph.store.ledger import Appendable
from context_graph.store.sweeping import Sweeper
from enrichment.reconsolidation import forgetting_pass
from enrichment.reconsolidation.forgetting_pass import forget
from tests import forgetting
from tests.events import event
from tests.forgetting import append, decided, derive, everything, lived, passed, stages
from tests.graph_state import State, graph_state
from tests.integration.test_forgetting import HERE, OLD, POLICY, forgotten_events, in_graph, state_of, told
from tests.integration.test_forgetting import said as told_event
from tests.integration.test_forgotten_stages import members, said, talked
from tests.ledger_events import append as ingest
from tests.ledger_events import parsed
from tests.rebuilding import caught_up, tenant_of, told_by_rebuild_and_verify, working

LEAVING = replace(POLICY, keep_summaries=0)


def stands(state: State, session: str) -> set[str]:
    """The events on a session's timeline; the session is listed when there are any."""
    there = members(state, f"timeline:session:{session}")
    assert (session in state.get("registry:session", {})) == bool(there)
    return there


def histories(known: dict[str, LedgerEvent]) -> dict[str, tuple[list[Envelope], set[str]]]:
    """Decisions about session a, one after another, and which of its eight events then stand on its timeline."""
    a = [known[f"a-{i}"] for i in range(8)]
    gone = [decided(a[:3], forgotten=True, occurred_at=1), decided(a[3:], forgotten=True, occurred_at=2)]
    left = [*gone, decided(a, forgotten=True, occurred_at=3, after="2", places=True)]
    back = decided(a, forgotten=False, occurred_at=4, after="3")
    some = decided(a[2:5], forgotten=False, occurred_at=4, after="3")
    again = decided(a[2:5], forgotten=True, occurred_at=5, after="4")
    names = [event.envelope.event_id for event in a]
    return {
        "left": (left, set()),
        "recalled": ([*left, back], {*names}),
        "some recalled": ([*left, some], {*names[2:5]}),
        "and forgotten again": ([*left, some, again], {*names[2:5]}),
        "left twice": ([*left, back, decided(a, forgotten=True, occurred_at=6, after="4", places=True)], set()),
    }


@pytest.mark.parametrize("history", ["left", "recalled", "some recalled", "and forgotten again", "left twice"])
async def test_order_and_repetition_do_not_matter(resources: Resources, history: str) -> None:
    made, standing = histories(await talked(resources))[history]
    for decision in made:
        await append(resources, HERE, [decision])
    events = await everything(resources, HERE)
    await derive(resources, HERE, events)
    expected = await graph_state(resources.derived_redis, HERE)
    assert stands(expected, "a") == standing
    assert len(expected["forgotten:a"]) == {"left": 1, "left twice": 1, "and forgotten again": 3}.get(history, 2)
    for seed in range(4):
        chance = random.Random(seed)
        for stage in stages(resources, seed + 2):
            shuffled = [*events, *chance.sample(events, 6)]
            chance.shuffle(shuffled)
            while shuffled:
                size = chance.randint(1, 6)
                await stage.handle(HERE, shuffled[:size])
                del shuffled[:size]
        assert await graph_state(resources.derived_redis, HERE, seed + 2) == expected, seed


async def test_a_rebuild_and_a_check_know_it(resources: Resources) -> None:
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    events = [event(n, session_id=f"s{n % 3}", user_id="nadia", payload={"text": f"Parcel {n}."}) for n in range(12)]
    await ingest(resources.ledger, partition, parsed(events))
    async with working(resources):
        await caught_up(resources, partition)
        for name in ("s0", "s1"):
            its = await resources.ledger.of_session(partition, SessionId(name), None, 100)
            for number in (1, 2):
                made = decided(its, forgotten=True, occurred_at=0, after=str(number), places=number == 2)
                await forgetting.append(resources, partition, [made])
        its = await resources.ledger.of_session(partition, SessionId("s1"), None, 100)
        await forgetting.append(resources, partition, [decided(its, forgotten=False, occurred_at=1, after="3")])
        await caught_up(resources, partition)
        state = await graph_state(resources.derived_redis, partition)
        assert [len(stands(state, name)) for name in ("s0", "s1", "s2")] == [0, 4, 4]
        report = await told_by_rebuild_and_verify(resources, tenant, partition, state)
    assert report["ledger_counts"]["forgotten"] == 3


async def test_a_pass_lets_go_of_a_session_of_which_nothing_is_left_and_recall_brings_it_back(
    resources: Resources,
) -> None:
    await told(resources, "a", "b", policy=LEAVING)
    await append(resources, HERE, [told_event("young", i, occurred_at=OLD - DAY_MS + i) for i in range(8)])
    for later in range(4):
        done = await lived(resources, HERE, OLD + later)
    state = await graph_state(resources.derived_redis, HERE)
    assert [len(stands(state, name)) for name in ("a", "b", "young")] == [0, 0, 8]
    assert not {f"{kind}:{name}" for kind in ("retention", "consolidated") for name in "ab"} & state.keys()
    assert (done.looked, done.appended, len(await forgotten_events(resources))) == (0, 0, 6)
    await derive(resources, HERE, generation=2)
    assert await state_of(resources, 2) == await state_of(resources)
    tenant = await resources.tenants.ensure("default", 1)
    forgotten = Forgotten(resources.derived_redis, resources.graph)
    nodes = await ForgottenNodes(resources.ledger, forgotten).nodes(tenant, ["a-0", "young-0"])
    assert [(node.id, node.session_id) for node in nodes.values()] == [("a-0", "a")]
    recalled = await Recalling(resources.ledger, forgotten, lambda: OLD).recall_session(tenant, "a")
    assert recalled.events == 8
    await lived(resources, HERE, OLD + DAY_MS)
    state = await state_of(resources)
    assert stands(state, "a") == {f"a-{i}" for i in range(8)}
    assert {"doc:a-0", "vec:0:a-7", "doc:summary:session/a"} <= state.keys()
    await derive(resources, HERE, generation=3)
    assert await state_of(resources, 3) == state


async def test_who_speaks_in_it_again_begins_it_anew(resources: Resources) -> None:
    await told(resources, "a", policy=LEAVING)
    for later in range(3):
        await lived(resources, HERE, OLD + later)
    assert await in_graph(resources) == set()
    await append(resources, HERE, [told_event("a", i, occurred_at=OLD + i) for i in range(20, 28)])
    await lived(resources, HERE, OLD + DAY_MS)
    state = await state_of(resources)
    assert stands(state, "a") == {f"a-{i}" for i in range(20, 28)} == await in_graph(resources)
    newest = await resources.graph.summary(HERE, "session/a")
    assert newest is not None
    assert set(newest.event_ids) <= stands(state, "a")
    for later in range(3):
        await lived(resources, HERE, 2 * OLD + later)
    assert stands(await state_of(resources), "a") == set()


async def test_what_was_recalled_while_a_pass_looked_does_not_leave(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told(resources, "a", policy=LEAVING)
    for later in range(2):
        await lived(resources, HERE, OLD + later)
    tenant = await resources.tenants.ensure("default", 1)
    recalling = Recalling(resources.ledger, Forgotten(resources.derived_redis, resources.graph), lambda: OLD)
    whole = forgetting_pass._Pass._leave_whole

    async def slowly(self: Any, done: Any) -> None:
        await recalling.recall_session(tenant, "a")
        await derive(resources, HERE)
        await passed(resources, HERE)
        await whole(self, done)

    monkeypatch.setattr(forgetting_pass._Pass, "_leave_whole", slowly)
    assert (await forget(resources, HERE, "w", OLD + 3)).appended == 0
    assert stands(await state_of(resources), "a") == {f"a-{i}" for i in range(8)}


@pytest.mark.parametrize("subject", [Subject("user", "lena"), Subject("session", "a")])
async def test_an_erasure_counts_what_has_left(resources: Resources, subject: Subject) -> None:
    """Events in the clear, from before sealing was on: no timeline has them any more."""
    made = [said("a", i) for i in range(4)] + [replace(said("a", 9), event_id=EventId("other"), user_id="omar")]
    await resources.ledger.append(
        HERE, [Appendable(e.event_id, e.session_id, codec.encode(e), clear=True) for e in made]
    )
    known = await everything(resources, HERE)
    await append(resources, HERE, [decided(known, forgotten=True, occurred_at=0, places=True)])
    await derive(resources, HERE)
    last = await resources.ledger.last(HERE)
    assert last is not None
    sweeper = Sweeper(resources.ledger_redis, resources.derived_redis, resources.generations)
    removal = await sweeper.sweep(HERE, subject, last)
    its = known if subject.kind == "session" else known[:4]
    assert (removal.left_in_clear, removal.first, removal.last) == (
        len(its), str(its[0].position), str(its[-1].position),
    )  # fmt: skip
