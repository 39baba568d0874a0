"""The archive on a real Redis: events move out of the stream and nobody who reads can tell."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.event import Envelope
from context_graph.domain.position import Position
from context_graph.errors import ConfigurationError
from context_graph.store.archive import Archive
from context_graph.store.archive_files import open_files
from context_graph.store.archive_restoring import Restore
from context_graph.store.archive_segments import RawEntry
from context_graph.store.keys import PartitionKeys
from context_graph.store.ledger import Ledger, decode_entry
from tests.archives import Archiving
from tests.ledger_events import append, appendable, envelope


@pytest.fixture
async def archiving(resources: Resources, tmp_path: Path) -> Archiving:
    tenant = await resources.tenants.ensure("acme", 1)
    return Archiving(resources.ledger_redis, open_files(f"file://{tmp_path}/archive"), tenant)


def some(start: int, count: int, chance: random.Random) -> list[Envelope]:
    """Envelopes of three sessions with payloads of any length."""
    return [
        envelope(n, session_id=f"s{chance.randrange(3)}", payload={"text": "ä" * chance.randrange(2_000)})
        for n in range(start, start + count)
    ]


async def raw_of(archiving: Archiving) -> list[RawEntry]:
    return [entry async for batch in archiving.ledger.replay(archiving.partition, None) for entry in batch]


def restore_of(archiving: Archiving, resources: Resources) -> Restore:
    return Restore(resources.ledger_redis, archiving.archive, resources.tenants, resources.vault)


@pytest.mark.parametrize("seed", range(6))
async def test_reads_over_archive_and_stream_equal_the_reads_before_whenever_it_was_archived_and_trimmed(
    archiving: Archiving, resources: Resources, seed: int
) -> None:
    chance = random.Random(seed)
    partition = archiving.partition
    known: list[Envelope] = []
    positions: list[Position] = []
    raw: list[RawEntry] = []
    for _ in range(12):
        batch = some(len(known), chance.randrange(1, 12), chance)
        positions += await append(archiving.ledger, partition, batch)
        known += batch
        raw = await raw_of(archiving)  # everything up to here, before anything of it moves
        if chance.random() < 0.6:
            await archiving.finish(resources.groups, but=chance.choice([(), (), ("projection",)]))
        if chance.random() < 0.6:
            changes = {"segment_events": chance.randrange(1, 15), "keep_events": chance.randrange(1, 20)}
            await archiving.run(flush=chance.random() < 0.7, **changes)
        if chance.random() < 0.3:
            archiving.reopen()
        assert await raw_of(archiving) == raw
        await _reads_equal(archiving, known, positions, chance)
    archiving.reopen()
    await archiving.finish(resources.groups)
    await archiving.run()
    assert await raw_of(archiving) == raw
    await _reads_equal(archiving, known, positions, chance)
    assert (await archiving.verify()).problems == ()


async def _reads_equal(
    archiving: Archiving, known: list[Envelope], positions: list[Position], chance: random.Random
) -> None:
    ledger, partition = archiving.ledger, archiving.partition
    assert [found.envelope for found in await archiving.everything()] == known
    start, limit = chance.randrange(len(known)), chance.randrange(1, len(known) + 1)
    after = await ledger.after(partition, positions[start], limit)
    assert [found.envelope for found in after] == known[start + 1 : start + 1 + limit]
    assert [found.position for found in after] == positions[start + 1 : start + 1 + limit]
    before = await ledger.before(partition, positions[start], limit)
    assert [found.position for found in before] == positions[:start][::-1][:limit]
    asked = [positions[start], Position(0, 5, 5), positions[-1], positions[0]]
    found = await ledger.at(partition, [position.stream_id for position in asked])
    assert [event.position for event in found] == [positions[start], positions[-1], positions[0]]
    one = await ledger.get(partition, known[start].event_id)
    assert one is not None
    assert (one.envelope, one.position) == (known[start], positions[start])
    mine = [p for e, p in zip(known, positions, strict=True) if e.session_id == "s1" and p > positions[start]]
    assert [e.position for e in await ledger.of_session(partition, "s1", positions[start], 1_000)] == mine
    rest = [entry async for batch in ledger.replay(partition, positions[start]) for entry in batch]
    assert [decode_entry(partition, *entry).position for entry in rest] == positions[start + 1 :]
    assert await ledger.first_after(partition, None) == positions[0]
    assert await ledger.last(partition) == positions[-1]


async def test_an_archived_event_is_still_a_duplicate_and_its_id_still_refuses_other_content(
    archiving: Archiving, resources: Resources
) -> None:
    positions = await append(archiving.ledger, archiving.partition, [envelope(n) for n in range(20)])
    await archiving.finish(resources.groups)
    done = await archiving.run()
    assert (done.segments, done.events, done.trimmed) == (3, 20, 14)  # the newest event stays, and so its segment
    assert await archiving.hot() == [position.stream_id for position in positions[14:]]
    again = await archiving.ledger.append(archiving.partition, [appendable(envelope(3))])
    assert [(answer.status, answer.position) for answer in again] == [("duplicate", positions[3])]
    other = await archiving.ledger.append(archiving.partition, [appendable(envelope(3, payload="x"))])
    assert [answer.status for answer in other] == ["conflict"]
    assert (await archiving.run()).words == "0 events archived in 0 segments, 0 trimmed"


async def test_nothing_is_trimmed_ahead_of_the_slowest_group_or_of_one_that_never_started(
    archiving: Archiving, resources: Resources
) -> None:
    positions = await append(archiving.ledger, archiving.partition, [envelope(n) for n in range(20)])
    done = await archiving.run()
    assert (done.events, done.trimmed) == (20, 0)
    assert "has not started" in done.words
    await archiving.finish(resources.groups, but=("enrichment",))
    done = await archiving.run()
    assert done.trimmed == 0
    assert f"enrichment has not finished {positions[0].stream_id}" in done.words
    await resources.groups.acknowledge(archiving.partition, "enrichment", positions[:13])
    assert (await archiving.run()).trimmed == 7
    await resources.groups.acknowledge(archiving.partition, "enrichment", positions[13:])
    await resources.groups.ensure(archiving.partition, "auditors")  # a group that no stage has
    done = await archiving.run()
    assert done.trimmed == 0
    assert "auditors has read up to 0-0" in done.words
    await resources.groups.read([archiving.partition], "auditors", "one", 100)
    await resources.groups.acknowledge(archiving.partition, "auditors", positions)
    assert (await archiving.run()).trimmed == 7


async def test_the_lag_of_the_groups_is_right_after_a_trim(archiving: Archiving, resources: Resources) -> None:
    await append(archiving.ledger, archiving.partition, [envelope(n) for n in range(20)])
    await archiving.finish(resources.groups)
    await archiving.run()
    await append(archiving.ledger, archiving.partition, [envelope(n) for n in range(20, 25)])
    state = await resources.groups.state(archiving.partition, "projection")
    assert (state.lag, state.pending) == (5, 0)
    await archiving.finish(resources.groups)
    state = await resources.groups.state(archiving.partition, "projection")
    assert (state.lag, state.pending) == (0, 0)


async def test_what_retention_keeps_stays_in_redis(archiving: Archiving, resources: Resources) -> None:
    await append(archiving.ledger, archiving.partition, [envelope(n) for n in range(21)])
    await archiving.finish(resources.groups)
    assert (await archiving.run(keep_ms=3_600_000)).trimmed == 0
    assert (await archiving.run(keep_events=10)).trimmed == 7
    assert len(await archiving.hot()) == 14


async def test_events_wait_for_a_full_segment_until_they_are_old_and_for_the_disk_until_they_are_settled(
    archiving: Archiving,
) -> None:
    await append(archiving.ledger, archiving.partition, [envelope(n) for n in range(10)])
    assert (await archiving.run(settle_ms=3_600_000)).events == 0
    assert (await archiving.run(flush=False, segment_age_ms=3_600_000)).events == 7
    assert (await archiving.run(flush=False, segment_age_ms=0)).events == 3


async def test_a_segment_ends_at_its_size_in_bytes(archiving: Archiving) -> None:
    big = [envelope(n, payload={"text": "x" * 10_000}) for n in range(6)]
    await append(archiving.ledger, archiving.partition, big)
    done = await archiving.run(segment_bytes=20_000)
    assert (done.segments, done.events) == (3, 6)


async def test_entries_that_are_no_envelopes_and_fields_of_any_bytes_are_archived_exactly(
    archiving: Archiving, resources: Resources
) -> None:
    ledger = PartitionKeys(archiving.partition).ledger
    odd: list[dict[bytes, bytes]] = [
        {b"e": b"not json"}, {b"e": b""}, {b"x": bytes(range(256)), b"": b"\0"}, {b"e": b'{"event_id":7}'},
    ]  # fmt: skip
    for fields in odd:
        await resources.ledger_redis.xadd(ledger, fields)  # type: ignore[arg-type]
    await append(archiving.ledger, archiving.partition, [envelope(1)])
    before = await raw_of(archiving)
    await archiving.finish(resources.groups)
    assert (await archiving.run(segment_events=4)).trimmed == 4
    assert [fields for _, fields in await raw_of(archiving)][:4] == odd
    assert await raw_of(archiving) == before
    await resources.ledger_redis.flushall()
    await restore_of(archiving, resources).run(archiving.partition)
    assert await raw_of(archiving) == before


async def test_a_restore_into_an_empty_redis_gives_equal_reads_dedup_included_and_may_be_interrupted_and_repeated(
    archiving: Archiving, resources: Resources
) -> None:
    chance = random.Random(1)
    known = some(0, 60, chance)
    positions = await append(archiving.ledger, archiving.partition, known)
    await archiving.finish(resources.groups)
    await archiving.run(keep_events=20)
    raw = await raw_of(archiving)
    ids = await resources.ledger_redis.hgetall(PartitionKeys(archiving.partition).ids)
    await resources.ledger_redis.flushall()
    archiving.reopen()
    restore = restore_of(archiving, resources)
    await restore._put(archiving.partition, await _first_records(archiving, 11))  # as far as an earlier try came
    done = await restore.run(archiving.partition)
    assert (done.added, done.present) == (49, 11)
    assert await raw_of(archiving) == raw
    await _reads_equal(archiving, known, positions, chance)
    assert await resources.ledger_redis.hgetall(PartitionKeys(archiving.partition).ids) == ids
    again = await archiving.ledger.append(archiving.partition, [appendable(known[3])])
    assert [(answer.status, answer.position) for answer in again] == [("duplicate", positions[3])]
    repeated = await restore.run(archiving.partition)
    assert (repeated.added, repeated.present) == (0, 60)
    assert (await archiving.verify()).problems == ()
    await append(archiving.ledger, archiving.partition, [envelope(1000)])
    await archiving.finish(resources.groups)
    done_again = await archiving.run()
    assert (done_again.events, done_again.trimmed) == (1, 60)


async def _first_records(archiving: Archiving, count: int) -> list:  # type: ignore[type-arg]
    catalogue = await archiving.archive.refresh(archiving.partition)
    assert catalogue.end is not None
    return [r async for rs in archiving.archive.records(archiving.partition, None, catalogue.end) for r in rs][:count]


async def test_a_restore_refuses_a_stream_that_holds_other_events(archiving: Archiving, resources: Resources) -> None:
    await append(archiving.ledger, archiving.partition, [envelope(n) for n in range(9)])
    await archiving.run()
    await resources.ledger_redis.flushall()
    await append(archiving.ledger, archiving.partition, [envelope(99)])
    archiving.reopen()
    restore = restore_of(archiving, resources)
    with pytest.raises(ConfigurationError, match="holds other events than the archive"):
        await restore.run(archiving.partition)
    assert len(await archiving.hot()) == 1


async def test_a_restore_refuses_a_tenant_with_other_buckets(archiving: Archiving, resources: Resources) -> None:
    await append(archiving.ledger, archiving.partition, [envelope(n) for n in range(9)])
    await archiving.run()
    await resources.ledger_redis.flushall()
    await resources.tenants.ensure("acme", 3)
    with pytest.raises(ConfigurationError, match="3 buckets here and 1 in the archive"):
        await restore_of(archiving, resources).run(archiving.partition)


async def test_a_process_without_the_archive_says_so_instead_of_leaving_events_out(
    archiving: Archiving, resources: Resources
) -> None:
    positions = await append(archiving.ledger, archiving.partition, [envelope(n) for n in range(20)])
    await archiving.finish(resources.groups)
    await archiving.run()
    blind = Ledger(resources.ledger_redis)
    with pytest.raises(ConfigurationError, match="CG_ARCHIVE__URL"):
        await blind.after(archiving.partition, None, 5)
    with pytest.raises(ConfigurationError, match="CG_ARCHIVE__URL"):
        await blind.get(archiving.partition, "e1")
    assert len(await blind.after(archiving.partition, positions[13], 100)) == 6


async def test_only_one_archives_a_partition_at_a_time(archiving: Archiving, resources: Resources) -> None:
    await append(archiving.ledger, archiving.partition, [envelope(n) for n in range(9)])
    lease = await resources.leases.acquire(archiving.partition, "archive", "other", 60_000)
    assert lease is not None
    assert (await archiving.run()).busy == 1
    await resources.leases.release(lease)
    assert (await archiving.run()).events == 9


async def test_the_cache_of_blocks_is_bounded_and_may_be_nothing(archiving: Archiving, resources: Resources) -> None:
    known = [envelope(n, payload={"text": "x" * 5_000}) for n in range(40)]
    await append(archiving.ledger, archiving.partition, known)
    await archiving.finish(resources.groups)
    await archiving.run()
    for cache_bytes in (0, 100_000):
        archive = Archive(archiving.files, cache_bytes)
        ledger = Ledger(archiving.redis, archive=archive)
        for _ in range(2):
            assert [found.envelope for found in await ledger.after(archiving.partition, None, 100)] == known
        assert archive._blocks._size <= cache_bytes


async def test_an_archive_in_an_object_store_serves_as_well(resources: Resources) -> None:
    """fsspec's memory filesystem: no rename, no fsync, as an object store."""
    tenant = await resources.tenants.ensure("acme", 1)
    archiving = Archiving(resources.ledger_redis, open_files("memory://bucket/prefix"), tenant)
    known = [envelope(n) for n in range(30)]
    positions = await append(archiving.ledger, archiving.partition, known)
    await archiving.finish(resources.groups)
    assert (await archiving.run()).trimmed == 28
    archiving.reopen()
    await _reads_equal(archiving, known, positions, random.Random(3))
    assert await archiving.files.partitions() == [archiving.partition]
    assert (await archiving.verify()).problems == ()


def test_an_address_that_nothing_can_open_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigurationError, match="CG_ARCHIVE__URL"):
        open_files("nosuchthing://x")
