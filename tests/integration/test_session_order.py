"""A stage to which the order within a session matters: later events of a failed one's session wait, others do not."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from context_graph.bootstrap import Resources
from context_graph.delivery.source import Source
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.stages import Stage
from tests.ledger_events import append, envelope
from tests.stages import Recorder, fails_on, ids, running, start
from tests.waiting import until

ORDERED = Stage("ordered", "none", "order", ordered=True)


@dataclass(slots=True)
class Sequences:
    """What was handled of each session, in order; `fail` names an event that fails as long as it is set."""

    fail: set[str] = field(default_factory=set)
    by_session: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        bad = [e for e in events if e.envelope.event_id in self.fail]
        if bad:
            raise RuntimeError(f"{bad[0].envelope.event_id} is not wanted")
        for event in events:
            self.by_session[event.envelope.session_id].append(event.envelope.event_id)


async def some(resources: Resources, partition: Partition, first: int, last: int) -> None:
    """Events of session `even` and of session `odd` in turn."""
    events = [envelope(n, session_id="odd" if n % 2 else "even") for n in range(first, last)]
    await append(resources.ledger, partition, events)


async def waits(source: Source, partition: Partition, parked: int, dead: int) -> bool:
    state = await source.groups.state(partition, ORDERED.group)
    counts = await source.dead_letters.counts(partition)
    return (state.parked, counts.total, state.lag, state.pending) == (parked, dead, 0, 0)


async def test_later_events_of_a_dead_events_session_wait_and_follow_in_order_when_it_is_redriven(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await some(resources, partition, 0, 20)
    handler = Sequences(fail={"e4"})
    async with running(source, handler, batch=6, stage=ORDERED):
        await until(lambda: waits(source, partition, 7, 1))
        assert handler.by_session == {"even": ids(0, 2), "odd": ids(*range(1, 20, 2))}
        await some(resources, partition, 20, 24)
        await until(lambda: waits(source, partition, 9, 1))
        [letter] = await source.dead_letters.listed(partition)
        assert await source.parking.count(partition, ORDERED.group, letter.session_id) == 9
        handler.fail.clear()
        await source.dead_letters.redrive(partition, [letter])
        await until(lambda: waits(source, partition, 0, 0))
        await some(resources, partition, 24, 26)
        await until(lambda: len(handler.by_session["odd"]) == 13)
    assert handler.by_session == {"even": ids(*range(0, 26, 2)), "odd": ids(*range(1, 26, 2))}


async def test_discarding_a_letter_frees_its_session(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await some(resources, partition, 0, 8)
    handler = Sequences(fail={"e2"})
    async with running(source, handler, stage=ORDERED):
        await until(lambda: waits(source, partition, 2, 1))
        await source.dead_letters.discard(partition, await source.dead_letters.listed(partition))
        await until(lambda: waits(source, partition, 0, 0))
    assert handler.by_session["even"] == ids(0, 4, 6)


async def test_events_wait_behind_one_that_is_tried_again(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await some(resources, partition, 0, 8)
    recorder = Recorder(fails_on("e0", KeyError("passing"), times=3))
    async with running(source, recorder, stage=ORDERED):
        await until(lambda: len(recorder.done) == 8)
    assert [name for name in recorder.done if name in ids(0, 2, 4, 6)] == ids(0, 2, 4, 6)
    assert await source.dead_letters.count(partition) == 0


async def test_a_parked_event_that_fails_holds_those_behind_it(
    resources: Resources, source: Source, partition: Partition
) -> None:
    await some(resources, partition, 0, 10)
    handler = Sequences(fail={"e2", "e6"})
    async with running(source, handler, stage=ORDERED):
        await until(lambda: waits(source, partition, 3, 1))
        await source.dead_letters.discard(partition, await source.dead_letters.listed(partition))
        await until(lambda: waits(source, partition, 1, 1))
        [letter] = await source.dead_letters.listed(partition)
        assert letter.event_id == "e6"
        handler.fail.clear()
        await source.dead_letters.redrive(partition, [letter])
        await until(lambda: waits(source, partition, 0, 0))
    assert handler.by_session["even"] == ids(0, 4, 6, 8)


async def test_two_workers_keep_the_order_and_the_second_goes_on_when_the_first_dies(
    resources: Resources, source: Source, partition: Partition
) -> None:
    hanging = asyncio.Event()

    async def hang(events: Sequence[LedgerEvent]) -> None:
        if any(event.envelope.event_id == "e30" for event in events):
            hanging.set()
            await asyncio.Event().wait()

    first, second = Recorder(hang), Recorder()
    victim = start(source, first, batch=7, stage=ORDERED)
    await some(resources, partition, 0, 20)
    await until(lambda: len(first.done) == 20)
    async with running(source, second, batch=7, stage=ORDERED):
        await some(resources, partition, 20, 40)
        await hanging.wait()
        assert second.done == [], "one at a time"
        await victim.die()
        await until(lambda: len(set(first.done + second.done)) == 40)
    assert first.done == ids(*range(len(first.done)))
    assert second.done == ids(*range(len(first.done), 40))


async def test_at_the_limit_of_parked_events_the_stage_reads_no_further(
    resources: Resources, source: Source, partition: Partition
) -> None:
    few = replace(source, settings=source.settings.model_copy(update={"max_parked": 3}))
    await append(resources.ledger, partition, [envelope(0, session_id="s")])
    handler = Sequences(fail={"e0"})
    async with running(few, handler, batch=1, stage=ORDERED):
        await until(lambda: waits(source, partition, 0, 1))
        await append(resources.ledger, partition, [envelope(n, session_id="s") for n in range(1, 9)])

        async def full() -> bool:
            state = await source.groups.state(partition, ORDERED.group)
            return (state.parked, state.lag) == (3, 5)

        await until(full)
        handler.fail.clear()
        await source.dead_letters.redrive(partition, await source.dead_letters.listed(partition))
        await until(lambda: waits(source, partition, 0, 0))
    assert handler.by_session["s"] == ids(*range(9))


async def test_a_stage_without_order_parks_nothing(resources: Resources, source: Source, partition: Partition) -> None:
    await some(resources, partition, 0, 8)
    handler = Sequences(fail={"e2"})
    unordered = replace(ORDERED, ordered=False)
    async with running(source, handler, stage=unordered):
        await until(lambda: waits(source, partition, 0, 1))
    assert sorted(handler.by_session["even"]) == ids(0, 4, 6)
