"""Forgetting by policy on a real Redis: what goes, what stays and why, and that nothing is lost by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from context_graph.bootstrap import Resources
from context_graph.delivery.recalling import Recalling
from context_graph.domain.event import FORGOTTEN_TYPE, Envelope, EventId, LedgerEvent, SessionId, TenantId
from context_graph.domain.partition import Partition
from context_graph.domain.retention import DAY_MS, ForgettingPolicy
from context_graph.errors import LeaseLostError
from context_graph.store.forgotten import Forgotten
from context_graph.store.keys import PartitionKeys
from context_graph.store.ledger import Appendable, Appended
from context_graph.store.retention import Policies, RetentionStore
from enrichment.reconsolidation import forgetting_pass
from enrichment.reconsolidation.forgetting_pass import forget
from enrichment.reconsolidation.run import consolidate
from tests.forgetting import append, derive, everything, lived, passed
from tests.graph_state import State, graph_state

HERE = Partition(TenantId("default"), 0)
OLD = 200 * DAY_MS  # now, when everything happened on day 0
POLICY = ForgettingPolicy(enabled=True, keep_share=0)


def said(session: str, i: int, **fields: Any) -> Envelope:
    known: dict[str, Any] = {"occurred_at": i * 60_000, "agent_id": "support", "event_type": "user.message"} | fields
    return Envelope(
        event_id=EventId(f"{session}-{i}"),
        session_id=SessionId(session),
        payload={"text": f"Parcel {i} of {session} was handed to the carrier in Lisbon. It weighs {i + 2} kilos."},
        **known,
    )


async def told(resources: Resources, *sessions: str, count: int = 8, policy: ForgettingPolicy = POLICY) -> None:
    await resources.tenants.ensure("default", 1)
    await Policies(resources.ledger_redis).put(HERE.tenant, policy)
    for session in sessions:
        await append(resources, HERE, [said(session, i) for i in range(count)])


async def state_of(resources: Resources, generation: int = 1) -> State:
    """What a pass remembers for itself is no part of what is compared."""
    state = await graph_state(resources.derived_redis, HERE, generation)
    own = ("retention:", "consolidation", "consolidated:")
    return {key: value for key, value in state.items() if not key.startswith(own)}


async def in_graph(resources: Resources) -> set[str]:
    state = await state_of(resources)
    names = {key.removeprefix("doc:") for key in state if key.startswith("doc:")}
    return {name for name in names if not name.startswith("summary:")}


async def forgotten_events(resources: Resources) -> list[LedgerEvent]:
    return [e for e in await everything(resources, HERE) if e.envelope.event_type == FORGOTTEN_TYPE]


async def test_nothing_is_forgotten_unless_a_policy_says_so(resources: Resources) -> None:
    await told(resources, "a", policy=ForgettingPolicy(keep_share=0))
    done = await lived(resources, HERE, OLD)
    assert (done.off, done.words) == (True, "")
    assert len(await in_graph(resources)) == 8
    dry = await forget(resources, HERE, "w", OLD, dry_run=True)
    assert dry.plan.as_json()["events"] == 8
    assert await forgotten_events(resources) == []


async def test_old_sessions_go_whole_after_their_summary_and_the_decision_says_why(resources: Resources) -> None:
    await told(resources, "a", "b")
    await append(resources, HERE, [said("young", i, occurred_at=OLD - DAY_MS + i) for i in range(8)])
    done = await lived(resources, HERE, OLD)
    assert (done.plan.events, done.appended) == (16, 2)
    assert await in_graph(resources) == {f"young-{i}" for i in range(8)}
    for event in await forgotten_events(resources):
        payload: Any = event.envelope.payload
        assert payload["policy_version"] == 1
        assert payload["counts"] == {"events": 8, "stretches": 1}
        assert "90 days" in payload["reason"]
        assert await resources.ledger.get(HERE, payload["summary"]) is not None
        for event_id, position, occurred_at in payload["events"]:
            found = await resources.ledger.get(HERE, event_id)
            assert found is not None
            assert (str(found.position), found.envelope.occurred_at) == (position, occurred_at)
    numbers = await RetentionStore(resources.derived_redis, resources.graph, resources.ledger_redis).told(HERE)
    assert numbers == {"hot": 8, "warm": 0, "cold": 0, "due": 16, "forgotten": 0}
    again = await lived(resources, HERE, OLD)
    assert (again.appended, again.plan.events) == (0, 0)
    numbers = await RetentionStore(resources.derived_redis, resources.graph, resources.ledger_redis).told(HERE)
    assert numbers == {"hot": 8, "warm": 0, "cold": 0, "due": 0, "forgotten": 16}
    third = await forget(resources, HERE, "w", OLD)
    assert (third.looked, third.unchanged) == (0, 3)


async def test_without_a_summary_nothing_goes(resources: Resources) -> None:
    await told(resources, "a", "short", count=8)
    await append(resources, HERE, [said("tiny", i) for i in range(3)])
    done = await lived(resources, HERE, OLD, consolidated=False)
    assert (done.plan.events, done.plan.kept["no summary"]) == (0, 19)
    done = await lived(resources, HERE, OLD)
    assert (done.plan.events, done.plan.kept["no summary"]) == (16, 0)  # too short: not looked at before tomorrow
    done = await lived(resources, HERE, OLD + DAY_MS)
    assert (done.plan.events, done.plan.kept["no summary"]) == (0, 3)


async def test_an_event_that_no_summary_has_read_keeps_its_session(resources: Resources) -> None:
    await told(resources, "a")
    await derive(resources, HERE)
    await passed(resources, HERE)
    await consolidate(resources, HERE, "w")
    await append(resources, HERE, [said("a", 99, occurred_at=1)])
    await derive(resources, HERE)
    assert (await forget(resources, HERE, "w", OLD)).plan.events == 0  # the stages have not passed it
    await passed(resources, HERE)
    assert (await forget(resources, HERE, "w", OLD + DAY_MS)).plan.kept["no summary"] == 9
    assert (await lived(resources, HERE, OLD + 2 * DAY_MS)).plan.events == 9


async def test_a_stage_that_gave_an_event_up_keeps_its_session(resources: Resources) -> None:
    await told(resources, "a")
    await resources.ledger_redis.hset(PartitionKeys(HERE).held("projection"), "a", "1")
    done = await lived(resources, HERE, OLD)
    assert (done.plan.events, done.plan.kept["no summary"]) == (0, 8)


@pytest.mark.parametrize(
    ("kept", "more"),
    [
        ("warm", [said("a", 8, importance_hint=10)]),
        ("hot", [said("a", 8, occurred_at=OLD)]),
        ("causal chain", [said("b", 1, occurred_at=OLD, caused_by=(EventId("a-7"),))]),
        ("causal chain", [said("b", 1), said("b", 2, occurred_at=OLD, caused_by=(EventId("b-1"), EventId("a-0")))]),
    ],
)
async def test_what_is_worth_keeping_keeps_its_episode(
    resources: Resources, kept: Any, more: Sequence[Envelope]
) -> None:
    """An important event, one that is young, an effect that is young: each alone keeps the whole episode."""
    await told(resources, "a")
    await append(resources, HERE, more)
    done = await lived(resources, HERE, OLD)
    assert done.plan.events in (0, 8)
    if kept == "hot":  # years lie between: another episode
        assert done.plan.events == 8
        assert "a-8" in await in_graph(resources)
    else:
        assert done.plan.kept[kept] >= 8
        assert {f"a-{i}" for i in range(8)} <= await in_graph(resources)


async def test_chains_are_followed_as_many_steps_as_the_policy_says(resources: Resources) -> None:
    await told(resources, "a", policy=replace(POLICY, protect_hops=1))
    await append(resources, HERE, [said("mid", 1, caused_by=(EventId("a-7"),))])
    await append(resources, HERE, [said("new", 1, occurred_at=OLD, caused_by=(EventId("mid-1"),))])
    await Policies(resources.ledger_redis).put(HERE.tenant, replace(POLICY, protect_hops=2))
    assert (await lived(resources, HERE, OLD)).plan.events == 0
    await Policies(resources.ledger_redis).put(HERE.tenant, replace(POLICY, protect_hops=1))
    assert (await lived(resources, HERE, OLD)).plan.events == 8


async def test_a_pin_keeps_its_episode_survives_a_rebuild_and_ends(resources: Resources) -> None:
    await told(resources, "a", "b")
    tenant = await resources.tenants.ensure("default", 1)
    recalling = Recalling(resources.ledger, Forgotten(resources.derived_redis, resources.graph), lambda: OLD)
    await recalling.pin(tenant, "a-3", pinned=True)
    done = await lived(resources, HERE, OLD)
    assert (done.plan.events, done.plan.kept["pinned"]) == (8, 8)
    assert await in_graph(resources) == {f"a-{i}" for i in range(8)}
    await derive(resources, HERE, generation=2)
    assert await state_of(resources, 2) == await state_of(resources)
    await recalling.pin(tenant, "a-3", pinned=False)
    assert (await lived(resources, HERE, OLD + DAY_MS)).plan.events == 8


async def test_a_pin_that_came_while_a_pass_decided_brings_its_event_back(resources: Resources) -> None:
    await told(resources, "a")
    await lived(resources, HERE, OLD)
    tenant = await resources.tenants.ensure("default", 1)
    blind = Forgotten(resources.derived_redis, resources.graph.at(9))  # as if the decision was not to be seen yet
    await Recalling(resources.ledger, blind, lambda: OLD).pin(tenant, "a-3", pinned=True)
    await derive(resources, HERE)
    assert await in_graph(resources) == set()
    await lived(resources, HERE, OLD)
    await derive(resources, HERE)
    assert await in_graph(resources) == {"a-3"}


async def test_recall_brings_a_session_back_whole_and_counts_as_new(resources: Resources) -> None:
    await told(resources, "a", "b")
    await derive(resources, HERE)
    before = await state_of(resources)
    await lived(resources, HERE, OLD)
    tenant = await resources.tenants.ensure("default", 1)
    recalling = Recalling(resources.ledger, Forgotten(resources.derived_redis, resources.graph), lambda: OLD)
    recalled = await recalling.recall_session(tenant, "a")
    assert recalled.events == 8
    assert (await recalling.recall_session(tenant, "a")).events in (0, 8)  # the same again before it is applied
    await derive(resources, HERE)
    after = await state_of(resources)
    for key in before:
        if ":a-" in key and not key.startswith("timeline"):
            assert after[key] == before[key], key
    assert await in_graph(resources) == {f"a-{i}" for i in range(8)}
    assert (await lived(resources, HERE, OLD + 30 * DAY_MS)).plan.events == 0
    assert (await lived(resources, HERE, OLD + 91 * DAY_MS)).plan.events == 8
    [again] = await recalling.recall_events(tenant, ["a-2"])
    assert again.events == 1
    await derive(resources, HERE)
    assert await in_graph(resources) == {"a-2"}


async def test_what_arrives_late_for_a_forgotten_session_stays_until_it_is_summarised(resources: Resources) -> None:
    await told(resources, "a")
    await lived(resources, HERE, OLD)
    await append(resources, HERE, [said("a", 99, occurred_at=5)])
    await derive(resources, HERE)
    await passed(resources, HERE)
    assert await in_graph(resources) == {"a-99"}
    assert (await forget(resources, HERE, "w", OLD)).plan.kept["no summary"] == 1
    done = await lived(resources, HERE, OLD + DAY_MS)
    assert done.plan.events == 1
    assert await in_graph(resources) == set()
    newest = await resources.graph.summary(HERE, "session/a")
    assert newest is not None
    [summary] = await resources.ledger.at(HERE, [newest.position.stream_id])
    payload: Any = summary.envelope.payload
    assert payload["covers"]["events"] == 9  # the forgotten ones were read from the ledger


async def test_a_run_takes_no_more_than_its_limit_and_the_least_valuable_first(resources: Resources) -> None:
    await told(resources, "a", "b", "c", policy=replace(POLICY, max_events_per_run=20, keep_value=0.9))
    await append(resources, HERE, [said("a", 8, event_type="agent.result", importance_hint=6)])
    done = await lived(resources, HERE, OLD)
    assert {choice.session_id for choice in done.plan.chosen} == {"b", "c"}
    assert done.plan.kept["limit of the run"] == 9
    assert (await lived(resources, HERE, OLD + DAY_MS)).plan.events == 9


async def test_what_says_most_of_a_forgotten_episode_stays_and_is_not_decided_about_again(resources: Resources) -> None:
    """Two of eight stay: those that tell something of their own. A rebuild and later passes keep the same."""
    telling = {
        2: "Marta moved to Porto because her daughter studies violin there.",
        5: "Our warehouse burned down on Friday.",
    }
    policy = replace(POLICY, keep_share=0.25)
    await told(resources, count=0, policy=policy)
    texts = [telling.get(i, "Yes, thank you, good. Is it so? When did that happen, and why?") for i in range(8)]
    await append(resources, HERE, [replace(said("a", i), payload={"text": text}) for i, text in enumerate(texts)])
    done = await lived(resources, HERE, OLD)
    assert (done.plan.events, done.plan.kept["telling"]) == (6, 2)
    assert await in_graph(resources) == {"a-2", "a-5"}
    for later in (DAY_MS, 400 * DAY_MS):
        assert (await lived(resources, HERE, OLD + later)).plan.events == 0
    assert len(await forgotten_events(resources)) == 1
    assert (await forget(resources, HERE, "w", OLD + 401 * DAY_MS)).looked == 0
    await derive(resources, HERE, generation=2)
    assert await state_of(resources, 2) == await state_of(resources)


async def test_what_stays_is_bounded_however_many_sessions_there_were(resources: Resources) -> None:
    """With more behind it than may stay, each session is cut again to a smaller share."""
    sessions = [f"s{i}" for i in range(12)]
    await told(resources, *sessions, policy=replace(POLICY, keep_share=0.5, keep_most=24))
    await lived(resources, HERE, OLD)
    assert len(await in_graph(resources)) == 48  # a share of what was known to be behind it then: nothing
    await lived(resources, HERE, OLD + DAY_MS)
    assert len(await in_graph(resources)) <= 24
    assert (await lived(resources, HERE, OLD + 2 * DAY_MS)).plan.events == 0
    last = await forget(resources, HERE, "w", OLD + 3 * DAY_MS)
    assert (last.looked, last.unchanged) == (0, 12)


async def test_a_long_episode_is_forgotten_in_stretches_that_recall_finds(resources: Resources) -> None:
    await told(resources, "a", count=1203)
    done = await lived(resources, HERE, OLD)
    assert (done.plan.events, done.appended) == (1203, 2)
    assert await in_graph(resources) == set()


async def test_two_runs_two_leaders_and_a_kill_end_in_one_state(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same decisions once, whoever makes them, however often; what a rebuild makes of them is the same too."""
    await told(resources, "a", "b", "c")
    await derive(resources, HERE)
    await passed(resources, HERE)
    await consolidate(resources, HERE, "w")
    await derive(resources, HERE)
    await passed(resources, HERE)
    real = resources.ledger.append
    calls = 0

    async def killed(*args: Any) -> list[Appended]:
        """The second batch of decisions is appended, and its pass dies before it knows."""
        nonlocal calls
        calls += 1
        answers = await real(*args)
        if calls == 2:
            raise ConnectionAbortedError("killed")
        return answers

    monkeypatch.setattr(type(resources.ledger), "append", lambda _self, *args: killed(*args))
    with pytest.raises(ConnectionAbortedError):
        await forget(resources, HERE, "first", OLD)
    monkeypatch.undo()
    assert len(await forgotten_events(resources)) == 2
    for holder in ("second", "third"):
        await forget(resources, HERE, holder, OLD)  # before any stage has seen what the first one decided
    decided = await forgotten_events(resources)
    payloads: list[Any] = [event.envelope.payload for event in decided]
    assert sorted(payload["session_id"] for payload in payloads) == ["a", "b", "c"]
    await lived(resources, HERE, OLD)
    assert len(await forgotten_events(resources)) == 3
    await derive(resources, HERE, generation=2)
    assert await state_of(resources, 2) == await state_of(resources)


async def test_a_leader_that_was_suspended_appends_nothing(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It renewed its lease, slept past its end, and goes on: the very append is refused."""
    await told(resources, "a")
    await derive(resources, HERE)
    await passed(resources, HERE)
    await consolidate(resources, HERE, "w")
    await derive(resources, HERE)
    await passed(resources, HERE)
    renew = type(resources.leases).renew

    async def renewed(self: Any, lease: Any) -> bool:
        answer = await renew(self, lease)
        await resources.ledger_redis.delete(PartitionKeys(HERE).lease(forgetting_pass.LEASE))
        await self.acquire(HERE, forgetting_pass.LEASE, "other", 60_000)
        return answer

    monkeypatch.setattr(forgetting_pass._Pass, "_hold", lambda self: renewed(resources.leases, self._lease))
    with pytest.raises(LeaseLostError):
        await forget(resources, HERE, "slow", OLD)
    assert await forgotten_events(resources) == []
    event = said("z", 1)
    stale = await resources.leases.acquire(HERE, "any", "w", 60_000)
    assert stale is not None
    await resources.leases.release(stale)
    body = Appendable(event.event_id, event.session_id, b"{}")
    with pytest.raises(LeaseLostError):
        await resources.ledger.append(HERE, [body], stale)
    assert await resources.ledger.get(HERE, event.event_id) is None
