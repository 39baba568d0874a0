"""A ledger with its workers in this process, and rebuilds of it, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from context_graph.bootstrap import Resources
from context_graph.domain.generations import Promotion, Rebuild
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.stages import stages_of
from context_graph.operations import load_verify
from context_graph.workers import load_worker
from tests.graph_state import State, graph_state
from tests.waiting import until

WORKERS = ("projection", "enrichment")


@asynccontextmanager
async def working(resources: Resources, names: Sequence[str] = WORKERS) -> AsyncIterator[None]:
    """The real workers, as tasks, inside the block."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(load_worker(name).run(resources, stop), name=name)
        try:
            yield
        finally:
            stop.set()


async def all_passed(resources: Resources, partition: Partition, generation: int) -> bool:
    """Whether every stage of a generation has finished the whole ledger."""
    last = await resources.ledger.last(partition)
    states = [await resources.groups.state(partition, stage.group) for stage in stages_of(generation)]
    return last is not None and all(state.has_passed(last) and not state.lag for state in states)


async def caught_up(resources: Resources, partition: Partition, generation: int = 1) -> None:
    await until(lambda: all_passed(resources, partition, generation), seconds=60)


async def rebuilt(resources: Resources, tenant: Tenant, promotion: Promotion = "never") -> Rebuild:
    """A rebuild from its beginning until there is nothing to do for it."""
    rebuild = await resources.rebuilds.start(tenant, promotion)
    return await ended(resources, tenant, rebuild.id)


async def ended(resources: Resources, tenant: Tenant, rebuild_id: str, *, seconds: float = 60) -> Rebuild:
    """The rebuild, once it is neither being built nor compared and switched if it was to be."""

    async def is_over() -> bool:
        _, rebuild = await resources.rebuilds.get(tenant.name, rebuild_id)
        return not rebuild.runs

    await until(is_over, seconds=seconds)
    _, rebuild = await resources.rebuilds.get(tenant.name, rebuild_id)
    return rebuild


async def tenant_of(resources: Resources, name: str = "acme", buckets: int = 1) -> Tenant:
    return await resources.tenants.ensure(name, buckets)


async def told_by_rebuild_and_verify(
    resources: Resources, tenant: Tenant, partition: Partition, state: State
) -> dict[str, Any]:
    """The report of `verify`, after it and a second generation have shown that this state follows from the ledger."""
    rebuild = await rebuilt(resources, tenant)
    assert rebuild.comparison is not None
    assert rebuild.comparison["equal"] is True, rebuild.comparison
    assert await graph_state(resources.derived_redis, partition, 2) == state
    report: Any = await load_verify()(resources, tenant)
    assert report["equal"] is True, report["differences"]
    assert report["ledger_hash"] == report["live_hash"]
    return dict(report)
