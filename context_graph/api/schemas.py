"""The registry of payload schemas over HTTP: what each version of an event type's payload looks like."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict

from context_graph.api import answer_shapes as shapes
from context_graph.api import problems
from context_graph.api.auth import AdminTenant, ReadTenant
from context_graph.api.bodies import described, read_json, read_model
from context_graph.api.problems import answers
from context_graph.api.rendering import json_response
from context_graph.api.services import services_of
from context_graph.ingest.schema_rules import PayloadSchema
from context_graph.ingest.validation import EventType

router = APIRouter(prefix="/v1/schemas", tags=["schemas"])

TypePath = Annotated[EventType, Path(description="an event type: user.message, tool.result …")]
VersionPath = Annotated[int, Path(ge=1, le=10_000, description="the event's schema_version")]
_EXAMPLE = {
    "type": "object",
    "required": ["order_id"],
    "properties": {"order_id": {"type": "string", "pattern": "^#W[0-9]+$"}, "total": {"type": "number", "minimum": 0}},
}
_ANY_SCHEMA = {"type": "object", "title": "JSON Schema", "description": "draft 2020-12; `$ref` only to `#/…`"}


class ModeIn(BaseModel):
    """Whether events must be described and right, or are taken and told."""

    model_config = ConfigDict(extra="forbid", strict=True, title="SchemaMode")

    mode: Literal["strict", "lenient"]


@router.get("", summary="List schemas", responses={200: shapes.SCHEMAS, **answers()})
async def list_schemas(request: Request, tenant: ReadTenant) -> Response:
    """The mode, and every described event type with its versions; `owner` says whose description it is."""
    rules = await services_of(request).schemas.fresh(tenant.name)
    listed = [
        {"event_type": event_type, "versions": [_version(found[version]) for version in sorted(found)]}
        for event_type, found in sorted(rules.schemas.items())
    ]
    return json_response({"mode": rules.mode, "schemas": listed})


@router.put(
    "/mode",
    summary="Set strict or lenient",
    openapi_extra=described(ModeIn.model_json_schema(), {"mode": "strict"}),
    responses={200: shapes.SCHEMA_MODE, **answers(problems.INVALID, *problems.BODY)},
)
async def put_mode(request: Request, tenant: AdminTenant) -> Response:
    """Strict refuses what no schema describes and what violates its schema; lenient takes both and warns of the latter.

    In force at once in this process and within a second in all of them.
    """
    body = await read_model(request, ModeIn)
    await services_of(request).schemas.set_mode(tenant.name, body.mode)
    return json_response({"mode": body.mode})


@router.get(
    "/{event_type}",
    summary="Read every version of a schema",
    responses={200: shapes.SCHEMA_VERSIONS, **answers(problems.UNKNOWN, problems.INVALID)},
)
async def get_versions(request: Request, tenant: ReadTenant, event_type: TypePath) -> Response:
    """Every version of an event type, oldest first."""
    found = await services_of(request).schemas.versions(tenant.name, event_type)
    return json_response({"event_type": event_type, "versions": [_whole(schema) for schema in found.values()]})


@router.get(
    "/{event_type}/{version}",
    summary="Read a schema",
    responses={200: shapes.SCHEMA, **answers(problems.UNKNOWN, problems.INVALID)},
)
async def get_schema(request: Request, tenant: ReadTenant, event_type: TypePath, version: VersionPath) -> Response:
    """One version."""
    schema = await services_of(request).schemas.get(tenant.name, event_type, version)
    return json_response({"event_type": event_type, **_whole(schema)})


@router.put(
    "/{event_type}/{version}",
    status_code=201,
    summary="Store a schema",
    openapi_extra=described(_ANY_SCHEMA, _EXAMPLE),
    responses={
        201: shapes.SCHEMA,
        200: {**shapes.SCHEMA, "description": "The same schema was there already"},
        **answers(problems.INVALID, *problems.BODY, problems.SCHEMA_CONFLICT),
    },
)
async def put_schema(request: Request, tenant: AdminTenant, event_type: TypePath, version: VersionPath) -> Response:
    """The body is the schema of the payload. A stored version never changes: the same again is 200, another is 409."""
    services = services_of(request)
    schema, created = await services.schemas.put(tenant.name, event_type, version, await read_json(request))
    return json_response({"event_type": event_type, **_whole(schema)}, 201 if created else 200)


def _version(schema: PayloadSchema) -> dict[str, Any]:
    return {"version": schema.version, "owner": schema.owner}


def _whole(schema: PayloadSchema) -> dict[str, Any]:
    return _version(schema) | {"schema": orjson.Fragment(schema.body)}
