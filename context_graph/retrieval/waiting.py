"""Read your writes: waiting until stages have passed a position."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from context_graph.domain.partition import Tenant
from context_graph.domain.position import Position
from context_graph.domain.stages import ENRICHMENT, INDEXING, PROJECTION, STAGES, Stage
from context_graph.store.generations import Generations
from context_graph.store.groups import Groups

_STEP = 0.02  # seconds between looks at the stages
GRAPH_STAGES = (PROJECTION,)
"""What has to be passed for reads of nodes, timelines, causes and receipts."""
WaitFor = Literal["graph", "text", "vectors"]
WAITED_FOR: Mapping[WaitFor, tuple[Stage, ...]] = {
    "graph": GRAPH_STAGES,
    "text": (PROJECTION, INDEXING),
    "vectors": (PROJECTION, INDEXING, ENRICHMENT),
}
"""Each needs what the one before it needs: vectors come last, at the model's pace."""


@dataclass(frozen=True, slots=True)
class Passed:
    """Stages that had not passed a position when the wait was over: those waited for, and all of them."""

    missing: Sequence[str] = ()
    behind: Sequence[str] = ()


class Waiting:
    """Waits for the stages of any tenant."""

    def __init__(self, groups: Groups, generations: Generations) -> None:
        self._groups = groups
        self._generations = generations

    async def until(self, tenant: Tenant, position: Position | None, wait_ms: int, wait_for: WaitFor) -> Passed:
        """Wait for what `wait_for` needs, and look at the others once."""
        stages = WAITED_FOR[wait_for]
        missing = await self.passed(tenant, position, wait_ms, stages)
        others = [stage for stage in STAGES if stage not in stages]
        return Passed(missing, [*missing, *(await self.passed(tenant, position, 0, others) if others else ())])

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
