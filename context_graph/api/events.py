"""The ledger over HTTP: post events, read them back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from context_graph.api import problems
from context_graph.api.auth import IngestTenant, ReadTenant
from context_graph.api.bodies import described, read_json
from context_graph.api.problems import answers, document_of
from context_graph.api.rendering import event_json, json_response
from context_graph.api.services import services_of
from context_graph.domain.event import LedgerEvent, SessionId
from context_graph.domain.partition import Tenant
from context_graph.domain.position import Position
from context_graph.errors import FieldProblem, InvalidInput, UnknownThing
from context_graph.ingest.ingest import Outcome
from context_graph.ingest.validation import EventIn
from context_graph.store.ledger import Ledger

router = APIRouter(prefix="/v1/events", tags=["events"])

_EVENT_SCHEMA = EventIn.model_json_schema()
_BATCH_SCHEMA = {
    "type": "object",
    "title": "Batch",
    "required": ["events"],
    "additionalProperties": False,
    "properties": {"events": {"type": "array", "minItems": 1, "maxItems": 1000, "items": _EVENT_SCHEMA}},
}
_POSTED = {
    "description": "It is in the ledger",
    "content": {
        "application/json": {"example": {"event_id": "msg-1", "position": "0-1788254999123-0", "status": "created"}}
    },
}
_BATCHED = {
    "description": "One result for each event, in order",
    "content": {
        "application/json": {
            "example": {
                "results": [{"index": 0, "status": "created", "event_id": "msg-1", "position": "0-1788254999123-0"}],
                "counts": {"created": 1, "duplicate": 0, "conflict": 0, "invalid": 0, "failed": 0},
            }
        }
    },
}


@router.post(
    "",
    status_code=201,
    summary="Append one event",
    openapi_extra=described(_EVENT_SCHEMA),
    responses={
        201: _POSTED,
        200: {**_POSTED, "description": "The same event was there already"},
        **answers(problems.INVALID, problems.TOO_LARGE, problems.MALFORMED, problems.CONFLICT),
    },
)
async def post_event(request: Request, tenant: IngestTenant) -> Response:
    """201 when new, 200 with the first position when the same event is there, 409 when the id has other content."""
    services = services_of(request)
    outcome = await services.ingest.one(tenant, await read_json(request))
    services.metrics.ingested.labels(outcome.status).inc()
    body = {"event_id": outcome.event_id, "position": str(outcome.position), "status": outcome.status}
    return json_response(body, 201 if outcome.status == "created" else 200)


@router.post(
    "/batch",
    status_code=207,
    summary="Append up to 1,000 events",
    openapi_extra=described(_BATCH_SCHEMA),
    responses={207: _BATCHED, **answers(problems.INVALID, problems.TOO_LARGE, problems.MALFORMED)},
)
async def post_batch(request: Request, tenant: IngestTenant) -> Response:
    """Each event has its own result; good events are kept whatever the others are."""
    body = await read_json(request)
    if not isinstance(body, dict) or "events" not in body:
        raise InvalidInput([FieldProblem("/events", "the field is missing", 'send {"events": [ … ]}', "missing")])
    extra = sorted(set(body) - {"events"})
    if extra:
        raise InvalidInput([FieldProblem(f"/{extra[0]}", "a batch has only events", "remove it", "extra_forbidden")])
    services = services_of(request)
    outcomes = await services.ingest.batch(tenant, body["events"])
    counts = dict.fromkeys(("created", "duplicate", "conflict", "invalid", "failed"), 0)
    for outcome in outcomes:
        counts[outcome.status] += 1
    for status, count in counts.items():
        services.metrics.ingested.labels(status).inc(count)
    return json_response({"results": [_result(outcome) for outcome in outcomes], "counts": counts}, 207)


def _result(outcome: Outcome) -> dict[str, Any]:
    result: dict[str, Any] = {"index": outcome.index, "status": outcome.status}
    if outcome.event_id is not None:
        result["event_id"] = outcome.event_id
    if outcome.position is not None:
        result["position"] = str(outcome.position)
    if outcome.error is not None:
        result["problem"] = document_of(outcome.error)
    return result


@router.get("/{event_id:path}", summary="Read one event", responses=answers(problems.UNKNOWN))
async def get_event(request: Request, tenant: ReadTenant, event_id: str) -> Response:
    """The event with the envelope's names, its position and when it was recorded."""
    event = await find_event(services_of(request).resources.ledger, tenant, event_id)
    return json_response(event_json(event))


@router.get("", summary="List events in ledger order", responses=answers(problems.INVALID))
async def list_events(
    request: Request,
    tenant: ReadTenant,
    session_id: Annotated[str | None, Query(max_length=256, description="only this session")] = None,
    after: Annotated[str | None, Query(max_length=64, description="a cursor or a position; exclusive")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """A page of the ledger; `page.next_cursor` is null on the last one."""
    ledger = services_of(request).resources.ledger
    start = parse_position("after", after)
    if session_id is not None:
        partition = tenant.partition_of(SessionId(session_id))
        found = await ledger.of_session(partition, session_id, start, limit + 1)
    else:
        found = []
        for partition in tenant.partitions:
            if start is None or partition.bucket >= start.bucket:
                begin = start if start is not None and start.bucket == partition.bucket else None
                found += await ledger.after(partition, begin, limit + 1 - len(found))
            if len(found) > limit:
                break
    page = found[:limit]
    cursor = str(page[-1].position) if len(found) > limit else None
    return json_response({"events": [event_json(event) for event in page], "page": {"next_cursor": cursor}})


def parse_position(field: str, text: str | None) -> Position | None:
    """A position from outside. Raises InvalidInput naming the field."""
    if text is None:
        return None
    try:
        return Position.parse(text)
    except ValueError as error:
        remedy = "send a position or cursor that this service returned"
        raise InvalidInput([FieldProblem(f"/{field}", str(error), remedy, "position")]) from error


async def find_event(ledger: Ledger, tenant: Tenant, event_id: str) -> LedgerEvent:
    """The event of that id in whichever bucket has it. Raises UnknownThing."""
    for partition in tenant.partitions:
        event = await ledger.get(partition, event_id)
        if event is not None:
            return event
    raise UnknownThing("event", event_id)
