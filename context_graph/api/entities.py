"""Entities over HTTP: which names are one thing, why, where they appear, and the word of whoever knows better."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from context_graph.api import answer_shapes as shapes
from context_graph.api import problems
from context_graph.api.auth import IngestTenant, ReadTenant
from context_graph.api.bodies import described, read_model
from context_graph.api.paths import ANY_ID
from context_graph.api.problems import answers
from context_graph.api.rendering import json_response
from context_graph.api.services import services_of
from context_graph.domain.event import iso
from context_graph.errors import FieldProblem, InvalidInput
from context_graph.resolution.clusters import Link
from context_graph.resolution.entities import Entity, EntityDetail
from context_graph.retrieval.deadline import AWAY
from context_graph.store.entities import EntityEvent

router = APIRouter(prefix="/v1/entities", tags=["entities"])

EntityId = Annotated[str, StringConstraints(min_length=3, max_length=300, pattern=r"^[a-z]+:[^\x00-\x1f\x7f]+$")]
_Label = Annotated[str | None, Query(max_length=32, pattern="^[a-z]+$", description="person, org, place, id, path …")]
_Cursor = Annotated[str | None, Query(max_length=1024, description="page.next_cursor of the page before")]
_EXAMPLE = {"entities": ["place:new york", "acronym:nyc"], "note": "the city"}


class DecisionIn(BaseModel):
    """Names that are one thing, or of which each is another."""

    model_config = ConfigDict(extra="forbid", strict=True, title="EntityDecision")

    entities: Annotated[
        list[EntityId], Field(min_length=2, max_length=20, description="ids as GET /v1/entities has them")
    ]
    note: str | None = Field(default=None, max_length=500, description="why, for whoever looks at it later")


@router.get("", summary="List entities", responses={200: shapes.ENTITIES, **answers(problems.INVALID)})
async def list_entities(
    request: Request,
    tenant: ReadTenant,
    label: _Label = None,
    query: Annotated[str | None, Query(max_length=200, description="part of a name; case does not matter")] = None,
    cursor: _Cursor = None,
    *,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """In the order of their ids, each once with all its names. A page may be short, or empty, and have a next one."""
    after = _decoded(cursor)
    if not isinstance(after, str):
        raise _wrong_cursor()
    page = await services_of(request).entities.page(tenant, label=label, query=query, after=after, limit=limit)
    shown = [_entity(entity) for entity in page.entities]
    return json_response(
        {"entities": shown, "page": {"next_cursor": _encoded(page.after)}, "meta": _meta(complete=page.complete)}
    )


@router.post(
    "/merge",
    status_code=201,
    summary="Say that names are one thing",
    openapi_extra=described(DecisionIn.model_json_schema(), _EXAMPLE),
    responses={
        201: shapes.ENTITY_DECISION,
        **answers(problems.INVALID, *problems.BODY),
    },
)
async def merge(request: Request, tenant: IngestTenant) -> Response:
    """An event in the ledger, so a rebuild keeps it; of a pair, what was said last counts. Takes back a split."""
    return await _decide(request, tenant, same=True)


@router.post(
    "/split",
    status_code=201,
    summary="Say that names are different things",
    openapi_extra=described(DecisionIn.model_json_schema(), _EXAMPLE),
    responses={
        201: shapes.ENTITY_DECISION,
        **answers(problems.INVALID, *problems.BODY),
    },
)
async def split(request: Request, tenant: IngestTenant) -> Response:
    """No evidence joins them any more, nor any third name between them. Takes back a merge."""
    return await _decide(request, tenant, same=False)


@router.get(
    f"/{{entity_id:{ANY_ID}}}",
    summary="Read an entity",
    responses={200: shapes.ENTITY_DETAIL, **answers(problems.INVALID, problems.UNKNOWN)},
)
async def get_entity(
    request: Request,
    tenant: ReadTenant,
    entity_id: str,
    cursor: _Cursor = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """By the id of any of its names: the names with the evidence that they are one thing, the events that mention it,
    newest first, and what is mentioned beside it in the newest 200 of them. `candidates`: names that fit each other,
    joined by nobody because one of them fits several; POST /v1/entities/merge or /split decides."""
    before = _decoded(cursor) if cursor is not None else None
    if before is not None and not _is_place(before):
        raise _wrong_cursor()
    place = (before[0], before[1]) if before is not None else None
    found = await services_of(request).entities.detail(tenant, entity_id, limit=limit, before=place)
    return json_response(_detail(found))


async def _decide(request: Request, tenant: IngestTenant, *, same: bool) -> Response:
    body = await read_model(request, DecisionIn)
    names = list(dict.fromkeys(body.entities))
    if len(names) < 2:
        raise InvalidInput([FieldProblem("/entities", "one name alone", "send two different ids at least")])
    event_id, position = await services_of(request).entities.decide(tenant, names, same=same, note=body.note)
    return json_response({"event_id": event_id, "position": str(position), "entities": names, "same": same}, 201)


def _entity(entity: Entity) -> dict[str, Any]:
    return {
        "id": entity.id,
        "label": entity.label,
        "name": entity.name,
        "names": [
            {
                "id": node.id,
                "label": node.label,
                "forms": list(node.forms),
                "events": node.events,
                "last_occurred_at": iso(node.last_occurred_at),
            }
            for node in entity.names
        ],
        "same_as": [_link(link) for link in entity.links],
    }


def _link(link: Link) -> dict[str, Any]:
    return {**_evidence(link), "type": "SAME_AS"}


def _evidence(link: Link) -> dict[str, Any]:
    reason = link.evidence
    return {
        "source": link.left,
        "target": link.right,
        "tier": reason.tier,
        "confidence": reason.confidence,
        "evidence": reason.why,
    }


def _detail(found: EntityDetail) -> dict[str, Any]:
    last = found.events[-1] if found.more else None
    cursor = None if last is None else [last.occurred_at, last.position.sort_key + last.event_id]
    return {
        **_entity(found.entity),
        "candidates": [_evidence(link) for link in found.candidates],
        "events": [_event(event) for event in found.events],
        "related": [
            {"source": found.entity.id, "target": one.id, "type": "RELATED_TO", "events": one.events}
            for one in found.neighbours
        ],
        "page": {"next_cursor": _encoded(cursor)},
        "meta": _meta(complete=found.complete),
    }


def _meta(*, complete: bool) -> dict[str, Any]:
    """While the embedder is away, names that only their meaning could join are told apart."""
    return {"complete": complete, "truncated": [] if complete else [AWAY]}


def _event(event: EntityEvent) -> dict[str, Any]:
    mentions = [
        {"entity_id": one, "name": name, "role": role, "spans": list(zip(places[::2], places[1::2], strict=True))}
        for one, name, role, places in event.named
    ]
    return {
        "event_id": event.event_id,
        "position": str(event.position),
        "occurred_at": iso(event.occurred_at),
        "session_id": event.session_id,
        "agent_id": event.agent_id,
        "mentions": mentions,
    }


def _encoded(place: str | list[Any] | None) -> str | None:
    return None if place is None else urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def _decoded(cursor: str | None) -> Any:
    if cursor is None:
        return ""
    try:
        return orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError as error:  # of base64 and of JSON alike
        raise _wrong_cursor() from error


def _is_place(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and type(value[0]) is int and isinstance(value[1], str)


def _wrong_cursor() -> InvalidInput:
    return InvalidInput([FieldProblem("/cursor", "this is no cursor", "send page.next_cursor of the page before")])
