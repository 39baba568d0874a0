"""What the delivery runtime promises of every event, against a real Redis: handled at least once, or seen to fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from context_graph.bootstrap import Resources
from context_graph.delivery.source import Source
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.errors import ModelUnavailable, PermanentError
from context_graph.store import codec
from context_graph.store.keys import PartitionKeys
from tests.ledger_events import append, envelope, only_partition
from tests.stages import STAGE, Recorder, fails_on, ids, running, settled, start
from tests.waiting import until


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


async def test_poison_is_buried_with_its_reason_while_the_good_go_on(
    resources: Resources, source: Source, partition: Partition
) -> None:
    positions = await append(resources.ledger, partition, [envelope(n) for n in range(40)])
    recorder = Recorder(fails_on("e17", RuntimeError("cannot digest this")))
    async with running(source, recorder):
        await until(lambda: len(set(recorder.done)) == 39)
        await settled(source, partition)
    assert sorted(recorder.done) == sorted(ids(*range(17), *range(18, 40)))
    [letter] = await source.dead_letters.listed(partition)
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
    pauses = [later - earlier for earlier, later in pairwise(tries)]
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
    [letter] = await source.dead_letters.listed(partition)
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
        assert {item["times_delivered"] for item in counted} <= {0, 1}
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
    strange: Any = await resources.ledger_redis.xadd(PartitionKeys(partition).ledger, fields)  # type: ignore[arg-type]
    await append(resources.ledger, partition, [envelope(2)])
    recorder = Recorder()
    async with running(source, recorder):
        await settled(source, partition)
    assert sorted(recorder.done) == ids(1, 2)
    [letter] = await source.dead_letters.listed(partition)
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
    [letter] = await source.dead_letters.listed(partition)
    assert letter.reason == "PermanentError: bad file name: \\udcff"


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
