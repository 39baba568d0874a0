"""The one table of errors: how each becomes an RFC 9457 problem document.

`type` is stable and resolves here (`GET /problems/{code}`); `errors` names each wrong field (RFC 6901 pointer) with
what is wrong and what to do. Nothing else in the API builds an error body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from context_graph.errors import (
    ContextGraphError,
    EventConflict,
    FieldProblem,
    InvalidInput,
    ModelUnavailable,
    StoreUnavailable,
    UnknownThing,
)
from context_graph.ingest.validation import problems_of

MEDIA_TYPE = "application/problem+json"
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the table: the problem's code, status, title, and what a client should do."""

    code: str
    status: int
    title: str
    advice: str


INVALID = Kind("invalid-input", 422, "The input is not valid", "Change the fields named in `errors`, then send again.")
TOO_LARGE = Kind("too-large", 413, "The input is too large", "Send less at once, or raise the limit that is named.")
MALFORMED = Kind("malformed-json", 400, "The body is not JSON", "Send a JSON document in UTF-8.")
CONFLICT = Kind("event-conflict", 409, "The event id is taken", "Use a new event_id, or send exactly the same content.")
UNKNOWN = Kind("not-found", 404, "There is no such thing", "Check the id; it may belong to another tenant.")
NO_ROUTE = Kind("no-route", 404, "There is no such path", "See /docs or /openapi.json for the paths there are.")
NO_KEY = Kind("missing-key", 401, "No service key was sent", "Send the key in the header that `detail` names.")
BAD_KEY = Kind("invalid-key", 401, "The service key is not valid", "Check the key; it may have been revoked.")
NO_SCOPE = Kind("missing-scope", 403, "The key lacks a scope", "Use a key with the scope that `detail` names.")
METHOD = Kind("method-not-allowed", 405, "The method is not allowed here", "Use a method named in the Allow header.")
STORE = Kind("store-unavailable", 503, "The store is not available", "Send the same again after Retry-After seconds.")
MODEL = Kind("model-unavailable", 503, "A model is not available", "Send the same again after Retry-After seconds.")
TIMEOUT = Kind("wait-timeout", 504, "The stages did not get there in time", "Wait longer, or look at /health/ready.")
INTERNAL = Kind("internal", 500, "A defect of the service", "Report it with the request id; the log has the details.")

KINDS: tuple[Kind, ...] = (
    INVALID, TOO_LARGE, MALFORMED, CONFLICT, UNKNOWN, NO_ROUTE, NO_KEY, BAD_KEY, NO_SCOPE, METHOD,
    STORE, MODEL, TIMEOUT, INTERNAL,
)  # fmt: skip
_BY_HTTP_STATUS = {404: UNKNOWN, 405: METHOD, 413: TOO_LARGE, 422: INVALID, 400: MALFORMED}


class ProblemError(Exception):
    """Raised inside the API for what no use case knows (authentication, malformed bodies)."""

    def __init__(self, kind: Kind, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})


def document(kind: Kind, detail: str, errors: list[FieldProblem] | None = None, **extra: Any) -> dict[str, Any]:
    """A problem document as a dictionary."""
    body: dict[str, Any] = {
        "type": f"/problems/{kind.code}",
        "code": kind.code,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "remedy": kind.advice,
    }
    if errors:
        body["errors"] = [
            {"pointer": e.pointer, "detail": e.detail, "remedy": e.remedy, "code": e.code} for e in errors
        ]
    return body | extra


def document_of(error: ContextGraphError) -> dict[str, Any]:
    """The problem document of one of our errors."""
    match error:
        case InvalidInput(problems=problems, too_large=too_large):
            return document(TOO_LARGE if too_large else INVALID, str(error), problems)
        case EventConflict(event_id=event_id, position=position):
            return document(CONFLICT, str(error), event_id=event_id, position=position)
        case UnknownThing():
            return document(UNKNOWN, str(error))
        case StoreUnavailable():
            return document(STORE, str(error))
        case ModelUnavailable():
            return document(MODEL, str(error))
        case _:
            return document(INTERNAL, str(error))


def _response(body: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    sent = dict(headers or {})
    if body["status"] == 503:
        sent.setdefault("Retry-After", "2")
    return Response(orjson.dumps(body), status_code=body["status"], media_type=MEDIA_TYPE, headers=sent)


def install(app: FastAPI) -> None:
    """Every error of the app becomes a problem document."""

    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, ContextGraphError)
        body = document_of(error)
        if body["status"] >= 500:
            log.error("request_failed", reason=str(error), exc_info=error)
        return _response(body)

    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return _response(document(error.kind, error.detail), error.headers)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        details = list(error.errors())
        if any(item["type"] == "json_invalid" for item in details):
            item = next(item for item in details if item["type"] == "json_invalid")
            reason = item.get("ctx", {}).get("error", item["msg"])
            return _response(document(MALFORMED, f"the body is not JSON: {reason} at character {item['loc'][-1]}"))
        stripped = [item | {"loc": tuple(item["loc"])[1:]} for item in details]
        problems = problems_of(stripped)
        return _response(document(INVALID, "; ".join(f"{p.pointer or '/'}: {p.detail}" for p in problems), problems))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = _BY_HTTP_STATUS.get(error.status_code, INTERNAL)
        detail = f"{request.method} {request.url.path}: {error.detail}"
        if kind is UNKNOWN:
            kind, detail = NO_ROUTE, f"nothing answers {request.method} {request.url.path}"
        return _response(document(kind, detail), error.headers)

    async def defect(request: Request, error: Exception) -> Response:
        log.error("defect", method=request.method, path=request.url.path, exc_info=error)
        return _response(document(INTERNAL, f"{type(error).__name__} while answering; the log has the details"))

    app.add_exception_handler(ContextGraphError, ours)
    app.add_exception_handler(ProblemError, problem)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, defect)


def answers(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for these kinds: one entry a status."""
    documented: dict[int | str, dict[str, Any]] = {}
    for kind in (*kinds, NO_KEY, NO_SCOPE, STORE):
        entry = documented.setdefault(
            kind.status, {"description": kind.title, "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
        )
        if kind.title not in entry["description"]:
            entry["description"] += f"; {kind.title.lower()}"
    return documented


_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "required": ["type", "code", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "code": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "remedy": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail", "remedy", "code"],
                "properties": {name: {"type": "string"} for name in ("pointer", "detail", "remedy", "code")},
            },
        },
    },
}
