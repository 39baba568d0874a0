"""Events that end their worker, and dead letters: found by their count, kept, re-driven, never lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from context_graph.bootstrap import Resources
from context_graph.delivery.source import Source
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.errors import ModelUnavailable
from context_graph.store.keys import PartitionKeys
from context_graph.store.worker_reports import WorkerReport
from tests.ledger_events import append, envelope
from tests.stages import STAGE, Recorder, fails_on, ids, running, settled, start
from tests.waiting import until

ANYWHERE = Position(0, 1_700_000_000_000, 0)


class Killer:
    """A stage whose process dies of one event, as of a segmentation fault: no exception, no acknowledgement."""

    def __init__(self, event_id: str) -> None:
        self.event_id = event_id
        self.done: list[str] = []
        self.company: list[int] = []
        """Events in the batches that killed."""
        self.died = asyncio.Event()

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        names = [event.envelope.event_id for event in events]
        if self.event_id in names:
            self.company.append(len(names))
            self.died.set()
            await asyncio.Event().wait()
        self.done += names


async def die_of(source: Source, killer: Killer, done: asyncio.Event) -> int:
    """Workers one after the other, each taken away when the event has killed it; how many died."""
    deaths = 0
    while not done.is_set():
        killer.died.clear()
        worker = start(source, killer)
        dying = asyncio.create_task(killer.died.wait())
        surviving = asyncio.create_task(done.wait())
        await asyncio.wait({dying, surviving}, return_when=asyncio.FIRST_COMPLETED)
        for task in (dying, surviving):
            task.cancel()
        if done.is_set():
            await worker.stop()
        else:
            deaths += 1
            await worker.die()
    return deaths


async def test_an_event_that_kills_its_worker_is_buried_alone_and_the_others_go_on(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await append(resources.ledger, partition, [envelope(n) for n in range(60)])
    killer, done = Killer("e7"), asyncio.Event()
    dying = asyncio.create_task(die_of(source, killer, done))
    await until(lambda: buried(source, partition, 1), seconds=40)
    await settled(source, partition)
    done.set()
    assert await dying == source.settings.max_deliveries
    assert killer.company[0] == 60
    assert killer.company[2:] == [1] * (source.settings.max_deliveries - 2), "a suspect is alone"
    assert sorted(set(killer.done)) == sorted(ids(*range(7), *range(8, 60)))
    [letter] = await source.dead_letters.listed(partition)
    assert (letter.event_id, letter.session_id, letter.event_type) == ("e7", "s1", "user.message")
    assert letter.reason.startswith(f"WorkerDied: killed its worker {source.settings.max_deliveries} times")
    assert letter.deliveries == source.settings.max_deliveries


async def test_restarts_during_an_outage_accuse_nobody(
    resources: Resources, source: Source, partition: Partition
) -> None:
    async def away(_: Sequence[LedgerEvent]) -> None:
        raise ModelUnavailable("away")

    await append(resources.ledger, partition, [envelope(n) for n in range(3)])
    for _ in range(source.settings.max_deliveries + 2):
        tried = Recorder(away)
        worker = start(source, tried)
        await until(lambda tried=tried: len(tried.batches) >= 2)  # type: ignore[misc]
        await worker.stop()
    heir = Recorder()
    async with running(source, heir):
        await settled(source, partition)
    assert heir.done == ids(0, 1, 2)
    assert await source.dead_letters.count(partition) == 0


async def buried(source: Source, partition: Partition, count: int) -> bool:
    return await source.dead_letters.count(partition) == count


async def test_a_redriven_event_goes_through_its_stage_again_and_its_letter_goes(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await append(resources.ledger, partition, [envelope(n) for n in range(5)])
    async with running(source, Recorder(fails_on("e2", RuntimeError("not yet")))):
        await until(lambda: buried(source, partition, 1))
    letters = await source.dead_letters.listed(partition)
    mended = Recorder()
    async with running(source, mended):
        assert await source.dead_letters.redrive(partition, letters) == 1
        await until(lambda: buried(source, partition, 0))
    assert mended.done == ids(2)
    assert (await source.dead_letters.counts(partition)).letters == {}
    assert await leftovers(resources, partition) == []


async def leftovers(resources: Resources, partition: Partition) -> list[bytes]:
    """Keys of delivery that hold something although everything is done."""
    names = [b"dead:", b"held:", b"again:", b"tries:", b"parked:", b"gaps:"]
    keys = [key async for key in resources.ledger_redis.scan_iter(f"cg:{partition.tag}:*")]
    return [key for key in keys if any(name in key for name in names)]


async def test_a_redriven_event_that_fails_again_is_buried_with_a_higher_count(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await append(resources.ledger, partition, [envelope(n) for n in range(3)])
    async with running(source, Recorder(fails_on("e1", RuntimeError("no")))):
        await until(lambda: buried(source, partition, 1))
        [first] = await source.dead_letters.listed(partition)
        await source.dead_letters.redrive(partition, [first])

        async def again() -> bool:
            [letter] = await source.dead_letters.listed(partition)
            return letter.redriven == 1

        await until(again)
    [second] = await source.dead_letters.listed(partition)
    assert second.deliveries == 2 * source.settings.max_deliveries
    assert (second.event_id, second.redriving) == ("e1", False)
    assert second.id != first.id
    assert (await source.dead_letters.counts(partition)).letters == {STAGE.group: 1}


async def test_a_worker_that_dies_with_a_redriven_event_loses_nothing(
    resources: Resources, source: Source, partition: Partition
) -> None:
    impatient = replace(source, settings=source.settings.model_copy(update={"again_seconds": 0.3}))
    await append(resources.ledger, partition, [envelope(1)])
    async with running(source, Recorder(fails_on("e1", RuntimeError("no")))):
        await until(lambda: buried(source, partition, 1))
    killer = Killer("e1")
    victim = start(impatient, killer)
    await source.dead_letters.redrive(partition, await source.dead_letters.listed(partition))
    await killer.died.wait()
    await victim.die()
    [letter] = await source.dead_letters.listed(partition)
    assert letter.redriving
    heir = Recorder()
    async with running(impatient, heir):
        await until(lambda: buried(source, partition, 0))
    assert heir.done == ids(1)


async def test_a_redriven_event_that_kills_its_workers_is_buried_again(
    resources: Resources, source: Source, partition: Partition
) -> None:
    impatient = replace(source, settings=source.settings.model_copy(update={"again_seconds": 0.1}))
    await append(resources.ledger, partition, [envelope(1)])
    async with running(source, Recorder(fails_on("e1", RuntimeError("no")))):
        await until(lambda: buried(source, partition, 1))
    await source.dead_letters.redrive(partition, await source.dead_letters.listed(partition))
    killer, done = Killer("e1"), asyncio.Event()
    dying = asyncio.create_task(die_of(impatient, killer, done))

    async def accused() -> bool:
        return "killed its worker" in (await source.dead_letters.listed(partition))[0].reason

    await until(accused)
    done.set()
    assert await dying == source.settings.max_deliveries


async def test_a_letter_discarded_while_its_event_fails_again_does_not_come_back(
    resources: Resources, source: Source, partition: Partition
) -> None:
    inside, released = asyncio.Event(), asyncio.Event()

    async def fail_late(_: Sequence[LedgerEvent]) -> None:
        inside.set()
        await released.wait()
        raise RuntimeError("no")

    stubborn = replace(source, settings=source.settings.model_copy(update={"max_deliveries": 1}))
    await append(resources.ledger, partition, [envelope(1)])
    async with running(stubborn, Recorder(fails_on("e1", RuntimeError("no")))):
        await until(lambda: buried(source, partition, 1))
    letters = await source.dead_letters.listed(partition)
    async with running(stubborn, Recorder(fail_late)):
        await source.dead_letters.redrive(partition, letters)
        await inside.wait()
        assert await source.dead_letters.discard(partition, letters) == 1
        released.set()
        await append(resources.ledger, partition, [envelope(2)])
        await until(lambda: buried(source, partition, 1))  # of e2, which fails as well: the loop has gone on
    assert [letter.event_id for letter in await source.dead_letters.listed(partition)] == ["e2"]


async def test_letters_are_listed_by_group_and_reason_page_by_page(source: Source, partition: Partition) -> None:
    for number in range(7):
        await source.dead_letters.bury(
            partition, "one" if number % 2 else "two", ANYWHERE._replace(seq=number), event_id=f"e{number}",
            reason=f"KeyError: {number}" if number < 4 else "Timeout", traceback="", deliveries=1,
        )  # fmt: skip
    first = await source.dead_letters.listed(partition, group="two", limit=2)
    rest = await source.dead_letters.listed(partition, group="two", limit=5, after=first[-1].id)
    assert [letter.event_id for letter in first + rest] == ["e0", "e2", "e4", "e6"]
    timeouts = await source.dead_letters.listed(partition, reason="timeOUT")
    assert [letter.event_id for letter in timeouts] == ["e4", "e5", "e6"]
    assert (await source.dead_letters.counts(partition)).letters == {"one": 3, "two": 4}


async def test_a_letter_buried_twice_is_one(source: Source, partition: Partition) -> None:
    """Two workers may find the same killer."""
    for _ in range(2):
        await source.dead_letters.bury(
            partition, "one", ANYWHERE, event_id="e", reason="r", traceback="", deliveries=1, session_id="s", lost=3
        )
    assert await source.dead_letters.count(partition) == 1
    counts = await source.dead_letters.counts(partition)
    assert (counts.letters, counts.lost) == ({"one": 1}, {"one": 3})
    await source.dead_letters.discard(partition, await source.dead_letters.listed(partition))
    assert (await source.dead_letters.counts(partition)).lost == {}


async def test_dead_consumers_leave_the_group_when_they_hold_nothing(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await append(resources.ledger, partition, [envelope(n) for n in range(3)])
    idle, holding = Recorder(), Killer("e9")
    victim = start(source, idle)
    await settled(source, partition)
    await victim.die()
    key = PartitionKeys(partition).ledger
    await append(resources.ledger, partition, [envelope(9)])
    stuck = start(source, holding)
    await holding.died.wait()
    assert (await source.groups.state(partition, STAGE.group)).consumers == 2
    await until(lambda: dropped(source, partition))
    assert (await source.groups.state(partition, STAGE.group)).pending == 1, "what the living hold is untouched"
    await stuck.die()
    assert await source.groups.drop_dead(partition, STAGE.group, 0) == 0
    [left] = await resources.ledger_redis.xinfo_consumers(key, STAGE.group)
    assert left["pending"] == 1, "the dead one that holds something stays until that is taken over"


async def dropped(source: Source, partition: Partition) -> bool:
    return await source.groups.drop_dead(partition, STAGE.group, 0) == 1


async def test_a_stop_ends_at_its_deadline_and_leaves_the_batch_to_others(
    resources: Resources, source: Source, partition: Partition
) -> None:
    hurried = replace(source, settings=source.settings.model_copy(update={"stop_seconds": 0.2}))
    await append(resources.ledger, partition, [envelope(n) for n in range(3)])
    hanging = Killer("e1")
    worker = start(hurried, hanging)
    await hanging.died.wait()
    async with asyncio.timeout(5):
        await worker.stop()
    heir = Recorder()
    async with running(source, heir):
        await settled(source, partition)
    assert heir.done == ids(0, 1, 2)


async def test_a_worker_reports_what_it_has_done_with_its_heartbeat(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await append(resources.ledger, partition, [envelope(n) for n in range(4)])
    async with running(source, Recorder(fails_on("e2", RuntimeError("no")))):
        await until(lambda: buried(source, partition, 1))
        most = source.settings.max_deliveries

        async def told() -> bool:
            [worker] = await source.reports.known()
            report = worker.report or WorkerReport("", 0)
            counts = (report.stage, report.events, report.retries, report.dead_letters)
            return counts == (STAGE.group, 3, most - 1, 1) and report.busy_seconds > 0

        await until(told)
    assert await source.reports.known() == [], "whoever says goodbye is not missed"
