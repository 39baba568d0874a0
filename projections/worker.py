"""The projection worker: Stage 1 as a member of its consumer group."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from context_graph.bootstrap import Resources
from context_graph.delivery.runtime import run_stage
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.stages import PROJECTION
from context_graph.store.graph import Graph
from context_graph.workers import Worker
from projections.fold import fold


class Projection:
    """Stage 1's handler: fold the batch, write the difference."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        await self._graph.apply(partition, fold(events))


async def run(resources: Resources, stop: asyncio.Event) -> None:
    """Project until `stop`."""
    await run_stage(resources.source, PROJECTION, Projection(resources.graph), stop)


WORKER = Worker(name="projection", summary="Stage 1: nodes, timelines and causes", run=run)
