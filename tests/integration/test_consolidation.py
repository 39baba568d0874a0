"""Consolidation on a real Redis: summaries are appended once, follow the input, and cost nothing when it rests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from context_graph.bootstrap import Resources
from context_graph.domain.event import SUMMARY_TYPE, Envelope, EventId, LedgerEvent, SessionId, TenantId
from context_graph.domain.graph import GraphDelta, timeline_member
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.text import cited_events
from context_graph.errors import LeaseLostError
from context_graph.settings import ConsolidationSettings
from context_graph.store import codec
from context_graph.store.consolidation import ConsolidationStore, Seen
from context_graph.store.keys import GraphKeys, PartitionKeys
from context_graph.store.ledger import Appendable
from context_graph.workers import load_worker
from enrichment.importance import importance_of
from enrichment.reconsolidation.plan import Rules, plan_session
from enrichment.reconsolidation.reading import SessionReading
from enrichment.reconsolidation.run import LEASE, Outcome, consolidate
from enrichment.reconsolidation.worker import WORKER, run
from projections.fold import fold
from tests.waiting import until

HERE = Partition(TenantId("default"), 0)
MINUTE = 60_000


def envelope(session: str, i: int, *, minute: int | None = None) -> Envelope:
    return Envelope(
        event_id=EventId(f"{session}-{i}"),
        event_type="user.message" if i % 2 == 0 else "agent.message",
        session_id=SessionId(session),
        agent_id="support",
        occurred_at=(i if minute is None else minute) * MINUTE,
        payload={"text": f"Step {i} of the parcel for {session} was checked by the carrier. All is well now."},
    )


def talk(session: str, count: int, start: int = 0) -> list[Envelope]:
    return [envelope(session, i) for i in range(start, start + count)]


async def happen(resources: Resources, envelopes: Iterable[Envelope], partition: Partition = HERE) -> None:
    """Append, and let Stage 1 see it."""
    await resources.ledger.append(partition, [Appendable(e.event_id, e.session_id, codec.encode(e)) for e in envelopes])
    await project(resources, partition)


async def everything(resources: Resources, partition: Partition = HERE) -> list[LedgerEvent]:
    return await resources.ledger.after(partition, None, 10_000)


async def project(resources: Resources, partition: Partition = HERE) -> None:
    await resources.graph.apply(partition, fold(await everything(resources, partition)))


async def summaries(resources: Resources, partition: Partition = HERE) -> list[Envelope]:
    found = await everything(resources, partition)
    return [event.envelope for event in found if event.envelope.event_type == SUMMARY_TYPE]


def covered(summary: Envelope) -> Any:
    payload: Any = summary.payload
    return payload["covers"]["events"]


async def test_sessions_are_summarised_once_and_then_left_alone(resources: Resources) -> None:
    await happen(resources, [*talk("first", 8), *talk("second", 8), *talk("small", 2)])
    assert await consolidate(resources, HERE, "w") == Outcome(summarised=2, short=1)
    made = await summaries(resources)
    assert {summary.session_id for summary in made} == {"first", "second"}
    for summary in made:
        assert all(cited.startswith(summary.session_id) for cited in cited_events(summary))
    await project(resources)
    assert await consolidate(resources, HERE, "w") == Outcome(unchanged=2, short=1)
    assert len(await summaries(resources)) == 2


async def test_an_unchanged_session_costs_no_event_read(resources: Resources) -> None:
    await happen(resources, talk("first", 30))
    await consolidate(resources, HERE, "w")

    async def reads() -> int:
        stats: Any = await resources.ledger_redis.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("xrange", "zrangebyscore"))

    before = await reads()
    assert await consolidate(resources, HERE, "w") == Outcome(unchanged=1)
    assert await reads() == before


async def test_a_forgotten_marker_costs_a_reading_but_no_second_summary(resources: Resources) -> None:
    await happen(resources, talk("first", 8))
    await consolidate(resources, HERE, "w")
    await resources.derived_redis.delete(GraphKeys(HERE).consolidated("first"))
    assert await consolidate(resources, HERE, "w") == Outcome(unchanged=1)
    assert len(await summaries(resources)) == 1


async def test_new_events_make_a_new_summary_and_the_graph_shows_the_newest(resources: Resources) -> None:
    await happen(resources, talk("first", 8))
    await consolidate(resources, HERE, "w")
    await happen(resources, talk("first", 4, start=8))
    assert await consolidate(resources, HERE, "w") == Outcome(summarised=1)
    await project(resources)
    old, new = await summaries(resources)
    assert (covered(old), covered(new)) == (8, 12)
    node = await resources.graph.summary(HERE, "session/first")
    assert node is not None
    assert node.id == new.event_id
    assert node.event_ids == cited_events(new)


async def test_an_event_that_arrives_late_is_read_where_it_occurred(resources: Resources) -> None:
    await happen(resources, talk("first", 8, start=100))
    await consolidate(resources, HERE, "w")
    await happen(resources, [envelope("first", 99, minute=1)])
    await consolidate(resources, HERE, "w")
    payload: Any = (await summaries(resources))[-1].payload
    assert [len(episode["event_ids"]) for episode in payload["episodes"]] == [1, 8]
    assert payload["episodes"][0]["event_ids"] == ["first-99"]


async def test_a_session_longer_than_a_page_is_read_whole(resources: Resources) -> None:
    await happen(resources, talk("long", 1203))
    assert await consolidate(resources, HERE, "w") == Outcome(summarised=1)
    assert [covered(summary) for summary in await summaries(resources)] == [1203]


async def test_other_rules_make_another_summary_of_the_same_events(resources: Resources) -> None:
    await happen(resources, talk("first", 8))
    await consolidate(resources, HERE, "w")
    shorter = replace(resources, settings=resources.settings.model_copy(
        update={"consolidation": ConsolidationSettings(summary_sentences=1)}
    ))  # fmt: skip
    assert await consolidate(shorter, HERE, "w") == Outcome(summarised=1)


async def test_one_broken_session_is_logged_and_counted_and_the_others_go_on(resources: Resources) -> None:
    await happen(resources, [*talk("first", 8), *talk("last", 8)])
    (bad,) = await resources.ledger.append(HERE, [Appendable(EventId("bad"), SessionId("broken"), b'{"no": "event"}')])
    delta = GraphDelta()
    delta.put_on_timeline("session", "broken", timeline_member(bad.position, "bad"), 4 * MINUTE)
    for i in range(7):
        delta.put_on_timeline("session", "broken", timeline_member(bad.position, f"bad-{i}"), 4 * MINUTE)
    await resources.graph.apply(HERE, delta)
    with capture_logs() as logs:
        outcome = await consolidate(resources, HERE, "w")
    assert outcome == Outcome(summarised=2, failed=1)
    assert outcome.words == "2 sessions summarised, 0 unchanged, 1 failed (see the log)"
    assert [entry["session_id"] for entry in logs if entry["log_level"] == "error"] == ["broken"]


async def test_a_partition_that_somebody_consolidates_is_left_to_them(resources: Resources) -> None:
    await happen(resources, talk("first", 8))
    lease = await resources.leases.acquire(HERE, LEASE, "somebody", 60_000)
    assert lease is not None
    assert await consolidate(resources, HERE, "w") == Outcome(busy=1)
    await resources.leases.release(lease)
    assert await consolidate(resources, HERE, "w") == Outcome(summarised=1)


async def test_a_pass_gives_its_lease_back(resources: Resources) -> None:
    await happen(resources, talk("first", 8))
    await consolidate(resources, HERE, "w")
    assert await resources.ledger_redis.exists(PartitionKeys(HERE).lease(LEASE)) == 0


async def test_a_pass_that_lost_its_lease_stops(resources: Resources) -> None:
    await happen(resources, (e for i in range(60) for e in talk(f"s{i}", 6)))
    a_pass = asyncio.create_task(consolidate(resources, HERE, "w"))

    async def taken_away() -> bool:
        return await resources.ledger_redis.delete(PartitionKeys(HERE).lease(LEASE)) == 1

    await until(taken_away)
    with pytest.raises(LeaseLostError):
        await a_pass
    assert len(await summaries(resources)) < 60


async def test_a_summary_that_a_suspended_worker_left_on_top_is_followed_by_the_right_one(resources: Resources) -> None:
    """It read ten events, slept while another summarised twelve, then woke between its renewal and its append."""
    await happen(resources, talk("first", 10))
    reading = SessionReading("first")
    reading.add(await everything(resources), importance_of)
    rules = Rules.of(resources.settings)
    stale = plan_session(reading, rules)
    assert stale is not None
    await happen(resources, talk("first", 2, start=10))
    assert await consolidate(resources, HERE, "w") == Outcome(summarised=1)
    await happen(resources, [stale.summary])
    store = ConsolidationStore(resources.derived_redis, resources.graph, resources.ledger)
    await store.remember(HERE, "first", Seen(10, "as it was", rules.digest))

    assert await consolidate(resources, HERE, "w") == Outcome(summarised=1)
    await project(resources)
    assert [covered(summary) for summary in await summaries(resources)] == [12, 10, 12]
    node = await resources.graph.summary(HERE, "session/first")
    assert node is not None
    assert node.id == (await summaries(resources))[-1].event_id
    assert await consolidate(resources, HERE, "w") == Outcome(unchanged=1)


async def test_the_command_covers_every_partition_and_says_what_it_did(resources: Resources) -> None:
    tenant = await resources.tenants.ensure("default", 3)
    for session in ("a", "b", "c", "d"):
        await happen(resources, talk(session, 8), tenant.partition_of(SessionId(session)))
    assert WORKER.once is not None
    assert await WORKER.once(resources) == "4 sessions summarised, 0 unchanged"
    assert await WORKER.once(resources) == "0 sessions summarised, 4 unchanged"


async def test_commands_at_the_same_time_summarise_every_session_once(resources: Resources) -> None:
    await resources.tenants.ensure("default", 1)
    await happen(resources, (e for i in range(10) for e in talk(f"s{i}", 6)))
    assert WORKER.once is not None
    words = await asyncio.gather(*(WORKER.once(resources) for _ in range(3)))
    assert sorted(words) == ["0 sessions summarised, 10 unchanged"] * 2 + ["10 sessions summarised, 0 unchanged"]
    assert len(await summaries(resources)) == 10


async def test_the_worker_passes_periodically_until_it_is_stopped(resources: Resources) -> None:
    often = replace(resources, settings=resources.settings.model_copy(
        update={"consolidation": ConsolidationSettings(every_seconds=0.05)}
    ))  # fmt: skip
    tenant: Tenant = await resources.tenants.ensure("default", 1)
    stop = asyncio.Event()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:

        async def work() -> None:
            await load_worker("consolidation").run(often, stop)

        group.create_task(work(), name="consolidation")
        for expected in (1, 2):
            await happen(resources, talk(f"session-{expected}", 8), tenant.partitions[0])

            async def appeared(count: int = expected) -> bool:
                return len(await summaries(resources)) == count

            await until(appeared)
        stop.set()


async def test_an_outage_is_logged_and_waited_out(resources: Resources) -> None:
    """Out of memory is how a running Redis refuses writes; taking the lease is a write."""
    await resources.tenants.ensure("default", 1)
    await happen(resources, talk("first", 8))
    stop = asyncio.Event()
    with capture_logs() as logs:
        await resources.ledger_redis.config_set("maxmemory", 1)
        try:
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                group.create_task(run(resources, stop), name="consolidation")
                await until(lambda: any(entry["event"] == "consolidation interrupted" for entry in logs))
                await resources.ledger_redis.config_set("maxmemory", 0)

                async def appeared() -> bool:
                    return len(await summaries(resources)) == 1

                await until(appeared)
                stop.set()
        finally:
            await resources.ledger_redis.config_set("maxmemory", 0)
