"""Read your writes: waiting until stages have passed a position."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from context_graph.domain.partition import Tenant
from context_graph.domain.position import Position
from context_graph.domain.stages import PROJECTION, STAGES, Stage
from context_graph.store.generations import Generations
from context_graph.store.groups import Groups

_STEP = 0.02  # seconds between looks at the stages
GRAPH_STAGES = (PROJECTION,)
"""What has to be passed for reads of nodes, timelines, causes and receipts."""


class Waiting:
    """Waits for the stages of any tenant."""

    def __init__(self, groups: Groups, generations: Generations) -> None:
        self._groups = groups
        self._generations = generations

    async def passed(
        self, tenant: Tenant, position: Position | None, wait_ms: int, stages: Sequence[Stage] = STAGES
    ) -> list[str]:
        """Until every stage of the live generation has passed `position`.

        Returns the names of those that had not when the time was over.
        """
        if position is None or position.bucket >= tenant.buckets:
            return []
        partition = tenant.partitions[position.bucket]
        deadline = time.monotonic() + wait_ms / 1000
        live = await self._generations.live(tenant.name)
        waiting = [stage.of(live).group for stage in stages]
        while True:
            states = [(group, await self._groups.state(partition, group)) for group in waiting]
            waiting = [group for group, state in states if not state.has_passed(position)]
            if not waiting or time.monotonic() >= deadline:
                return waiting
            await asyncio.sleep(_STEP)
