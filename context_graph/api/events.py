"""The ledger over HTTP: post events, read them back."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from context_graph.api import answer_shapes as shapes
from context_graph.api import problems
from context_graph.api.auth import IngestTenant, ReadTenant
from context_graph.api.bodies import described, parse_json, read_body
from context_graph.api.idempotency import IdempotencyKey, answer_once
from context_graph.api.moments import AsOfText, parse_as_of
from context_graph.api.paths import ANY_ID
from context_graph.api.problems import answers, document_of
from context_graph.api.rendering import event_json, json_response, warnings_json
from context_graph.api.services import Services, services_of
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Tenant
from context_graph.errors import FieldProblem, InvalidInput, UnknownThing
from context_graph.ingest.ingest import Outcome
from context_graph.ingest.validation import EventIn
from context_graph.store.ledger import Ledger

router = APIRouter(prefix="/v1/events", tags=["events"])
posting = APIRouter(prefix="/v1/events", tags=["events"])
"""The routes that most requests go to. Apart, so that the app asks them first: routers are asked one after the other,
and that took a fifth of the processor time of a single append."""

_EVENT_SCHEMA = EventIn.model_json_schema()
_BATCH_SCHEMA = {
    "type": "object",
    "title": "Batch",
    "required": ["events"],
    "additionalProperties": False,
    "properties": {"events": {"type": "array", "minItems": 1, "maxItems": 1000, "items": _EVENT_SCHEMA}},
}


@posting.post(
    "",
    status_code=201,
    summary="Append one event",
    openapi_extra=described(_EVENT_SCHEMA, _EVENT_SCHEMA["examples"][0]),
    responses={
        201: shapes.POSTED,
        200: shapes.POSTED_BEFORE,
        **answers(
            problems.INVALID,
            *problems.BODY,
            problems.CONFLICT,
            problems.KEY_RUNNING,
            problems.USER_ERASED,
            problems.SESSION_ERASED,
            problems.KEY_REUSED,
            *problems.REFUSED,
        ),
    },
)
async def post_event(request: Request, tenant: IngestTenant, idempotency_key: IdempotencyKey = None) -> Response:
    """201 when new, 200 with the first position when the same event is there, 409 when the id has other content."""
    content = await read_body(request)

    async def append() -> tuple[Response, bool]:
        return await _append_one(services_of(request), tenant, content), True

    return await answer_once(request, tenant, idempotency_key, content, append)


async def _append_one(services: Services, tenant: Tenant, content: bytes) -> Response:
    outcome = await services.ingest.one(tenant, parse_json(content))
    services.metrics.ingested.labels(outcome.status).inc()
    body: dict[str, Any] = {
        "event_id": outcome.event_id, "position": str(outcome.position), "status": outcome.status
    }  # fmt: skip
    if outcome.warnings:
        services.metrics.schema_warnings.inc()
        body["warnings"] = warnings_json(outcome.warnings)
    return json_response(body, 201 if outcome.status == "created" else 200)


@posting.post(
    "/batch",
    status_code=207,
    summary="Append up to 1,000 events",
    openapi_extra=described(_BATCH_SCHEMA, {"events": _EVENT_SCHEMA["examples"]}),
    responses={
        207: shapes.BATCHED,
        **answers(
            problems.INVALID,
            *problems.BODY,
            problems.KEY_RUNNING,
            problems.KEY_REUSED,
            *problems.REFUSED,
        ),
    },
)
async def post_batch(request: Request, tenant: IngestTenant, idempotency_key: IdempotencyKey = None) -> Response:
    """Each event has its own result; good events are kept whatever the others are."""
    content = await read_body(request)

    async def append() -> tuple[Response, bool]:
        return await _append_batch(services_of(request), tenant, parse_json(content))

    return await answer_once(request, tenant, idempotency_key, content, append)


async def _append_batch(services: Services, tenant: Tenant, body: object) -> tuple[Response, bool]:
    """The answer, and whether it is final: an event that failed may be tried again."""
    if not isinstance(body, dict) or "events" not in body:
        raise InvalidInput([FieldProblem("/events", "the field is missing", 'send {"events": [ … ]}', "missing")])
    extra = sorted(set(body) - {"events"})
    if extra:
        raise InvalidInput([FieldProblem(f"/{extra[0]}", "a batch has only events", "remove it", "extra_forbidden")])
    outcomes = await services.ingest.batch(tenant, body["events"])
    counts = dict.fromkeys(("created", "duplicate", "conflict", "invalid", "failed"), 0)
    for outcome in outcomes:
        counts[outcome.status] += 1
    for status, count in counts.items():
        services.metrics.ingested.labels(status).inc(count)
    services.metrics.schema_warnings.inc(sum(1 for outcome in outcomes if outcome.warnings))
    answer = json_response({"results": [_result(outcome) for outcome in outcomes], "counts": counts}, 207)
    return answer, counts["failed"] == 0


def _result(outcome: Outcome) -> dict[str, Any]:
    index, status, event_id, position, error, warnings = outcome
    if error is None and not warnings:
        return {"index": index, "status": status, "event_id": event_id, "position": str(position)}
    result: dict[str, Any] = {"index": outcome.place, "status": outcome.status}
    if outcome.event_id is not None:
        result["event_id"] = outcome.event_id
    if outcome.position is not None:
        result["position"] = str(outcome.position)
    if outcome.error is not None:
        result["problem"] = document_of(outcome.error)
    if outcome.warnings:
        result["warnings"] = warnings_json(outcome.warnings)
    return result


@router.get(
    f"/{{event_id:{ANY_ID}}}",
    summary="Read one event",
    responses={200: shapes.EVENT, **answers(problems.UNKNOWN, problems.INVALID)},
)
async def get_event(request: Request, tenant: ReadTenant, event_id: str, as_of: AsOfText = None) -> Response:
    """The event with the envelope's names, its position and when it was recorded; as of an earlier position, none.

    An id that ends in `/lineage` cannot be told from a lineage here: list its session.
    """
    moment = parse_as_of(as_of)
    event = await find_event(services_of(request).resources.ledger, tenant, event_id)
    if moment is not None and not moment.includes(event.position):
        raise UnknownThing("event", event_id)
    return json_response(event_json(event))


async def find_event(ledger: Ledger, tenant: Tenant, event_id: str) -> LedgerEvent:
    """The event of that id in whichever bucket has it. Raises UnknownThing."""
    for partition in tenant.partitions:
        event = await ledger.get(partition, event_id)
        if event is not None:
            return event
    raise UnknownThing("event", event_id)
