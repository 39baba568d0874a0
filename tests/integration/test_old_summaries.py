"""Summaries of forgotten sessions do not fill the index for ever: the least valuable leave it, and come back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from context_graph.bootstrap import Resources
from context_graph.delivery.recalling import Recalling
from context_graph.domain.event import EventId
from context_graph.domain.retention import DAY_MS
from context_graph.operations import load_verify
from context_graph.store.forgotten import Forgotten
from context_graph.store.retention import Policies
from enrichment.reconsolidation.forgetting_pass import Forgot, forget
from enrichment.reconsolidation.run import consolidate
from tests.events import event
from tests.forgetting import append, derive, everything, lived, passed
from tests.graph_state import graph_state
from tests.integration.test_forgetting import HERE, OLD, POLICY, forgotten_events, said, state_of, told
from tests.ledger_events import append as append_parsed
from tests.ledger_events import parsed
from tests.rebuilding import caught_up, rebuilt, tenant_of, working

ONE = replace(POLICY, keep_summaries=1)


async def found(resources: Resources, prefix: str = "doc:") -> set[str]:
    """The sessions whose summaries are in the index; by `vec:0:` among the vectors."""
    start = f"{prefix}summary:session/"
    return {key.removeprefix(start) for key in await state_of(resources) if key.startswith(start)}


async def aged(resources: Resources, *sessions: str) -> Forgot:
    """Sessions a day apart, first named first, all forgotten; then one more pass, which has summaries to look at."""
    await told(resources, policy=ONE)
    for day, session in enumerate(sessions):
        await append(resources, HERE, [said(session, i, occurred_at=day * DAY_MS + i) for i in range(8)])
    await lived(resources, HERE, OLD)
    return await lived(resources, HERE, OLD)


async def test_the_oldest_summaries_leave_index_and_vectors_with_a_reason_and_lead_on_to_their_sources(
    resources: Resources,
) -> None:
    done = await aged(resources, "a", "b", "c")
    assert (done.plan.as_json()["summaries"], done.appended, done.plan.events) == (2, 2, 0)
    assert "2 summaries left the index" in done.words
    assert await found(resources) == await found(resources, "vec:0:") == {"c"}
    for decision in (await forgotten_events(resources))[-2:]:
        payload: Any = decision.envelope.payload
        assert payload["reason"] == "more than 1 summaries of forgotten sessions"
        node = await resources.graph.summary(HERE, f"session/{payload['session_id']}")
        assert node is not None
        assert (node.id, str(node.position)) == (payload["summary"], payload["summaries_through"])
        [summary] = await resources.ledger.at(HERE, [node.position.stream_id])
        assert {i for s in summary.envelope.payload["sentences"] for i in s["event_ids"]} <= {  # type: ignore[index,union-attr,call-overload]
            e.envelope.event_id for e in await everything(resources, HERE)
        }
    again = await lived(resources, HERE, OLD)
    assert (again.appended, again.plan.summaries, sorted(again.plan.left)) == (2, [], ["a", "b"])  # and nothing is left
    assert (await lived(resources, HERE, OLD)).appended == 0


async def test_a_dry_run_says_which_would_leave_and_changes_nothing(resources: Resources) -> None:
    await told(resources, "a", "b", policy=replace(ONE, keep_summaries=2))
    await lived(resources, HERE, OLD)
    before = await state_of(resources)
    await told(resources, policy=ONE)
    dry = await forget(resources, HERE, "w", OLD, dry_run=True)
    assert (dry.plan.summaries, dry.appended) == (["a"], 0)
    assert await state_of(resources) == before


async def test_every_order_and_every_repetition_of_the_decisions_ends_alike(resources: Resources) -> None:
    await aged(resources, "a", "b")
    state = await state_of(resources)
    events = await everything(resources, HERE)
    await derive(resources, HERE, events[::-1], generation=2)
    assert await state_of(resources, 2) == state
    await derive(resources, HERE, events, generation=2)
    await derive(resources, HERE, events[::-1])
    assert await state_of(resources, 2) == await state_of(resources) == state


async def test_one_that_helped_stays_for_an_older_one(resources: Resources) -> None:
    await told(resources, policy=ONE)
    for day, session in enumerate(("a", "b")):
        await append(resources, HERE, [said(session, i, occurred_at=day * DAY_MS + i) for i in range(8)])
    await lived(resources, HERE, OLD)
    receipt = replace(
        said("new", 0), event_id=EventId("feedback"), event_type="memory.feedback", origin="derived",
        parent_event_id=EventId("receipt"), payload={"useful": ["summary:session/a"]},
    )  # fmt: skip
    await append(resources, HERE, [receipt])
    await lived(resources, HERE, OLD)
    assert await found(resources) == {"a"}


async def test_recall_brings_a_summary_back_and_it_counts_as_new(resources: Resources) -> None:
    await aged(resources, "a", "b")
    assert await found(resources) == {"b"}
    tenant = await resources.tenants.ensure("default", 1)
    recalling = Recalling(resources.ledger, Forgotten(resources.derived_redis, resources.graph), lambda: OLD)
    assert (await recalling.recall_session(tenant, "a")).events == 8
    await derive(resources, HERE)
    await passed(resources, HERE)
    assert await found(resources) == await found(resources, "vec:0:") == {"a", "b"}
    assert (await lived(resources, HERE, OLD + 1)).plan.summaries == []  # it does not rest
    await derive(resources, HERE, generation=2)
    assert await state_of(resources, 2) == await state_of(resources)
    await lived(resources, HERE, 2 * OLD)
    await lived(resources, HERE, 2 * OLD)
    assert await found(resources) == {"a"}  # b is older now


async def test_a_session_that_goes_on_is_found_again_by_its_next_summary(resources: Resources) -> None:
    await aged(resources, "a", "b")
    await append(resources, HERE, [said("a", i, occurred_at=OLD + i) for i in range(8, 16)])
    await lived(resources, HERE, OLD + DAY_MS)
    assert await found(resources) == {"a", "b"}
    state = await state_of(resources)
    await derive(resources, HERE, (await everything(resources, HERE))[::-1])
    assert await state_of(resources) == state


async def test_a_rebuild_and_verify_leave_the_same_summaries_out(resources: Resources) -> None:
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    texts = [f"Parcel {n} went to Hamburg with Maria Lopez, who pays {n} euros." for n in range(16)]
    events = [event(n, session_id=f"s{n % 2}", payload={"text": text}) for n, text in enumerate(texts)]
    await append_parsed(resources.ledger, partition, parsed(events))
    async with working(resources):
        await caught_up(resources, partition)
        await consolidate(resources, partition, "test")
        await caught_up(resources, partition)
        await Policies(resources.ledger_redis).put(tenant.name, replace(ONE, keep_share=0.25))
        now = parsed(events)[-1].occurred_at + OLD
        for _ in range(2):
            await forget(resources, partition, "test", now)
            await caught_up(resources, partition)
        state = await graph_state(resources.derived_redis, partition)
        summaries = [key for key in state if key.startswith(("doc:summary", "vec:0:summary"))]
        assert len(summaries) == 2  # of one session, its document and its vector
        rebuild = await rebuilt(resources, tenant)
        assert rebuild.comparison is not None
        assert rebuild.comparison["equal"] is True, rebuild.comparison
        own = ("retention:", "consolidat")
        left = {key: value for key, value in state.items() if not key.startswith(own)}
        assert await graph_state(resources.derived_redis, partition, 2) == left
        report: Any = await load_verify()(resources, tenant)
    assert report["equal"] is True, report["differences"]
