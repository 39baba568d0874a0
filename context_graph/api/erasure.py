"""Erasure over HTTP: forget a person or a session, and read the certificate."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from context_graph.api import problems
from context_graph.api.auth import AdminTenant
from context_graph.api.paths import ANY_ID
from context_graph.api.problems import answers
from context_graph.api.rendering import json_response
from context_graph.api.services import services_of
from context_graph.domain.erasure import Erasure, Subject
from context_graph.domain.event import iso

router = APIRouter(prefix="/v1", tags=["erasure"])

_EXAMPLE = {
    "id": "erasure-0199a6f2-7c1b-7e61-9d3f-0c55a8f0a1b2",
    "kind": "user",
    "state": "done",
    "requested_at": "2026-10-01T09:30:00.000Z",
    "finished_at": "2026-10-01T09:30:02.000Z",
    "keys_destroyed": [{"partition": "acme.0", "fingerprint": "9f2c1ab04d77e310"}],
    "tombstones": ["0-1790847000000-0"],
    "positions": {"0": {"first": "0-1790840000000-0", "last": "0-1790846000000-3"}},
    "scanned": {"events": 42, "sessions": 3, "dead_letters": 0, "generations": 1, "archived_key_files": 4},
    "removed": {"documents": 42, "vectors": 42, "attributes": 120, "entities": 7, "mentions": 31, "archived_keys": 2},
    "left_in_clear": 0,
    "files": {"ledger": "append-only file written anew"},
}
_CERTIFICATE = {
    "description": "Done: the certificate",
    "content": {"application/json": {"schema": {"type": "object", "title": "Erasure"}, "example": _EXAMPLE}},
}
_RUNNING = {**_CERTIFICATE, "description": "The keys are destroyed; workers still remove what was derived"}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _CERTIFICATE,
    202: _RUNNING,
    **answers(problems.INVALID, problems.UNERASABLE),
}
WaitMs = Annotated[int, Query(ge=0, le=120_000, description="longest wait for the certificate, milliseconds")]


@router.delete(f"/users/{{user_id:{ANY_ID}}}", summary="Forget a person", responses=_ANSWERS)
async def forget_user(
    request: Request,
    tenant: AdminTenant,
    user_id: Annotated[str, Path(min_length=1, max_length=128)],
    wait_ms: WaitMs = 30_000,
) -> Response:
    """What was ever said about the person becomes unreadable for good, and all that was derived from it goes."""
    return await _forget(request, tenant, Subject("user", user_id), wait_ms)


@router.delete(f"/sessions/{{session_id:{ANY_ID}}}", summary="Forget a session", responses=_ANSWERS)
async def forget_session(
    request: Request,
    tenant: AdminTenant,
    session_id: Annotated[str, Path(min_length=1, max_length=256)],
    wait_ms: WaitMs = 30_000,
) -> Response:
    """The same for everything said in a session, about whomever."""
    return await _forget(request, tenant, Subject("session", session_id), wait_ms)


@router.get(
    "/erasures/{erasure_id}", summary="Read a certificate", responses={200: _CERTIFICATE, **answers(problems.UNKNOWN)}
)
async def get_erasure(request: Request, tenant: AdminTenant, erasure_id: str) -> Response:
    """An erasure as it stands: `state` is running or done."""
    return json_response(erasure_json(await services_of(request).forgetting.certificate(tenant, erasure_id)))


async def _forget(request: Request, tenant: AdminTenant, subject: Subject, wait_ms: int) -> Response:
    erasure = await services_of(request).forgetting.forget(tenant, subject, wait_ms)
    return json_response(erasure_json(erasure), 200 if erasure.state == "done" else 202)


def erasure_json(erasure: Erasure) -> dict[str, Any]:
    """A certificate: what was destroyed, scanned and removed; nobody's name."""
    scanned: Counter[str] = Counter()
    removed: Counter[str] = Counter(erasure.hidden)
    for removal in erasure.removals:
        scanned.update(removal.scanned)
        removed.update(removal.removed)
    certificate: dict[str, Any] = {
        "id": erasure.id,
        "kind": erasure.kind,
        "state": erasure.state,
        "requested_at": iso(erasure.requested_at),
        "finished_at": None if erasure.finished_at is None else iso(erasure.finished_at),
        "keys_destroyed": [
            {"partition": strike.partition, "fingerprint": strike.key_fingerprint}
            for strike in erasure.strikes
            if strike.key_fingerprint is not None
        ],
        "tombstones": [strike.position for strike in erasure.strikes if strike.position is not None],
        "positions": {
            removal.first.partition("-")[0]: {"first": removal.first, "last": removal.last}
            for removal in erasure.removals
            if removal.first is not None
        },
        "scanned": dict(scanned),
        "removed": dict(removed),
        "left_in_clear": sum(removal.left_in_clear for removal in erasure.removals),
        "files": dict(erasure.files),
    }
    return certificate if erasure.waits_for is None else certificate | {"waits_for": erasure.waits_for}
