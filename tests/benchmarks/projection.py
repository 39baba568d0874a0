"""Stage 1: the projection catching up with a full ledger, beside the same fields written without it.

The product's part is all of it: reading as a consumer group, decoding, folding, writing, acknowledging. The floor sends
what a plain writer of the same graph would send: for each event one HSET, and one ZADD for each timeline, registry and
effect it has, in pipelines of the same size, with every argument made before the clock starts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from statistics import median

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from context_graph.delivery.runtime import run_stage
from context_graph.domain.event import LedgerEvent
from context_graph.domain.graph import GraphDelta
from context_graph.domain.stages import PROJECTION
from context_graph.store.graph import _scores, event_fields
from context_graph.store.keys import GraphKeys
from projections.fold import fold
from projections.worker import Projection
from tests.benchmarks.rows import Options, Row, Target, in_turns
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.workload import Workload, load_texts, stored

_LEAST_EVENTS_A_SECOND = 8_000
_WINDOWS = 3  # stretches of events whose median is the rate at a size
_LOOK = 0.02  # seconds between looks at the group
Command = list[str]


async def stage1(options: Options) -> Row:
    """Events a second that the projection handles, from its start until nothing is left."""
    count = options.sized(30_000, 2_000)
    raws = Workload(load_texts().sentences).events(count, "p")
    events = stored(raws)
    blocking: list[float] = []
    async with open_stage() as stage:
        batch = stage.resources.settings.delivery.batch_events

        async def filled() -> Stage:
            fresh = await stage.emptied()
            for start in range(0, count, 500):
                await fresh.resources.ledger.append(fresh.partition, events[start : start + 500])
            return fresh

        async def product(_turn: int) -> float:
            return count / await catch_up(await filled())

        async def floor(_turn: int) -> float:
            fresh = await filled()
            commands = await commands_for(fresh, count)
            blocking.append(count / _send_blocking(fresh.url, commands, batch))
            await filled()
            return count / await send(fresh.resources.derived_redis, commands, batch)

        pairs = await in_turns(options.pairs, product, floor)
    return pairs.row(
        "stage1",
        "events/s",
        Target(0.4, "at least"),
        events_a_sample=count,
        batch=batch,
        at_least_events_a_second=_LEAST_EVENTS_A_SECOND,
        fast_enough=sorted(pairs.product)[len(pairs.product) // 2] >= _LEAST_EVENTS_A_SECOND,
        floor_of_blocking_client=sorted(blocking)[len(blocking) // 2],
    )


async def catch_up(stage: Stage) -> float:
    """Seconds from the start of the stage until its group has no lag and nothing pending."""
    stop = asyncio.Event()
    began = time.perf_counter()
    handler = Projection(stage.resources.graph)
    running = asyncio.create_task(run_stage(stage.resources.source, PROJECTION, handler, stop), name="projection")
    while True:
        state = await stage.resources.groups.state(stage.partition, PROJECTION.group)
        if state.last_delivered is not None and state.lag == 0 and state.pending == 0:
            break
        if running.done():
            raise RuntimeError("the projection ended") from running.exception()
        await asyncio.sleep(_LOOK)
    seconds = time.perf_counter() - began
    stop.set()
    await running
    return seconds


async def commands_for(stage: Stage, count: int, generation: int = 1) -> list[list[Command]]:
    """For each event of the ledger what its own delta would send, as plain strings."""
    keys = GraphKeys(stage.partition, generation)
    found: list[list[Command]] = []
    last = None
    while len(found) < count:
        events = await stage.resources.ledger.after(stage.partition, last, 1000)
        last = events[-1].position
        found += [commands_of(keys, event) for event in events]
    return found


def commands_of(keys: GraphKeys, event: LedgerEvent) -> list[Command]:
    """HSET of the node; ZADD of each timeline, registry and effect."""
    delta: GraphDelta = fold([event])
    commands: list[list[str | int | bytes]] = [
        ["HSET", keys.event(node.id), *event_fields(node)] for node in delta.events.values()
    ]
    for (kind, identifier), members in delta.timelines.items():
        commands.append(["ZADD", keys.timeline(kind, identifier), *_scores(members)])
        commands.append(["ZADD", keys.registry(kind), "GT", event.envelope.occurred_at, identifier])
    for cause, effects in delta.effects.items():
        commands.append(["ZADD", keys.effects(cause), *_scores(effects)])
    return [[word.decode() if isinstance(word, bytes) else str(word) for word in command] for command in commands]


def _batches(commands: list[list[Command]], batch: int) -> list[list[Command]]:
    return [
        [command for event in commands[start : start + batch] for command in event]
        for start in range(0, len(commands), batch)
    ]


async def send(redis: AsyncRedis, commands: list[list[Command]], batch: int) -> float:
    began = time.perf_counter()
    for group in _batches(commands, batch):
        pipe = redis.pipeline(transaction=False)
        add: Callable[..., object] = pipe.execute_command
        for command in group:
            add(*command)
        await pipe.execute()
    return time.perf_counter() - began


def _send_blocking(url: str, commands: list[list[Command]], batch: int) -> float:
    """The same by the blocking client, which is faster: reported beside the floor."""
    with Redis.from_url(url, protocol=2) as redis:
        began = time.perf_counter()
        for group in _batches(commands, batch):
            pipe = redis.pipeline(transaction=False)
            for command in group:
                pipe.execute_command(*command)
            pipe.execute()
        return time.perf_counter() - began


async def stage1_workers(options: Options) -> Row:
    """How the rate scales: the same ledger projected by two worker processes, beside one."""
    count = options.sized(60_000, 4_000)
    events = stored(Workload(load_texts().sentences).events(count, "p"))
    async with open_stage() as stage:

        async def by(workers: int) -> float:
            fresh = await stage.emptied()
            for start in range(0, count, 500):
                await fresh.resources.ledger.append(fresh.partition, events[start : start + 500])
            return count / await _by_processes(fresh, workers)

        async def two(_turn: int) -> float:
            return await by(2)

        async def one(_turn: int) -> float:
            return await by(1)

        pairs = await in_turns(options.pairs, two, one)
    return pairs.row("stage1_two_workers", "events/s", Target(1.0, "at least"), events_a_sample=count,
                     note="value: two processes, floor: one; Redis itself takes a share of the same cores")  # fmt: skip


async def _by_processes(stage: Stage, workers: int) -> float:
    """Seconds from the first event that the workers finish until the last; loading them is not counted."""
    group, last = PROJECTION.group, await stage.resources.ledger.last(stage.partition)
    assert last is not None
    async with stage.workers(*("projection",) * workers):
        began: float | None = None
        while True:
            state = await stage.resources.groups.state(stage.partition, group)
            if began is None and state.last_delivered is not None and state.last_delivered.ms:
                began = time.perf_counter()
            if began is not None and state.has_passed(last) and not state.lag:
                return time.perf_counter() - began
            await asyncio.sleep(_LOOK)


async def stage1_growth(options: Options) -> Row:
    """What an event costs when the graph is large: the rate at each size beside that at the first, 10,000 events."""
    largest = options.sized(100_000, 4_000)
    sizes = [size for size in (10_000, 100_000, 1_000_000) if size <= largest] or [largest]
    workload = Workload(load_texts().sentences)
    rates: dict[str, float] = {}
    windows: list[float] = []
    async with open_stage() as stage:
        done = 0
        while done < largest:
            step = min(largest // 12 or 1, 10_000, largest - done)
            events = stored(workload.slice(done, step, "p"))
            for start in range(0, step, 500):
                await stage.resources.ledger.append(stage.partition, events[start : start + 500])
            windows.append(step / await catch_up(stage))
            done += step
            if done in sizes or done == largest:
                rates[f"at_{done}"] = median(windows[-_WINDOWS:])
    first = next(iter(rates.values())) if len(rates) > 1 else median(windows[:_WINDOWS])
    last = rates[f"at_{largest}"]
    return Row(
        name="stage1_growth", value=last, unit="events/s", floor=first, ratio=last / first, target="ratio >= 0.8",
        met=last / first >= 0.8, samples={"value": list(rates.values())}, notes={"rates": rates, "events": largest},
    )  # fmt: skip
