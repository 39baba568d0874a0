"""Every generation fed by the same workers: one consumer of the delivery runtime for each, as long as a tenant has it.

A worker looks at the tenants' tables once a second: a rebuild that begins is worked on by whoever runs already, and
one that is dropped is left alone. A generation's group begins at the first event, so nothing lies between what it has
read and what comes: catching up and following are the same thing. What was trimmed before, the group finds as a gap
and reads from the archive (`trimmed.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from context_graph.delivery.runtime import run_stage
from context_graph.delivery.source import Handler, Partitions, Source
from context_graph.domain.event import LedgerEvent
from context_graph.domain.generations import FIRST
from context_graph.domain.partition import Partition
from context_graph.domain.stages import Stage
from context_graph.errors import ConfigurationError, StoreUnavailable
from context_graph.store.generations import Generations

_BUILDERS = 2

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Fed:
    """A generation, whether it is nowhere more than one that is being built, and which of its consumers here it is."""

    number: int
    building: bool
    member: int = 0


@dataclass(frozen=True, slots=True)
class _Guarded:
    """A generation's handler. What can never work ends a rebuild, not the worker that feeds the live one as well."""

    handler: Handler
    generations: Generations
    number: int

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        try:
            await self.handler.handle(partition, events)
        except ConfigurationError as error:
            problem = str(error)
            table = await self.generations.read(partition.tenant)
            if self.number in (table.live, table.previous):
                raise
            await self.generations.change(partition.tenant, lambda table: table.fail(self.number, problem))
            log.error("rebuild_failed", tenant=partition.tenant, generation=self.number, reason=problem)


@dataclass(frozen=True, slots=True)
class _Follower:
    task: asyncio.Task[None]
    stop: asyncio.Event


async def run_generations(
    source: Source, generations: Generations, stage: Stage, handler: Callable[[int], Handler], stop: asyncio.Event, *,
    batch: Callable[[bool], int] | None = None,
) -> None:  # fmt: skip
    """Run `stage` for every generation that any tenant feeds, until `stop` is set.

    One that is being built has two consumers here, unless the stage needs order: while the store writes for one of
    them, the other one computes.

    `handler` makes the handler that writes to that generation; `batch` says how many events it gets at once, given
    whether every tenant is still building it (default: settings.batch_events). Raises what makes one of them fail.
    """
    followers: dict[_Fed, _Follower] = {}
    try:
        async with asyncio.TaskGroup() as tasks:
            while not stop.is_set():
                wanted = await _wanted(source, generations, set(followers), 1 if stage.ordered else _BUILDERS)
                for fed in wanted - followers.keys():
                    own = asyncio.Event()
                    guarded = _Guarded(handler(fed.number), generations, fed.number)
                    running = run_stage(
                        source, stage.of(fed.number), guarded, own,
                        batch=None if batch is None else batch(fed.building),
                        partitions=_partitions(source, generations, fed.number),
                    )  # fmt: skip
                    name = f"{stage.of(fed.number).group} consumer"
                    followers[fed] = _Follower(tasks.create_task(running, name=name), own)
                for fed in followers.keys() - wanted:
                    followers.pop(fed).stop.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(source.settings.poll_seconds):
                        await stop.wait()
            for follower in followers.values():
                follower.stop.set()
    except ExceptionGroup as failures:
        raise _first(failures) from failures


async def _wanted(source: Source, generations: Generations, known: set[_Fed], builders: int) -> set[_Fed]:
    """Those that any tenant feeds; those known while Redis is away, and the first at the start."""
    try:
        tables = await generations.tables([tenant.name for tenant in await source.tenants.all()])
    except StoreUnavailable as error:
        log.warning("generations_not_read", reason=str(error))
        return known or {_Fed(FIRST, building=False)}
    building = {table.building for table in tables}
    settled = {number for table in tables for number in table.fed if number != table.building} | {FIRST}
    return {_Fed(n, building=False) for n in settled} | {
        _Fed(n, building=True, member=member)
        for n in building
        if n is not None and n not in settled
        for member in range(builders)
    }


def _partitions(source: Source, generations: Generations, number: int) -> Partitions:
    async def partitions() -> list[Partition]:
        tenants = await source.tenants.all()
        tables = await generations.tables([tenant.name for tenant in tenants])
        return [
            partition
            for tenant, table in zip(tenants, tables, strict=True)
            if number in table.fed
            for partition in tenant.partitions
        ]

    return partitions


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure itself, however deep: whoever waits goes by its type."""
    error = failures.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
