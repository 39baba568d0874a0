"""What the delivery runtime promises, against a real Redis: at least once, poison buried, outages waited out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from context_graph.bootstrap import Resources
from context_graph.delivery.runtime import Source
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.errors import ModelUnavailable, PermanentError
from context_graph.store import codec
from context_graph.store.groups import Groups
from context_graph.store.keys import WAKE_CHANNEL, PartitionKeys
from tests.ledger_events import append, envelope, only_partition
from tests.stages import STAGE, Reaction, Recorder, caught_up, running, start
from tests.waiting import until


@pytest.fixture
async def partition(resources: Resources) -> Partition:
    return await only_partition(resources.tenants)


@pytest.fixture
async def source(resources: Resources) -> Source:
    return resources.source


def ids(*numbers: int) -> list[str]:
    return [f"e{number}" for number in numbers]


def fails_on(event_id: str, error: Exception, times: int = 1_000_000) -> Reaction:
    """Raises `error` the first `times` times that the event is in a batch alone, and whenever it has company."""
    alone = 0

    async def react(events: Sequence[LedgerEvent]) -> None:
        nonlocal alone
        names = [event.envelope.event_id for event in events]
        if event_id in names and alone < times:
            alone += len(names) == 1
            raise error

    return react


async def settled(source: Source, partition: Partition) -> None:
    await until(lambda: caught_up(source.groups, partition))


async def test_every_event_is_handled_in_ledger_order(
    resources: Resources, source: Source, partition: Partition
) -> None:
    positions = await append(resources.ledger, partition, [envelope(n) for n in range(100)])
    recorder = Recorder()
    async with running(source, recorder, batch=16):
        await settled(source, partition)
        more = await append(resources.ledger, partition, [envelope(n) for n in range(100, 130)])
        await settled(source, partition)
    assert recorder.places == [(partition, position) for position in positions + more]
    assert max(recorder.batches) <= 16


async def test_the_tail_of_a_burst_is_handled_without_another_event_or_a_full_batch(
    resources: Resources, source: Source, partition: Partition
) -> None:
    recorder = Recorder()
    async with running(source, recorder, batch=64):
        for burst in range(4):
            await append(resources.ledger, partition, [envelope(burst * 100 + n) for n in range(67)])
            await until(lambda burst=burst: len(recorder.done) == (burst + 1) * 67, seconds=5)  # type: ignore[misc]


async def test_what_a_worker_handled_and_did_not_acknowledge_is_handled_again_after_its_death(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await append(resources.ledger, partition, [envelope(n) for n in range(10)])
    effects: set[str] = set()  # idempotent, as every stage's are
    reached = asyncio.Event()

    async def handle_then_hang(events: Sequence[LedgerEvent]) -> None:
        effects.update(event.envelope.event_id for event in events)
        reached.set()
        await asyncio.Event().wait()

    victim = start(source, Recorder(handle_then_hang))
    await reached.wait()
    await victim.die()
    assert (await source.groups.state(partition, STAGE.group)).pending == 10
    successor = Recorder()
    async with running(source, successor):
        await settled(source, partition)
    assert successor.done == ids(*range(10))
    assert effects == set(successor.done)
    assert await source.dead_letters.count(partition) == 0


async def test_what_a_worker_read_in_an_answer_that_was_lost_is_handled_by_the_same_worker(
    resources: Resources, source: Source, partition: Partition
) -> None:
    """The connection breaks between XREADGROUP and its answer: pending for a worker that lives and never saw them."""
    recorder = Recorder()
    async with running(source, recorder):
        await append(resources.ledger, partition, [envelope(0)])
        await settled(source, partition)
        [consumer] = await resources.ledger_redis.xinfo_consumers(PartitionKeys(partition).ledger, STAGE.group)
        pipe = resources.ledger_redis.pipeline(transaction=True)
        for number in (1, 2):
            body: dict[Any, Any] = {"e": codec.encode(envelope(number))}
            pipe.xadd(PartitionKeys(partition).ledger, body)
        pipe.xreadgroup(STAGE.group, consumer["name"], {PartitionKeys(partition).ledger: ">"})
        await pipe.execute()
        assert (await source.groups.state(partition, STAGE.group)).pending == 2
        await settled(source, partition)
    assert recorder.done == ids(0, 1, 2)


async def test_poison_is_buried_with_its_reason_while_the_good_go_on(
    resources: Resources, source: Source, partition: Partition
) -> None:
    positions = await append(resources.ledger, partition, [envelope(n) for n in range(40)])
    recorder = Recorder(fails_on("e17", RuntimeError("cannot digest this")))
    async with running(source, recorder):
        await until(lambda: len(set(recorder.done)) == 39)
        await settled(source, partition)
    assert sorted(recorder.done) == sorted(ids(*range(17), *range(18, 40)))
    [letter] = await source.dead_letters.list(partition)
    assert (letter.event_id, letter.position, letter.group) == ("e17", positions[17], STAGE.group)
    assert letter.reason == "RuntimeError: cannot digest this"
    assert "Traceback" in letter.traceback
    assert "in react" in letter.traceback
    assert letter.deliveries == source.settings.max_deliveries


async def test_an_unknown_error_is_delivered_again_with_growing_pauses(
    resources: Resources, source: Source, partition: Partition
) -> None:
    loop = asyncio.get_running_loop()
    tries: list[float] = []

    async def react(events: Sequence[LedgerEvent]) -> None:
        tries.append(loop.time())
        raise ValueError("no")

    await append(resources.ledger, partition, [envelope(1)])
    async with running(source, Recorder(react)):
        await settled(source, partition)
    assert len(tries) == source.settings.max_deliveries
    pauses = [later - earlier for earlier, later in zip(tries, tries[1:], strict=False)]
    expected = [source.settings.backoff_seconds * 2**n for n in range(len(pauses))]
    assert all(pause >= least * 0.9 for pause, least in zip(pauses, expected, strict=True)), pauses


async def test_a_permanent_error_is_buried_at_the_first_delivery(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await append(resources.ledger, partition, [envelope(1)])
    recorder = Recorder(fails_on("e1", PermanentError("will never do")))
    async with running(source, recorder):
        await settled(source, partition)
    assert recorder.seen == ["e1"]
    [letter] = await source.dead_letters.list(partition)
    assert (letter.reason, letter.deliveries) == ("PermanentError: will never do", 1)


async def test_an_error_that_passes_leaves_no_dead_letter(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await append(resources.ledger, partition, [envelope(n) for n in range(8)])
    recorder = Recorder(fails_on("e3", KeyError("passing"), times=2))
    async with running(source, recorder):
        await settled(source, partition)
    assert sorted(recorder.done) == ids(*range(8))
    assert await source.dead_letters.count(partition) == 0


async def test_an_outage_buries_and_counts_nothing_and_ends_by_itself(
    resources: Resources, source: Source, partition: Partition
) -> None:
    tries = 0

    async def react(_: Sequence[LedgerEvent]) -> None:
        nonlocal tries
        tries += 1
        if tries <= source.settings.max_deliveries + 2:
            raise ModelUnavailable("the model is loading")

    await append(resources.ledger, partition, [envelope(n) for n in range(5)])
    recorder = Recorder(react)
    patient = replace(source, settings=source.settings.model_copy(update={"backoff_seconds": 0.005}))
    async with running(patient, recorder):
        await until(lambda: tries >= 3)
        counted = await resources.ledger_redis.xpending_range(PartitionKeys(partition).ledger, STAGE.group, "-", "+", 9)
        assert {item["times_delivered"] for item in counted} <= {1}
        await settled(source, partition)
    assert recorder.done == ids(*range(5))
    assert set(recorder.batches) == {5}  # an outage is nobody's fault: the batch is not searched for a culprit
    assert await source.dead_letters.count(partition) == 0


async def test_a_stop_during_an_outage_is_prompt_and_leaves_the_events_to_others(
    resources: Resources, source: Source, partition: Partition
) -> None:
    async def away(_: Sequence[LedgerEvent]) -> None:
        raise ModelUnavailable("away")

    await append(resources.ledger, partition, [envelope(n) for n in range(5)])
    slow = replace(source, settings=source.settings.model_copy(update={"backoff_seconds": 30.0}))
    recorder = Recorder(away)
    worker = start(slow, recorder)
    await until(lambda: bool(recorder.seen))
    async with asyncio.timeout(5):
        await worker.stop()
    successor = Recorder()
    async with running(source, successor):
        await settled(source, partition)
    assert successor.done == ids(*range(5))


@pytest.mark.parametrize(
    "fields",
    [
        {"e": b"not json"}, {"e": b""}, {"e": b"{}"}, {"e": b"[]"}, {"e": b"null"}, {"e": b'"text"'}, {"e": b"7"},
        {"e": b'{"event_id": "x", "surprise": 1}'}, {"e": b"\xff\xfe"}, {"other": b"field"},
    ],
    ids=repr,
)  # fmt: skip
async def test_an_entry_that_is_no_envelope_is_buried_and_blocks_nothing(
    resources: Resources, source: Source, partition: Partition, fields: dict[str, bytes]
) -> None:
    await append(resources.ledger, partition, [envelope(1)])
    strange: bytes = await resources.ledger_redis.xadd(PartitionKeys(partition).ledger, fields)  # type: ignore[arg-type]
    await append(resources.ledger, partition, [envelope(2)])
    recorder = Recorder()
    async with running(source, recorder):
        await settled(source, partition)
    assert sorted(recorder.done) == ids(1, 2)
    [letter] = await source.dead_letters.list(partition)
    assert (letter.position.stream_id, letter.event_id, letter.deliveries) == (strange.decode(), "", 1)
    assert "not an envelope" in letter.reason


async def test_an_envelope_of_wrong_types_is_buried_and_blocks_nothing(
    resources: Resources, source: Source, partition: Partition
) -> None:
    body = b'{"event_id":["x"],"event_type":1,"session_id":{},"agent_id":null,"occurred_at":"then"}'
    await resources.ledger_redis.xadd(PartitionKeys(partition).ledger, {"e": body})
    await append(resources.ledger, partition, [envelope(1)])

    async def needs_text(events: Sequence[LedgerEvent]) -> None:
        {event.envelope.event_id for event in events}  # a list cannot be in a set

    recorder = Recorder(needs_text)
    async with running(source, recorder):
        await settled(source, partition)
    assert recorder.done == ids(1)
    assert await source.dead_letters.count(partition) == 1


async def test_a_reason_that_no_encoding_can_hold_is_buried_readably(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await append(resources.ledger, partition, [envelope(1)])
    async with running(source, Recorder(fails_on("e1", PermanentError("bad file name: \udcff")))):
        await settled(source, partition)
    [letter] = await source.dead_letters.list(partition)
    assert letter.reason == "PermanentError: bad file name: \\udcff"


async def test_workers_share_the_work_and_nothing_is_handled_by_neither(
    resources: Resources, source: Source, partition: Partition
) -> None:
    async def take_time(_: Sequence[LedgerEvent]) -> None:
        await asyncio.sleep(0.005)

    one, two = Recorder(take_time), Recorder(take_time)
    async with running(source, one, batch=10), running(source, two, batch=10):
        for start_ in range(0, 400, 100):
            await append(resources.ledger, partition, [envelope(n) for n in range(start_, start_ + 100)])
        await settled(source, partition)
    assert one.done
    assert two.done
    assert Counter(one.done + two.done) == Counter(ids(*range(400)))


async def test_a_slow_worker_that_lives_is_not_robbed(
    resources: Resources, source: Source, partition: Partition
) -> None:
    released = asyncio.Event()

    async def wait(_: Sequence[LedgerEvent]) -> None:
        await released.wait()

    slow, other = Recorder(wait), Recorder()
    await append(resources.ledger, partition, [envelope(n) for n in range(5)])
    async with running(source, slow):
        await until(lambda: bool(slow.seen))
        async with running(source, other):
            idle_ms = source.settings.reclaim_idle_seconds * 1000

            async def long_idle() -> bool:
                oldest = (await source.groups.state(partition, STAGE.group)).oldest_pending_ms
                return oldest is not None and oldest > 4 * idle_ms

            await until(long_idle)  # two chances to rob
            assert other.seen == []
            released.set()
            await settled(source, partition)
    assert (slow.done, other.done) == (ids(*range(5)), [])


async def test_a_worker_that_holds_events_too_long_is_relieved_of_them(
    resources: Resources, source: Source, partition: Partition
) -> None:
    async def hang(_: Sequence[LedgerEvent]) -> None:
        await asyncio.Event().wait()

    impatient = replace(source, settings=source.settings.model_copy(update={"stuck_seconds": 0.5}))
    await append(resources.ledger, partition, [envelope(n) for n in range(5)])
    stuck, other = Recorder(hang), Recorder()
    worker = start(source, stuck)
    await until(lambda: bool(stuck.seen))
    async with running(impatient, other):
        await settled(source, partition)
    await worker.die()
    assert other.done == ids(*range(5))


async def test_orphans_behind_what_living_workers_hold_are_found(
    resources: Resources, source: Source, partition: Partition
) -> None:
    async def hang(_: Sequence[LedgerEvent]) -> None:
        await asyncio.Event().wait()

    await append(resources.ledger, partition, [envelope(n) for n in range(600)])
    slow, victim, heir = Recorder(hang), Recorder(hang), Recorder()
    holder = start(source, slow, batch=590)
    await until(lambda: len(slow.seen) == 590)
    dying = start(source, victim)
    await until(lambda: len(victim.seen) == 10)
    await dying.die()
    async with running(source, heir):
        await until(lambda: len(heir.done) == 10)
    await holder.die()
    assert heir.done == ids(*range(590, 600))


async def test_a_graceful_stop_finishes_the_batch_and_leaves_the_group(
    resources: Resources, source: Source, partition: Partition
) -> None:
    inside, released = asyncio.Event(), asyncio.Event()

    async def wait(_: Sequence[LedgerEvent]) -> None:
        inside.set()
        await released.wait()

    await append(resources.ledger, partition, [envelope(n) for n in range(5)])
    recorder = Recorder(wait)
    worker = start(source, recorder)
    await inside.wait()
    worker.stopping.set()
    await append(resources.ledger, partition, [envelope(9)])  # arrives during the stop: left for the next worker
    released.set()
    await worker.stop()
    assert recorder.done == ids(*range(5))
    state = await source.groups.state(partition, STAGE.group)
    assert (state.pending, state.lag, state.consumers) == (0, 1, 0)
    assert [key async for key in resources.ledger_redis.scan_iter("cg:worker:*")] == []


async def test_an_idle_worker_stops_at_once(source: Source, partition: Partition) -> None:
    sleepy = replace(source, settings=source.settings.model_copy(update={"poll_seconds": 60.0}))
    worker = start(sleepy, Recorder())
    await until(lambda: exists(source.groups, partition))
    async with asyncio.timeout(3):
        await worker.stop()


async def exists(groups: Groups, partition: Partition) -> bool:
    return (await groups.state(partition, STAGE.group)).last_delivered is not None


async def test_a_stop_before_any_tenant_or_group_exists_is_graceful(source: Source, resources: Resources) -> None:
    for _ in range(2):
        worker = start(source, Recorder())
        await until(lambda: alive(resources))
        await worker.stop()
        await resources.tenants.ensure("acme", 4)


async def alive(resources: Resources) -> bool:
    return bool([key async for key in resources.ledger_redis.scan_iter("cg:worker:*")])


async def test_a_consumer_whose_group_is_gone_leaves_without_a_complaint(
    resources: Resources, source: Source, partition: Partition
) -> None:
    worker = start(source, Recorder())
    await until(lambda: exists(source.groups, partition))
    worker.stopping.set()
    await resources.ledger_redis.delete(PartitionKeys(partition).ledger)
    await worker.stop()


async def test_events_waiting_for_a_retry_are_left_to_others_by_a_stop(
    resources: Resources, source: Source, partition: Partition
) -> None:
    slow = replace(source, settings=source.settings.model_copy(update={"backoff_seconds": 30.0}))
    await append(resources.ledger, partition, [envelope(n) for n in range(3)])
    first = Recorder(fails_on("e1", RuntimeError("later")))
    worker = start(slow, first)
    await until(lambda: sorted(first.done) == ids(0, 2))
    await worker.stop()
    heir = Recorder()
    async with running(source, heir):
        await settled(source, partition)
    assert heir.done == ids(1)
    assert await source.dead_letters.count(partition) == 0


async def test_a_tenant_made_later_is_discovered(resources: Resources, source: Source, partition: Partition) -> None:
    recorder = Recorder()
    async with running(source, recorder):
        await append(resources.ledger, partition, [envelope(1)])
        await settled(source, partition)
        later = await only_partition(resources.tenants, "later")
        await append(resources.ledger, later, [envelope(2)])
        await settled(source, later)
    assert [name for name, _ in recorder.places] == [partition, later]


async def test_an_event_deleted_while_pending_does_not_wedge_the_group(
    resources: Resources, source: Source, partition: Partition
) -> None:
    async def hang(_: Sequence[LedgerEvent]) -> None:
        await asyncio.Event().wait()

    positions = await append(resources.ledger, partition, [envelope(n) for n in range(5)])
    stuck = Recorder(hang)
    victim = start(source, stuck)
    await until(lambda: bool(stuck.seen))
    await victim.die()
    await resources.ledger_redis.xdel(PartitionKeys(partition).ledger, positions[2].stream_id)
    heir = Recorder()
    async with running(source, heir):
        await until(lambda: nothing_pending(source, partition))
    assert heir.done == ids(0, 1, 3, 4)


async def test_an_event_deleted_while_it_waits_for_a_retry_does_not_wedge_the_group(
    resources: Resources, source: Source, partition: Partition
) -> None:
    positions = await append(resources.ledger, partition, [envelope(n) for n in range(3)])
    recorder = Recorder(fails_on("e1", RuntimeError("no")))
    async with running(source, recorder):
        await until(lambda: len(recorder.done) == 2)
        await resources.ledger_redis.xdel(PartitionKeys(partition).ledger, positions[1].stream_id)
        await until(lambda: nothing_pending(source, partition))
        await append(resources.ledger, partition, [envelope(4)])
        await until(lambda: "e4" in recorder.done)


async def nothing_pending(source: Source, partition: Partition) -> bool:
    return (await source.groups.state(partition, STAGE.group)).pending == 0


async def test_failures_of_one_tenant_are_not_counted_for_another_at_the_same_position(
    resources: Resources, source: Source
) -> None:
    """Two tenants' streams may hold the same stream id."""
    one, two = [await only_partition(resources.tenants, name) for name in ("one", "two")]
    for partition in (one, two):
        entry = {"e": codec.encode(envelope(1))}
        await resources.ledger_redis.xadd(PartitionKeys(partition).ledger, entry, id="7-1")  # type: ignore[arg-type]
    tries: Counter[Partition] = Counter()

    class Failing:
        async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
            tries[partition] += 1
            raise RuntimeError("no")

    async with running(source, Failing()):
        await settled(source, one)
        await settled(source, two)
    assert tries == {one: source.settings.max_deliveries, two: source.settings.max_deliveries}


async def test_a_lost_subscription_is_made_again(
    resources: Resources, source: Source, partition: Partition
) -> None:
    sleepy = replace(source, settings=source.settings.model_copy(update={"poll_seconds": 20.0}))
    recorder = Recorder()
    async with running(sleepy, recorder):
        await until(lambda: exists(source.groups, partition))
        await until(lambda: subscribers(resources, 1))
        await resources.ledger_redis.client_kill_filter(_type="pubsub")
        await until(lambda: subscribers(resources, 1))
        await append(resources.ledger, partition, [envelope(1)])
        await until(lambda: recorder.done == ids(1), seconds=10)


async def subscribers(resources: Resources, count: int) -> bool:
    [(_, found)] = await resources.ledger_redis.pubsub_numsub(WAKE_CHANNEL)
    return int(found) == count
