"""Rebuilds over HTTP: everything derived built anew beside what is served, compared, switched, taken back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from context_graph.api import answer_shapes as shapes
from context_graph.api import problems
from context_graph.api.auth import AdminTenant
from context_graph.api.bodies import described, read_model
from context_graph.api.problems import answers
from context_graph.api.rendering import json_response
from context_graph.api.services import services_of
from context_graph.delivery.rebuilds import PROJECTIONS, ModelChoice, Rebuilds, rebuild_json
from context_graph.domain.generations import Promotion, Rebuild
from context_graph.domain.partition import Tenant
from context_graph.errors import UnknownThing

router = APIRouter(prefix="/v1/admin", tags=["rebuilds"])

_PROMOTIONS: dict[str, Promotion] = {"never": "never", "when_equal": "when equal", "always": "always"}
_BEGUN = {
    202: shapes.REBUILD,
    **answers(problems.INVALID, problems.UNKNOWN, problems.EXISTS, *problems.BODY),
}
_CHANGED = {200: shapes.REBUILD, **answers(problems.UNKNOWN, problems.NOT_NOW)}
RebuildId = Annotated[str, Path(max_length=128, description="as `rebuild` answered it")]


class RebuildIn(BaseModel):
    """How a rebuild ends, and another embedding model if one is wanted."""

    model_config = ConfigDict(extra="forbid", strict=True, title="Rebuild")

    promote: Literal["never", "when_equal", "always"] = Field(
        default="never", description="switch by itself: when the state is equal, in any case, or not before it is asked"
    )
    model: str | None = Field(default=None, min_length=1, max_length=200, description="another embedding model")
    dimensions: int | None = Field(default=None, ge=1, le=32_768, description="of that model")
    provider: Literal["fastembed", "http", "litellm"] | None = Field(
        default=None, description="where that model is; its server is CG_EMBEDDING__URL"
    )


@router.post(
    "/projections/{name}/rebuild",
    summary="Rebuild what is derived",
    status_code=202,
    openapi_extra=described(RebuildIn.model_json_schema(), {"promote": "when_equal"}, required=False),
    responses=_BEGUN,
)
async def begin(
    request: Request,
    tenant: AdminTenant,
    name: Annotated[str, Path(max_length=64, description=f"{', '.join(PROJECTIONS)}: a generation is built whole")],
) -> Response:
    """A new generation from the first event on, beside the live one; look at it under `/v1/admin/rebuilds/{id}`."""
    if name not in PROJECTIONS:
        raise UnknownThing("projection", name)
    asked = await read_model(request, RebuildIn, required=False)
    model = None
    if any(value is not None for value in (asked.model, asked.dimensions, asked.provider)):
        model = ModelChoice(asked.model, None, asked.dimensions, asked.provider)
    rebuilds = services_of(request).resources.rebuilds
    rebuild = await rebuilds.start(tenant, _PROMOTIONS[asked.promote], model)
    return await _answer(rebuilds, tenant, rebuild, 202)


@router.get("/rebuilds", summary="List rebuilds", responses={200: shapes.REBUILDS, **answers()})
async def listed(request: Request, tenant: AdminTenant) -> Response:
    """The newest twenty, newest first, without their progress; and which generation is read."""
    table = await services_of(request).resources.generations.read(tenant.name)
    bodies = [rebuild_json(table, rebuild, None) for rebuild in table.rebuilds]
    return json_response({"live_generation": table.live, "rebuilds": bodies})


@router.get(
    "/rebuilds/{rebuild_id}",
    summary="Look at a rebuild",
    responses={200: shapes.REBUILD, **answers(problems.UNKNOWN)},
)
async def get_rebuild(request: Request, tenant: AdminTenant, rebuild_id: RebuildId) -> Response:
    """How far it is; once it is `ready`, how it compares with what is live."""
    rebuilds = services_of(request).resources.rebuilds
    _, rebuild = await rebuilds.get(tenant.name, rebuild_id)
    return await _answer(rebuilds, tenant, rebuild, 200)


@router.post("/rebuilds/{rebuild_id}/promote", summary="Switch to a rebuild", responses=_CHANGED)
async def promote(request: Request, tenant: AdminTenant, rebuild_id: RebuildId) -> Response:
    """What was built becomes what is read, in one step; the generation before it is kept and fed."""
    rebuilds = services_of(request).resources.rebuilds
    return await _answer(rebuilds, tenant, await rebuilds.promote(tenant.name, rebuild_id), 200)


@router.post("/rebuilds/{rebuild_id}/rollback", summary="Go back to what was before", responses=_CHANGED)
async def roll_back(request: Request, tenant: AdminTenant, rebuild_id: RebuildId) -> Response:
    """The generation before it becomes what is read again, in one step and with every event."""
    rebuilds = services_of(request).resources.rebuilds
    return await _answer(rebuilds, tenant, await rebuilds.roll_back(tenant.name, rebuild_id), 200)


@router.delete(
    "/rebuilds/{rebuild_id}",
    summary="Remove what is no longer wanted",
    status_code=202,
    responses={202: shapes.REBUILD, **answers(problems.UNKNOWN, problems.NOT_NOW)},
)
async def drop(request: Request, tenant: AdminTenant, rebuild_id: RebuildId) -> Response:
    """Of a live rebuild the generation before it goes, of any other its own; workers remove it."""
    rebuilds = services_of(request).resources.rebuilds
    return await _answer(rebuilds, tenant, await rebuilds.drop(tenant.name, rebuild_id), 202)


async def _answer(rebuilds: Rebuilds, tenant: Tenant, rebuild: Rebuild, status: int) -> Response:
    table, newest = await rebuilds.get(tenant.name, rebuild.id)
    progress = await rebuilds.progress(tenant, newest) if newest.number in table.fed else None
    body: dict[str, Any] = dict(rebuild_json(table, newest, progress))
    return json_response(body, status)
