"""What the delivery runtime promises when workers come, go, hang and die, and when Redis does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.delivery.source import Source
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.errors import StoreUnavailable
from context_graph.local.data_folder import DataFolder
from context_graph.local.process import Child
from context_graph.local.redis_server import prepared_redis, until_answering
from context_graph.settings import Settings
from context_graph.store import codec
from context_graph.store.keys import WAKE_CHANNEL, PartitionKeys
from tests.ledger_events import append, appendable, envelope, only_partition
from tests.stages import STAGE, Recorder, exists, fails_on, ids, running, settled, start
from tests.waiting import until


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


async def test_a_lost_subscription_is_made_again(resources: Resources, source: Source, partition: Partition) -> None:
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


@pytest.mark.parametrize("end", ["gracefully", "killed"])
async def test_a_restart_of_redis_in_the_middle_loses_nothing(settings: Settings, tmp_path: Path, end: str) -> None:
    folder = DataFolder.at(tmp_path / "restarted")
    async with prepared_redis(folder, durability="durable") as redis:
        child = Child.start(redis.program)
        try:
            await until_answering(redis, child)
            own = settings.model_copy(update={"redis_url": SecretStr(redis.url)})
            async with open_resources(own) as resources:
                partition = await only_partition(resources.tenants)
                one, two = Recorder(), Recorder()
                async with running(resources.source, one, batch=5), running(resources.source, two, batch=7):
                    writing = asyncio.create_task(append_through_outages(resources, partition, 300))
                    await until(lambda: len(one.done + two.done) > 50)
                    if end == "killed":
                        child.kill()
                    else:
                        await child.stop(10)
                    handled = len(one.done + two.done)
                    child = Child.start(redis.program)
                    await until_answering(redis, child)
                    await writing
                    await settled(resources.source, partition)
                assert handled < 300
                assert set(one.done + two.done) == set(ids(*range(300)))
                assert await resources.ledger.length(partition) == 300
                assert await resources.dead_letters.count(partition) == 0
        finally:
            await child.stop(10)


async def append_through_outages(resources: Resources, partition: Partition, count: int) -> None:
    """One event after the other, each repeated until the ledger has answered."""
    for number in range(count):
        while True:
            try:
                await resources.ledger.append(partition, [appendable(envelope(number))])
                break
            except StoreUnavailable:
                await asyncio.sleep(0.05)
