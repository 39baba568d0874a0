"""Forgetting over HTTP: the tenant's policy, pins, recall, and runs of consolidation that somebody asks for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal, Self
from uuid import uuid4

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from context_graph.api import problems
from context_graph.api.auth import AdminTenant, IngestTenant, ReadTenant
from context_graph.api.bodies import described, read_model
from context_graph.api.paths import ANY_ID
from context_graph.api.problems import answers
from context_graph.api.rendering import json_response
from context_graph.api.services import services_of
from context_graph.bootstrap import Resources
from context_graph.delivery.recalling import Recalled
from context_graph.domain.event import iso
from context_graph.domain.partition import Tenant
from context_graph.domain.retention import TIERS, ForgettingPolicy
from context_graph.errors import UnknownThing
from context_graph.store.retention import Policies, RetentionStore
from context_graph.store.runs import Run, Runs

router = APIRouter(prefix="/v1", tags=["forgetting"])

_DEFAULT = ForgettingPolicy()
_Days = Annotated[float, Field(ge=0, le=36_500)]


class PolicyIn(BaseModel):
    """What a tenant forgets. What is absent has its default, which forgets nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, title="ForgettingPolicy")

    enabled: bool = Field(default=_DEFAULT.enabled, description="whether anything is forgotten")
    hot_days: _Days = Field(default=_DEFAULT.hot_days, description="age in days below which everything is kept")
    warm_days: _Days = Field(default=_DEFAULT.warm_days, description="age in days below which an event is warm")
    forget_after_days: _Days = Field(
        default=_DEFAULT.forget_after_days, description="age in days from which a cold event may be forgotten"
    )
    keep_value: float = Field(
        default=_DEFAULT.keep_value, ge=0, le=1,
        description="value from which an event is kept: 0.4 of recency, 0.4 of importance, 0.2 of use",
    )  # fmt: skip
    protect_hops: int = Field(
        default=_DEFAULT.protect_hops, ge=0, le=10,
        description="steps of causes or effects to a pinned or hot event within which an event is kept",
    )  # fmt: skip
    max_events_per_run: int = Field(
        default=_DEFAULT.max_events_per_run, ge=1, le=1_000_000, description="events that a pass may forget"
    )
    keep_share: float = Field(
        default=_DEFAULT.keep_share, ge=0, le=1,
        description="of a forgotten episode, the share of its events that stays: those that say most",
    )  # fmt: skip
    keep_most: int = Field(
        default=_DEFAULT.keep_most, ge=0, le=100_000_000,
        description="events of a partition that may stay so; when there would be more, the share falls",
    )  # fmt: skip
    keep_summaries: int = Field(
        default=_DEFAULT.keep_summaries, ge=0, le=100_000_000,
        description="summaries of forgotten sessions that are found in a partition; of more, the least valuable leave",
    )  # fmt: skip

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.hot_days <= self.warm_days <= self.forget_after_days:
            raise ValueError("hot_days, warm_days and forget_after_days must not fall")
        return self


class RunIn(BaseModel):
    """What to do now."""

    model_config = ConfigDict(extra="forbid", strict=True, title="ConsolidationRun")

    kind: Literal["all", "summaries", "forgetting"] = Field(default="all")
    dry_run: bool = Field(default=False, description="only say what would be forgotten, also by a policy that is off")


class RecallIn(BaseModel):
    """What to bring back."""

    model_config = ConfigDict(extra="forbid", strict=True, title="Recall")

    event_ids: list[Annotated[str, Field(min_length=1, max_length=128)]] = Field(min_length=1, max_length=1000)


def _answered(description: str, example: object) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": example}}}


_POLICY = {**asdict(_DEFAULT), "enabled": True, "version": 1}
_STATE = {"policy": _POLICY, "events": {"hot": 120, "warm": 800, "cold": 40, "due": 0, "forgotten": 5210}}
_RUN = {"id": "run-1", "kind": "all", "dry_run": False, "state": "waiting", "asked_at": "2026-09-01T09:30:00.000Z",
        "started_at": None, "finished_at": None, "done": 0, "partitions": 0, "outcome": None, "plan": None,
        "problem": None}  # fmt: skip
_RECALLED = {"recalled": [{"session_id": "chat-17", "events": 8, "position": "0-1788255012345-0"}]}
_PIN = {"event_id": "msg-1", "pinned": True, "position": "0-1788255012345-0"}
_WRONG = (problems.INVALID, *problems.BODY)


@router.get(
    "/admin/forgetting",
    summary="Read the policy of forgetting",
    responses={200: _answered("The policy, and events by tier as the last passes found them", _STATE), **answers()},
)
async def get_policy(request: Request, tenant: AdminTenant) -> Response:
    """`version` 0: nobody has set one, and nothing is forgotten."""
    resources = services_of(request).resources
    policy = await Policies(resources.ledger_redis).get(tenant.name)
    return json_response({"policy": asdict(policy), "events": await _events_by_tier(resources, tenant)})


@router.put(
    "/admin/forgetting",
    summary="Set the policy of forgetting",
    openapi_extra=described(PolicyIn.model_json_schema(), {"enabled": True, "forget_after_days": 90}),
    responses={200: _answered("In force from the next pass on", {"policy": _POLICY}), **answers(*_WRONG)},
)
async def put_policy(request: Request, tenant: AdminTenant) -> Response:
    """Replaces all of it. What is forgotten leaves graph and index, never the ledger; a dry run says what would go."""
    asked = await read_model(request, PolicyIn)
    resources = services_of(request).resources
    policy = await Policies(resources.ledger_redis).put(tenant.name, ForgettingPolicy(**asked.model_dump()))
    return json_response({"policy": asdict(policy)})


@router.post(
    "/admin/consolidation/runs",
    status_code=202,
    summary="Consolidate now",
    openapi_extra=described(RunIn.model_json_schema(), {"kind": "forgetting", "dry_run": True}, required=False),
    responses={202: _answered("A worker does it as soon as it can", _RUN), **answers(*_WRONG)},
)
async def ask_run(request: Request, tenant: AdminTenant) -> Response:
    """A pass over all of the tenant: summaries, forgetting, or both."""
    asked = await read_model(request, RunIn, required=False)
    services = services_of(request)
    run = Run(id=f"run-{uuid4().hex}", kind=asked.kind, dry_run=asked.dry_run, asked_at=services.recalling.now_ms())
    await Runs(services.resources.ledger_redis).ask(tenant.name, run)
    return json_response(_run_json(run), 202)


@router.get(
    "/admin/consolidation/runs",
    summary="List runs",
    responses={200: _answered("The newest first", {"runs": [_RUN]}), **answers()},
)
async def list_runs(request: Request, tenant: AdminTenant) -> Response:
    """Those that wait or run, and the last hundred that are over."""
    runs = await Runs(services_of(request).resources.ledger_redis).all(tenant.name)
    return json_response({"runs": [_run_json(run) for run in runs]})


@router.get(
    "/admin/consolidation/runs/{run_id}",
    summary="Look at a run",
    responses={200: _answered("As far as it is", _RUN), **answers(problems.UNKNOWN)},
)
async def get_run(
    request: Request, tenant: AdminTenant, run_id: Annotated[str, Path(min_length=1, max_length=128)]
) -> Response:
    """`done` of `partitions`; `outcome` in words, `plan` of a dry run."""
    run = await Runs(services_of(request).resources.ledger_redis).get(tenant.name, run_id)
    if run is None:
        raise UnknownThing("run", run_id)
    return json_response(_run_json(run))


@router.post(
    f"/events/{{event_id:{ANY_ID}}}/pin",
    summary="Pin an event",
    responses={200: _answered("It is kept, with its episode and what led to it", _PIN), **answers(problems.UNKNOWN)},
)
async def pin(request: Request, tenant: IngestTenant, event_id: str) -> Response:
    """It is not forgotten while it is pinned; one that is forgotten comes back. An event in the ledger."""
    position = await services_of(request).recalling.pin(tenant, event_id, pinned=True)
    return json_response({"event_id": event_id, "pinned": True, "position": str(position)})


@router.delete(
    f"/events/{{event_id:{ANY_ID}}}/pin",
    summary="Unpin an event",
    responses={200: _answered("It ages again", {**_PIN, "pinned": False}), **answers(problems.UNKNOWN)},
)
async def unpin(request: Request, tenant: IngestTenant, event_id: str) -> Response:
    """Nothing else changes."""
    position = await services_of(request).recalling.pin(tenant, event_id, pinned=False)
    return json_response({"event_id": event_id, "pinned": False, "position": str(position)})


@router.post(
    f"/sessions/{{session_id:{ANY_ID}}}/recall",
    summary="Recall a session",
    responses={200: _answered("What comes back, from the ledger", _RECALLED), **answers(problems.UNKNOWN)},
)
async def recall_session(
    request: Request, tenant: ReadTenant, session_id: Annotated[str, Path(min_length=1, max_length=256)]
) -> Response:
    """Everything that was forgotten of it. Wait for `position` (`min_position`) to see it; it counts as new."""
    return _recalled([await services_of(request).recalling.recall_session(tenant, session_id)])


@router.post(
    "/recall",
    summary="Recall events",
    openapi_extra=described(RecallIn.model_json_schema(), {"event_ids": ["msg-1"]}),
    responses={200: _answered("What comes back, by session", _RECALLED), **answers(*_WRONG, problems.UNKNOWN)},
)
async def recall_events(request: Request, tenant: ReadTenant) -> Response:
    """Those of these events that are forgotten: what a summary cites can be brought back by its `event_ids`."""
    asked = await read_model(request, RecallIn)
    return _recalled(await services_of(request).recalling.recall_events(tenant, asked.event_ids))


def _recalled(found: list[Recalled]) -> Response:
    bodies = [
        {"session_id": r.session_id, "events": r.events, "position": None if r.position is None else str(r.position)}
        for r in found
    ]
    return json_response({"recalled": bodies})


def _run_json(run: Run) -> dict[str, Any]:
    times = {name: getattr(run, name) for name in ("asked_at", "started_at", "finished_at")}
    return run.as_json() | {name: None if ms is None else iso(ms) for name, ms in times.items()}


async def _events_by_tier(resources: Resources, tenant: Tenant) -> dict[str, int]:
    store = RetentionStore(resources.derived_redis, resources.graph, resources.ledger_redis)
    counted = [await store.told(partition) for partition in tenant.partitions]
    return {name: sum(numbers.get(name, 0) for numbers in counted) for name in (*TIERS, "forgotten")}
