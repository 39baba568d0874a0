"""A stream trimmed behind a sleeping group: what the archive has is delivered, what is nowhere is said."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from context_graph.bootstrap import Resources, open_resources
from context_graph.delivery.source import Source
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.stages import Stage
from context_graph.settings import ArchiveSettings, Settings
from context_graph.store.archive_writing import Archiver
from context_graph.store.keys import PartitionKeys
from tests.archives import AT_ONCE
from tests.ledger_events import append, envelope, only_partition
from tests.stages import STAGE, Recorder, exists, ids, running, settled, start
from tests.waiting import until


async def trim(resources: Resources, partition: Partition, before: Position) -> None:
    """By hand, whoever has read what."""
    await resources.ledger_redis.xtrim(PartitionKeys(partition).ledger, minid=before.stream_id, approximate=False)


async def archived(resources: Resources, partition: Partition) -> None:
    """Everything there is goes to the archive; nothing is trimmed, because the stages have read nothing."""
    tenants = [tenant for tenant in await resources.tenants.all() if partition in tenant.partitions]
    assert resources.archive is not None
    archiver = Archiver(resources.ledger_redis, resources.archive, resources.leases, AT_ONCE)
    await archiver.run(tenants[0], partition, "test", asyncio.Event(), flush=True)


async def asleep(source: Source, partition: Partition) -> None:
    """The group has begun, and its worker has gone."""
    async with running(source, Recorder()):
        await until(lambda: exists(source.groups, partition))
        await settled(source, partition)


@pytest.fixture
def archive_settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"archive": ArchiveSettings(url=(tmp_path / "archive").as_uri())})


async def test_what_is_nowhere_is_a_dead_letter_that_counts_the_events(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await append(resources.ledger, partition, [envelope(n) for n in range(3)])
    await asleep(source, partition)
    positions = await append(resources.ledger, partition, [envelope(n) for n in range(3, 20)])
    await trim(resources, partition, positions[10])
    recorder = Recorder()
    async with running(source, recorder):
        await until(lambda: lost(source, partition, 10))
        await settled(source, partition)
        state = await source.groups.state(partition, STAGE.group)
        assert (state.gaps, state.unfinished) == ((), None)
    assert recorder.done == ids(*range(13, 20))
    [letter] = await source.dead_letters.listed(partition)
    assert (letter.lost, letter.event_id) == (10, "")
    assert letter.reason.startswith("10 events behind")
    assert letter.after is not None
    assert letter.after < positions[0]
    assert positions[9] <= letter.position < positions[10]


async def lost(source: Source, partition: Partition, count: int) -> bool:
    return (await source.dead_letters.counts(partition)).lost == ({STAGE.group: count} if count else {})


async def test_what_the_archive_has_is_delivered_and_no_event_twice(archive_settings: Settings) -> None:
    async with open_resources(archive_settings) as resources:
        source, partition = resources.source, await only_partition(resources.tenants)
        await append(resources.ledger, partition, [envelope(n) for n in range(3)])
        await asleep(source, partition)
        positions = await append(resources.ledger, partition, [envelope(n) for n in range(3, 40)])
        await archived(resources, partition)
        await trim(resources, partition, positions[30])
        recorder = Recorder()
        async with running(source, recorder, batch=8):
            await until(lambda: len(recorder.done) == 37)
            await settled(source, partition)
        assert sorted(recorder.done) == sorted(ids(*range(3, 40)))
        assert await source.dead_letters.count(partition) == 0


async def test_a_group_that_begins_after_the_trim_begins_in_the_archive(archive_settings: Settings) -> None:
    async with open_resources(archive_settings) as resources:
        source, partition = resources.source, await only_partition(resources.tenants)
        positions = await append(resources.ledger, partition, [envelope(n) for n in range(30)])
        await archived(resources, partition)
        await resources.ledger_redis.xtrim(PartitionKeys(partition).ledger, maxlen=0, approximate=False)
        recorder = Recorder()
        async with running(source, recorder):
            await until(lambda: len(recorder.done) == 30)
            assert sorted(position for _, position in recorder.places) == positions
            await append(resources.ledger, partition, [envelope(31)])
            await until(lambda: "e31" in recorder.done)
        assert await source.dead_letters.count(partition) == 0


async def test_the_archive_coming_back_lets_lost_events_be_redriven(
    settings: Settings, archive_settings: Settings
) -> None:
    async with open_resources(archive_settings) as resources:
        partition = await only_partition(resources.tenants)
        await asleep(resources.source, partition)
        positions = await append(resources.ledger, partition, [envelope(n) for n in range(20)])
        await archived(resources, partition)
        await trim(resources, partition, positions[15])
    async with open_resources(settings) as without_archive, running(without_archive.source, Recorder()):
        await until(lambda: lost(without_archive.source, partition, 15))
    async with open_resources(archive_settings) as resources:
        source, recorder = resources.source, Recorder()
        async with running(source, recorder):
            await source.dead_letters.redrive(partition, await source.dead_letters.listed(partition))
            await until(lambda: lost(source, partition, 0))
            await until(lambda: len(recorder.done) == 15)
        assert sorted(recorder.done) == sorted(ids(*range(15)))
        assert await source.dead_letters.count(partition) == 0


async def test_what_a_dead_worker_held_and_was_trimmed_meanwhile_is_found_or_told(archive_settings: Settings) -> None:
    """Redis would drop such entries from the pending list without a word."""

    async def hang(_: Sequence[LedgerEvent]) -> None:
        await asyncio.Event().wait()

    async with open_resources(archive_settings) as resources:
        source, partition = resources.source, await only_partition(resources.tenants)
        await append(resources.ledger, partition, [envelope(n) for n in range(10)])
        await archived(resources, partition)
        unarchived = await append(resources.ledger, partition, [envelope(n) for n in range(10, 14)])
        stuck = Recorder(hang)
        victim = start(source, stuck)
        await until(lambda: len(stuck.seen) == 14)
        await victim.die()
        await trim(resources, partition, unarchived[2])
        heir = Recorder()
        async with running(source, heir):
            await until(lambda: lost(source, partition, 2))
            await until(lambda: len(heir.done) == 12)
            await settled(source, partition)
        assert sorted(heir.done) == sorted(ids(*range(10), 12, 13))
        assert [x.position for x in await source.dead_letters.listed(partition)] == unarchived[:2]


async def test_nothing_is_missed_where_the_archiver_trimmed_what_the_group_had_read(
    resources: Resources, source: Source, partition: Partition
) -> None:
    positions = await append(resources.ledger, partition, [envelope(n) for n in range(10)])
    await asleep(source, partition)
    await trim(resources, partition, Position(0, positions[-1].ms + 1, 0))
    await append(resources.ledger, partition, [envelope(n) for n in range(10, 13)])
    recorder = Recorder()
    async with running(source, recorder):
        await settled(source, partition)
    assert recorder.done == ids(10, 11, 12)
    assert await source.dead_letters.count(partition) == 0
    assert (await source.groups.state(partition, STAGE.group)).gaps == ()


async def test_a_gap_is_seen_in_the_state_until_it_is_closed(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await asleep(source, partition)
    positions = await append(resources.ledger, partition, [envelope(n) for n in range(9)])
    await trim(resources, partition, positions[5])
    await source.groups.read([partition], STAGE.group, "somebody", 100)  # and it ends before it has looked
    state = await source.groups.state(partition, STAGE.group)
    assert state.lag == 5
    assert "5 events behind" in state.gaps[0]
    assert not state.has_passed(positions[-1])


async def test_a_stage_that_needs_order_gets_the_archived_before_what_came_later(archive_settings: Settings) -> None:
    ordered = Stage("ordered", "none", "order", ordered=True)
    async with open_resources(archive_settings) as resources:
        source, partition = resources.source, await only_partition(resources.tenants)
        positions = await append(resources.ledger, partition, [envelope(n, session_id="s") for n in range(12)])
        await archived(resources, partition)
        await trim(resources, partition, positions[8])
        recorder = Recorder()
        async with running(source, recorder, stage=ordered):
            await until(lambda: len(recorder.done) == 12)
        assert recorder.done == ids(*range(12))
