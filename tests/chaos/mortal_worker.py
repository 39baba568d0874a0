"""A projection worker that can be killed at an exact point: `python -m tests.chaos.mortal_worker POINT N`.

It is the real runtime, stores and Stage 1; what is added: at the N-th batch the process ends itself by SIGKILL, after
it was read (`read`), after it was written and before it is acknowledged (`write`), or just after that (`ack`); `never`
lives on, and `sleep` stops itself by SIGSTOP where `write` would end, until it is continued. Two kinds of events are
poison: `chaos.poison` raises, `chaos.killer` ends the process, each time. Before it ends itself it says in its log why.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

import uvloop

from context_graph.bootstrap import Resources, open_resources
from context_graph.delivery.runtime import run_stage
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.stages import PROJECTION
from context_graph.settings import Settings
from context_graph.store.groups import Groups
from projections.worker import Projection

POISON, KILLER = "chaos.poison", "chaos.killer"
SLEEP = "sleep"
PLANNED, KILLED = "ends as planned", "ended by an event"


def end(why: str) -> None:
    """As `kill -9`: nothing is flushed, closed or acknowledged."""
    os.write(2, f"{why}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


class Plan:
    """When to end: at the n-th batch, at a point of it."""

    def __init__(self, point: str, batch: int) -> None:
        self._point = point
        self._left = batch

    def reached(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left == 0 and point == SLEEP:
                os.kill(os.getpid(), signal.SIGSTOP)
            elif self._left == 0:
                end(f"{PLANNED}: {point}")


class MortalGroups(Groups):
    """Consumer groups behind whose acknowledgement the process may end."""

    plan: Plan

    async def acknowledge(self, partition: Partition, group: str, positions: Sequence[Position]) -> None:
        await super().acknowledge(partition, group, positions)
        if positions:
            self.plan.reached("ack")


class MortalProjection:
    """Stage 1, ahead of which and behind which the process may end."""

    def __init__(self, projection: Projection, plan: Plan) -> None:
        self._projection = projection
        self._plan = plan

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        self._plan.reached("read")
        types = {event.envelope.event_type for event in events}
        if KILLER in types:
            end(KILLED)
        if POISON in types:
            raise RuntimeError("poison")
        await self._projection.handle(partition, events)
        self._plan.reached("write")
        self._plan.reached(SLEEP)


async def run(resources: Resources, plan: Plan) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    groups = MortalGroups(resources.ledger_redis, resources.waiting_redis)
    groups.plan = plan
    source = replace(resources.source, groups=groups)
    handler = MortalProjection(Projection(resources.graph.at(1), resources.vault), plan)
    await run_stage(source, PROJECTION, handler, stop)


async def _main() -> None:
    async with open_resources(Settings()) as resources:
        await run(resources, Plan(sys.argv[1], int(sys.argv[2])))


if __name__ == "__main__":
    uvloop.run(_main())
