"""The projection worker: Stage 1 as a member of its consumer group."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from context_graph.bootstrap import Resources
from context_graph.delivery.forgetting import ForgettingHandler
from context_graph.delivery.generations import run_generations
from context_graph.domain.event import ERASURE_TYPE, LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.stages import PROJECTION
from context_graph.errors import PermanentError
from context_graph.store.forgotten import Forgotten
from context_graph.store.graph import Graph
from context_graph.store.vault import Vault
from context_graph.workers import Worker
from projections.fold import fold
from projections.rebuild import Rebuilder


class Projection:
    """Stage 1's handler: fold the batch, write the difference."""

    def __init__(self, graph: Graph, vault: Vault | None = None) -> None:
        """`vault`: where tombstones are respected."""
        self._graph = graph
        self._vault = vault

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        await self._graph.apply(partition, fold(events))
        for event in events:
            if self._vault is not None and event.envelope.event_type == ERASURE_TYPE:
                await self._respect(self._vault, partition, event)

    async def _respect(self, vault: Vault, partition: Partition, tombstone: LedgerEvent) -> None:
        """Nothing changes at the first reading; a ledger that was restored beside older keys loses these again."""
        payload = tombstone.envelope.payload
        tag = payload.get("tag") if isinstance(payload, dict) else None
        if not isinstance(tag, str):
            raise PermanentError(f"the tombstone {tombstone.envelope.event_id!r} names no tag")
        await vault.bury(partition, tag, tombstone.envelope.event_id)


def forgetting(resources: Resources, graph: Graph) -> ForgettingHandler:
    """Stage 1 of a generation, which keeps of forgotten events no more than where they stand."""
    forgotten = Forgotten(resources.derived_redis, graph)
    inner = Projection(graph, resources.vault)
    return ForgettingHandler(
        inner, forgotten, resources.ledger, forgotten.remove_nodes, spares=False, settle_places=forgotten.settle_places
    )


async def project(resources: Resources, stop: asyncio.Event) -> None:
    """Stage 1 of every generation."""

    def projection(generation: int) -> ForgettingHandler:
        return forgetting(resources, resources.graph.at(generation))

    await run_generations(resources.source, resources.generations, PROJECTION, projection, stop)


async def run(resources: Resources, stop: asyncio.Event) -> None:
    """Project, look after rebuilds, and finish erasures, until `stop`."""
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(project(resources, stop), name="projection")
            tasks.create_task(Rebuilder(resources).run(stop), name="rebuilding")
            erasing = resources.eraser.run(stop, resources.settings.delivery.poll_seconds)
            tasks.create_task(erasing, name="erasing")
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


WORKER = Worker(name="projection", summary="Stage 1: nodes, timelines and causes", run=run)
