"""Health: whether the process lives, and whether the service can keep its promises right now.

Readiness tells the truth about every stage. It fails when Redis is away or configured so that acknowledged events can
be lost, when a stage stalls or nobody runs it while events wait, when dead letters pass their limit, or when the
vectors of an index have another dimension than the model.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from context_graph.api import answer_shapes as shapes
from context_graph.api.problems import STORE, documented
from context_graph.api.rendering import json_response
from context_graph.api.services import services_of
from context_graph.bootstrap import Resources
from context_graph.domain.partition import Partition
from context_graph.domain.redis_safety import RedisFacts, redis_problems
from context_graph.domain.stages import Stage, StageProgress, stages_of
from context_graph.errors import StoreUnavailable
from context_graph.observability.metrics import CONTENT_TYPE, StageReading
from context_graph.settings import LedgerSettings
from context_graph.store.groups import GroupState
from context_graph.store.model_usage import ModelUsage
from context_graph.store.readiness import read_redis_facts

router = APIRouter(prefix="/health", tags=["health"])
metrics_router = APIRouter(tags=["health"])

_OPEN: dict[str, Any] = {"security": []}  # no key is needed


@router.get("/live", summary="Does the process live", responses={200: shapes.LIVE}, openapi_extra=_OPEN)
async def live() -> Response:
    """200 as long as the process answers."""
    return json_response({"status": "alive"})


@router.get(
    "/ready",
    summary="Can the service keep its promises",
    responses={200: shapes.READY, 503: shapes.NOT_READY},
    openapi_extra=_OPEN,
)
async def ready(request: Request) -> Response:
    """200 when everything is well, 503 with the reasons when it is not; the state of every stage in both cases."""
    services = services_of(request)
    problems: list[str] = []
    readings: list[StageReading] = []
    durability: dict[str, object] = {}
    dead: dict[str, int] = {}
    try:
        resources = services.resources
        facts = await read_redis_facts(resources.ledger_redis)
        ledger = resources.settings.ledger
        problems += redis_problems(facts, ledger.durability, ledger.replicas)
        durability = _durability(ledger, facts)
        for tenant in await resources.tenants.all():
            for partition in tenant.partitions:
                dead[str(partition)] = await resources.dead_letters.count(partition)
                problems += await _partition_problems(resources, partition, dead[str(partition)])
                for stage in stages_of(await resources.generations.live(tenant.name)):
                    reading, progress = await _progress(resources, partition, stage)
                    readings.append(reading)
                    stalled = progress.problem(resources.settings.delivery.stall_seconds)
                    problems += [f"{partition}: {stalled}"] if stalled is not None else []
    except StoreUnavailable as error:
        problems.append(str(error))
    body = {
        "status": "ready" if not problems else "not ready",
        "problems": problems,
        "durability": durability,
        "stages": [asdict(reading) for reading in readings],
        "dead_letters": dead,
    }
    return json_response(body, 200 if not problems else 503)


def _durability(settings: LedgerSettings, facts: RedisFacts) -> dict[str, object]:
    """The profile that is asked for, and what the server says it does; `fsync` null where it will not say."""
    shown: dict[str, object] = {"profile": settings.durability, "fsync": facts.fsync, "append_only": facts.append_only}
    if settings.durability == "replicated":
        shown |= {"replicas_connected": facts.replicas, "replicas_needed": settings.replicas}
    return shown


@metrics_router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus' text format"}, **documented(STORE)},
    openapi_extra=_OPEN,
)
async def metrics(request: Request) -> Response:
    """Counters and latencies of this process, and what Redis knows of every stage, in the text format."""
    services = services_of(request)
    resources = services.resources
    usage = ModelUsage(resources.ledger_redis)
    for tenant in await resources.tenants.all():
        asked = await usage.totals(tenant.name)
        services.metrics.set_model_use(
            tenant.name,
            {"answered": asked.calls - asked.refused, "refused": asked.refused, "failed": asked.failed},
            {"input": asked.input_tokens, "output": asked.output_tokens},
        )
        for partition in tenant.partitions:
            for stage in stages_of(await resources.generations.live(tenant.name)):
                reading, _ = await _progress(resources, partition, stage)
                services.metrics.set_stage(reading)
            index = await resources.index.statistics(partition)
            dead = await resources.dead_letters.count(partition)
            services.metrics.set_partition(
                str(partition), dead_letters=dead, documents=index.documents, vectors=index.vectors
            )
    return Response(services.metrics.exposition(), media_type=CONTENT_TYPE)


async def _partition_problems(resources: Resources, partition: Partition, dead: int) -> list[str]:
    problems: list[str] = []
    limit = resources.settings.delivery.dead_letter_limit
    if dead > limit:
        problems.append(f"{partition}: {dead} dead letters, more than {limit}; see them, mend the cause, re-drive")
    dimensions = await resources.index.dimensions_of(partition)
    expected = resources.settings.embedding.dimensions
    if dimensions is not None and dimensions != expected:
        problems.append(f"{partition}: the index has {dimensions} dimensions, the model {expected}")
    return problems


async def _progress(resources: Resources, partition: Partition, stage: Stage) -> tuple[StageReading, StageProgress]:
    state = await resources.groups.state(partition, stage.group)
    members = await resources.groups.members(partition, stage.group)
    held = None if state.oldest_pending_ms is None else state.oldest_pending_ms / 1000
    waiting = await _waiting_ms(resources, partition, state) / 1000
    return (
        StageReading(str(partition), stage.group, state.lag, state.pending, waiting, members.living),
        StageProgress(stage, state.lag + state.pending, waiting, members.living, members.idle_seconds, held),
    )


async def _waiting_ms(resources: Resources, partition: Partition, state: GroupState) -> int:
    """How long the first event that the stage has not finished has been in the ledger, ms; 0 when there is none."""
    if state.lag == 0 and state.pending == 0:
        return 0
    if state.first_pending is not None:
        first_ms = state.first_pending.ms
    else:
        behind = await resources.ledger.first_after(partition, state.last_delivered)
        if behind is None:
            return 0
        first_ms = behind.ms
    return max(0, int(time.time() * 1000) - first_ms)
