"""Tenants and service keys over HTTP.

An `admin` key manages the keys of its own tenant, and never gives the scope `operator`. An `operator` key makes
tenants, sets their quotas, and manages the keys of any tenant. Operator keys come from other operators or from
`context-graph keys create` on a machine that reaches Redis: no request can raise itself to one.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from context_graph.api import problems
from context_graph.api.auth import AdminCaller, Caller, Operator
from context_graph.api.bodies import described, read_model
from context_graph.api.problems import NO_SCOPE, ProblemError, answers
from context_graph.api.rendering import json_response
from context_graph.api.services import services_of
from context_graph.domain.event import TenantId, iso
from context_graph.domain.partition import TENANT_NAME, Tenant
from context_graph.domain.quota import Quotas
from context_graph.errors import AlreadyExists, FieldProblem, InvalidInput, UnknownThing
from context_graph.store.access import OPERATOR, SCOPES, KeyInfo, Scope

router = APIRouter(prefix="/v1/admin", tags=["tenants and keys"])

_Limit = Annotated[int, Field(ge=1, le=2**53)]
_QUOTAS: dict[str, Any] = {"events_per_second": 500}
_TENANT = {"name": "acme", "buckets": 1, "quotas": _QUOTAS}
_KEY = {"id": "9f86d081884c7d65", "tenant": "acme", "name": "bff", "scopes": ["ingest", "read"],
        "created_at": "2026-09-01T09:30:00.000Z", "expires_at": None, "last_used_at": None}  # fmt: skip
_SHOWN_ONCE = {**_KEY, "key": "cg_…"}


class QuotasIn(BaseModel):
    """What a tenant may take; absent: no limit."""

    model_config = ConfigDict(extra="forbid", strict=True)

    events_per_second: _Limit | None = Field(default=None, description="lasting rate, all API processes together")
    burst_events: _Limit | None = Field(default=None, description="events at once; absent: two seconds' worth")
    bytes_per_day: _Limit | None = Field(default=None, description="bytes of events as stored; refills evenly")
    stored_events: _Limit | None = Field(default=None, description="events in the ledger, archived ones included")

    @model_validator(mode="after")
    def _burst_of_a_rate(self) -> Self:
        if self.burst_events is not None and self.events_per_second is None:
            raise ValueError("burst_events needs events_per_second")
        return self

    def quotas(self) -> Quotas:
        """The same as the domain says it."""
        return Quotas(**self.model_dump())


class TenantIn(BaseModel):
    """A tenant to make."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(pattern=f"^{TENANT_NAME.pattern}$", description="lower-case letters, digits, - and _")
    buckets: int = Field(default=1, ge=1, le=1024, description="partitions; fixed from then on")
    quotas: QuotasIn = QuotasIn()


class KeyIn(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=128, description="who uses it, for people")
    scopes: list[Scope] = Field(default=[*SCOPES], min_length=1, max_length=8)
    tenant: str | None = Field(default=None, max_length=63, description="another tenant; only for operators")
    expires_at: AwareDatetime | None = Field(default=None, description="RFC 3339 with an offset; absent: never")


class RotationIn(BaseModel):
    """How to rotate a key."""

    model_config = ConfigDict(extra="forbid", strict=True)

    grace_seconds: int = Field(default=0, ge=0, le=30 * 86_400, description="seconds the old key works on")


def _answered(description: str, example: object) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": example}}}


@router.post(
    "/tenants",
    status_code=201,
    summary="Make a tenant",
    openapi_extra=described(TenantIn.model_json_schema(), _TENANT),
    responses={201: _answered("It is there", _TENANT),
               **answers(problems.INVALID, *problems.BODY, problems.EXISTS)},
)  # fmt: skip
async def create_tenant(request: Request, _: Operator) -> Response:
    """A tenant of its own ledger, graph and index; workers find it by themselves."""
    asked = await read_model(request, TenantIn)
    if not await services_of(request).resources.tenants.create(asked.name, asked.buckets, asked.quotas.quotas()):
        raise AlreadyExists(f"there is a tenant {asked.name!r}; its quotas are changed by PUT …/{asked.name}/quotas")
    return json_response(_tenant_json(Tenant(TenantId(asked.name), asked.buckets, asked.quotas.quotas())), 201)


@router.get(
    "/tenants", summary="List tenants", responses={200: _answered("By name", {"tenants": [_TENANT]}), **answers()}
)
async def list_tenants(request: Request, caller: AdminCaller) -> Response:
    """Every tenant for an operator; its own for an admin."""
    found = await services_of(request).resources.tenants.all() if caller.is_operator else [caller.tenant]
    return json_response({"tenants": [_tenant_json(tenant) for tenant in found]})


@router.put(
    "/tenants/{name}/quotas",
    summary="Set a tenant's quotas",
    openapi_extra=described(QuotasIn.model_json_schema(), _QUOTAS),
    responses={200: _answered("They hold within a second", _TENANT),
               **answers(problems.INVALID, *problems.BODY, problems.UNKNOWN)},
)  # fmt: skip
async def set_quotas(request: Request, name: str, _: Operator) -> Response:
    """Replaces all of them: what is absent is unlimited from now on."""
    asked = await read_model(request, QuotasIn)
    return json_response(
        _tenant_json(await services_of(request).resources.tenants.set_quotas(TenantId(name), asked.quotas()))
    )


@router.post(
    "/keys",
    status_code=201,
    summary="Make a service key",
    openapi_extra=described(KeyIn.model_json_schema(), {"name": "bff", "scopes": ["ingest", "read"]}),
    responses={201: _answered("The key, shown only now", _SHOWN_ONCE),
               **answers(problems.INVALID, *problems.BODY, problems.UNKNOWN)},
)  # fmt: skip
async def create_key(request: Request, caller: AdminCaller) -> Response:
    """A key of the caller's tenant; of any tenant for an operator. Only operators give the scope `operator`."""
    asked = await read_model(request, KeyIn)
    resources = services_of(request).resources
    if not caller.is_operator:
        _only_own(caller, asked)
    tenant = TenantId(asked.tenant or caller.tenant.name)
    if await resources.tenants.get(tenant) is None:
        raise UnknownThing("tenant", tenant)
    end = None if asked.expires_at is None else int(asked.expires_at.timestamp() * 1000)
    if end is not None and end <= resources.api_keys.now_ms():
        raise InvalidInput([FieldProblem("/expires_at", "it is in the past", "send a later time, or none", "past")])
    made = await resources.api_keys.make(tenant, name=asked.name, scopes=asked.scopes, expires_at=end)
    return json_response({**_key_json(made.info), "key": made.key}, 201)


@router.get(
    "/keys",
    summary="List service keys",
    responses={200: _answered("Never the keys themselves", {"keys": [_KEY]}), **answers(problems.INVALID)},
)
async def list_keys(
    request: Request,
    caller: AdminCaller,
    tenant: Annotated[str | None, Query(max_length=63, description="for operators; absent: all tenants")] = None,
) -> Response:
    """The keys of the caller's tenant, of all tenants for an operator; `last_used_at` to the minute."""
    wanted = TenantId(tenant) if tenant is not None else None
    if not caller.is_operator:
        if wanted not in (None, caller.tenant.name):
            raise ProblemError(NO_SCOPE, "the keys of another tenant are for the scope 'operator'")
        wanted = caller.tenant.name
    found = await services_of(request).resources.api_keys.listed(wanted)
    return json_response({"keys": [_key_json(info) for info in found]})


@router.post(
    "/keys/{key_id}/rotate",
    status_code=201,
    summary="Replace a service key",
    openapi_extra=described(RotationIn.model_json_schema(), {"grace_seconds": 3600}),
    responses={201: _answered("The new key, shown only now", _SHOWN_ONCE),
               **answers(problems.INVALID, *problems.BODY, problems.UNKNOWN)},
)  # fmt: skip
async def rotate_key(request: Request, key_id: str, caller: AdminCaller) -> Response:
    """The new key works at once, with the old one's name, scopes and end; the old one for `grace_seconds` more."""
    asked = await read_model(request, RotationIn)
    resources = services_of(request).resources
    await _reachable(request, caller, key_id)
    made = await resources.api_keys.rotate(key_id, _reach(caller), grace_ms=asked.grace_seconds * 1000)
    return json_response({**_key_json(made.info), "key": made.key}, 201)


@router.delete(
    "/keys/{key_id}",
    summary="Revoke a service key",
    responses={200: _answered("It works nowhere any more after one second", _KEY), **answers(problems.UNKNOWN)},
)
async def revoke_key(request: Request, key_id: str, caller: AdminCaller) -> Response:
    """Every API process refuses it within one second."""
    await _reachable(request, caller, key_id)
    return json_response(_key_json(await services_of(request).resources.api_keys.revoke(key_id, _reach(caller))))


def _only_own(caller: Caller, asked: KeyIn) -> None:
    if OPERATOR in asked.scopes:
        raise ProblemError(NO_SCOPE, "only an operator gives the scope 'operator'")
    if asked.tenant not in (None, caller.tenant.name):
        raise ProblemError(NO_SCOPE, "keys of another tenant are for the scope 'operator'")


def _reach(caller: Caller) -> TenantId | None:
    """Whose keys the caller may touch; None: everybody's."""
    return None if caller.is_operator else caller.tenant.name


async def _reachable(request: Request, caller: Caller, key_id: str) -> None:
    """An operator's key, even one of the caller's own tenant, is not an admin's to rotate (and learn) or end."""
    if caller.is_operator:
        return
    for info in await services_of(request).resources.api_keys.listed(caller.tenant.name):
        if info.id == key_id and OPERATOR in info.scopes:
            raise ProblemError(NO_SCOPE, "an operator's key is for operators")


def _tenant_json(tenant: Tenant) -> dict[str, Any]:
    limits = {name: value for name, value in asdict(tenant.quotas).items() if value is not None}
    return {"name": tenant.name, "buckets": tenant.buckets, "quotas": limits}


def _key_json(info: KeyInfo) -> dict[str, Any]:
    times = {name: getattr(info, name) for name in ("created_at", "expires_at", "last_used_at")}
    body = {"id": info.id, "tenant": info.tenant, "name": info.name, "scopes": info.scopes}
    return body | {name: None if value is None else iso(value) for name, value in times.items()}
