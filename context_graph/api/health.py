"""Health: whether the process lives, and whether the service can keep its promises right now.

Readiness tells the truth about every stage. It fails when Redis is away or configured so that acknowledged events can
be lost, when a stage stalls or nobody runs it while events wait, when dead letters pass their limit, or when the
vectors of an index have another dimension than the model.
"""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response

from context_graph.api.rendering import json_response
from context_graph.api.services import services_of
from context_graph.bootstrap import Resources
from context_graph.domain.partition import Partition
from context_graph.domain.redis_safety import redis_problems
from context_graph.domain.stages import STAGES, Stage
from context_graph.errors import StoreUnavailable
from context_graph.store.groups import GroupState
from context_graph.store.readiness import read_redis_facts

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live", summary="Does the process live")
async def live() -> Response:
    """200 as long as the process answers."""
    return json_response({"status": "alive"})


@router.get("/ready", summary="Can the service keep its promises", responses={503: {"description": "Not now"}})
async def ready(request: Request) -> Response:
    """200 when everything is well, 503 with the reasons when it is not; the state of every stage in both cases."""
    services = services_of(request)
    problems: list[str] = []
    stages: list[dict[str, Any]] = []
    try:
        resources = services.resources
        facts = await read_redis_facts(resources.ledger_redis)
        problems += redis_problems(facts, resources.settings.ledger.durability)
        for tenant in await resources.tenants.all():
            for partition in tenant.partitions:
                stages += await _stages(resources, partition, problems)
    except StoreUnavailable as error:
        problems.append(str(error))
    body = {"status": "ready" if not problems else "not ready", "problems": problems, "stages": stages}
    return json_response(body, 200 if not problems else 503)


async def _stages(resources: Resources, partition: Partition, problems: list[str]) -> list[dict[str, Any]]:
    dead = await resources.dead_letters.count(partition)
    limit = resources.settings.ledger.dead_letter_limit
    if dead > limit:
        problems.append(f"{partition}: {dead} dead letters, more than {limit}; see them, mend the cause, re-drive")
    dimensions = await resources.index.dimensions_of(partition)
    expected = resources.settings.embedding.dimensions
    if dimensions is not None and dimensions != expected:
        problems.append(f"{partition}: the index has {dimensions} dimensions, the model {expected}")
    reported = []
    for stage in STAGES:
        state = await resources.groups.state(partition, stage.group)
        waiting_ms = await _waiting_ms(resources, partition, state)
        stall_ms = resources.settings.delivery.stall_seconds * 1000
        if waiting_ms > stall_ms:
            problems.append(_stalled(partition, stage, state, waiting_ms))
        reported.append(
            {
                "partition": str(partition),
                "stage": stage.group,
                "lag": state.lag,
                "pending": state.pending,
                "waiting_ms": waiting_ms,
                "consumers": state.consumers,
                "dead_letters": dead,
            }
        )
    return reported


async def _waiting_ms(resources: Resources, partition: Partition, state: GroupState) -> int:
    """How long the first event that the stage has not finished has been in the ledger, ms; 0 when there is none."""
    if state.lag == 0 and state.pending == 0:
        return 0
    if state.first_pending is not None:
        first_ms = state.first_pending.ms
    else:
        behind = await resources.ledger.after(partition, state.last_delivered, 1)
        if not behind:
            return 0
        first_ms = behind[0].recorded_at
    return max(0, int(time.time() * 1000) - first_ms)


def _stalled(partition: Partition, stage: Stage, state: GroupState, waiting_ms: int) -> str:
    who = f"no `worker {stage.worker}` is running" if state.consumers == 0 else "its workers are stuck or too slow"
    seconds = waiting_ms // 1000
    return f"{partition}: {stage.group} has not handled an event for {seconds} s ({state.lag} wait); {who}"
