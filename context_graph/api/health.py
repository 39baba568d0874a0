"""Health: whether the process lives, and whether the service can keep its promises right now.

Readiness tells the truth about every stage, by the same table of checks as `context-graph doctor` (`local/checks.py`).
It fails when Redis is away or configured so that acknowledged events can be lost, when a stage stalls, holds an event
too long or has nobody to run it while events wait, when dead letters or parked events pass their limit, when events
were trimmed unread and are nowhere, when a rebuild does not move, when the vectors of an index have another dimension
than the model, or when another model than a generation's own is in its place. An embedder that is away is a note:
events are taken and found by their words, and their vectors follow; so is a failed rebuild, which costs what is served
nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from context_graph.api import answer_shapes as shapes
from context_graph.api.metric_samples import read_samples, stall_samples
from context_graph.api.problems import STORE, documented
from context_graph.api.rendering import json_response
from context_graph.api.services import services_of
from context_graph.domain.redis_safety import RedisFacts
from context_graph.domain.stages import StageProgress
from context_graph.errors import StoreUnavailable
from context_graph.facts import facts_of, read_embedders, with_service
from context_graph.local.checks import examine
from context_graph.observability.metrics import CONTENT_TYPE
from context_graph.settings import LedgerSettings

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
    resources = services_of(request).resources
    settings = resources.settings
    facts = facts_of(settings)
    try:
        facts = await with_service(facts, resources)
        facts = replace(facts, embedders=await read_embedders(resources, services_of(request).embedders))
    except StoreUnavailable as error:
        facts = replace(facts, redis_problem=str(error))
    findings = examine(facts)
    problems = [finding.sentence for finding in findings if finding.level == "wrong"]
    notes = [f.sentence for f in findings if f.level == "warn" and f.subject in ("models", "stages", "rebuild")]
    dead: dict[str, int] = {}
    for progress in facts.stages:
        dead[progress.partition] = dead.get(progress.partition, 0) + progress.dead_letters
    body = {
        "status": "ready" if not problems else "not ready",
        "problems": problems,
        "notes": notes,
        "durability": {} if facts.redis is None else _durability(settings.ledger, facts.redis),
        "stages": [_stage_json(progress) for progress in facts.stages],
        "dead_letters": dead,
    }
    return json_response(body, 200 if not problems else 503)


def _stage_json(progress: StageProgress) -> dict[str, object]:
    return {
        "partition": progress.partition,
        "stage": progress.stage.group,
        "lag": progress.lag,
        "pending": progress.pending,
        "again": progress.again,
        "parked": progress.parked,
        "waiting_seconds": progress.waiting_seconds,
        "oldest_pending_seconds": progress.held_seconds,
        "consumers": progress.living,
        "dead_letters": progress.dead_letters,
        "lost": progress.lost,
    }


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
    samples = [*stall_samples(services.stalls.longest), *await read_samples(services.resources)]
    return Response(services.metrics.exposition(samples), media_type=CONTENT_TYPE)
