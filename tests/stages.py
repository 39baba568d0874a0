"""Running a stage in a test: handlers that record, and workers that are stopped or left for dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from context_graph.delivery.runtime import run_stage
from context_graph.delivery.source import Handler, Source
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.stages import Stage
from context_graph.store.groups import Groups
from tests.waiting import until

STAGE = Stage("recording", "none", "what a test looks at")

Reaction = Callable[[Sequence[LedgerEvent]], Awaitable[None]]


@dataclass(slots=True)
class Recorder:
    """A handler that keeps what it was given. `react` runs first; when it raises, the batch counts as not done."""

    react: Reaction | None = None
    seen: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    places: list[tuple[Partition, Position]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        ids = [event.envelope.event_id for event in events]
        self.seen += ids
        self.batches.append(len(ids))
        if self.react is not None:
            await self.react(events)
        self.done += ids
        self.places += [(partition, event.position) for event in events]


@dataclass(slots=True)
class Running:
    """A stage that runs in a task of this test."""

    task: asyncio.Task[None]
    stopping: asyncio.Event

    async def stop(self) -> None:
        """Graceful; raises what made the worker fail."""
        self.stopping.set()
        async with asyncio.timeout(15):
            await self.task

    async def die(self) -> None:
        """As `kill -9` would: no acknowledgement, no goodbye, no further heartbeat."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def start(source: Source, handler: Handler, *, batch: int | None = None, stage: Stage = STAGE) -> Running:
    """Start a worker; the caller stops it."""
    stopping = asyncio.Event()
    return Running(asyncio.create_task(run_stage(source, stage, handler, stopping, batch=batch)), stopping)


@asynccontextmanager
async def running(
    source: Source, handler: Handler, *, batch: int | None = None, stage: Stage = STAGE
) -> AsyncIterator[Running]:
    """A worker that runs inside the block and is stopped gracefully behind it."""
    worker = start(source, handler, batch=batch, stage=stage)
    try:
        yield worker
        if not worker.task.cancelled():
            await worker.stop()
    finally:
        await worker.die()


async def caught_up(groups: Groups, partition: Partition, group: str = STAGE.group) -> bool:
    """Whether the group has delivered everything and nothing waits for an acknowledgement."""
    state = await groups.state(partition, group)
    return state.last_delivered is not None and state.lag == state.pending == 0


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


async def exists(groups: Groups, partition: Partition) -> bool:
    return (await groups.state(partition, STAGE.group)).last_delivered is not None
