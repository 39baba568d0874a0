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
from starlette.routing import Match

from context_graph.api.request_ids import id_headers, request_id_of
from context_graph.errors import (
    AlreadyExists,
    ArchiveDamaged,
    ContextGraphError,
    Erased,
    ErasureUnavailable,
    EventConflict,
    FieldProblem,
    InvalidInput,
    LedgerBehind,
    ModelMissing,
    ModelUnavailable,
    NotNow,
    NotReplicated,
    Overloaded,
    QuotaExceeded,
    SchemaConflict,
    StoreUnavailable,
    TemporaryError,
    UnknownThing,
    VaultLocked,
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
MALFORMED = Kind(
    "malformed-json",
    400,
    "The body is not JSON",
    "Send a JSON document in UTF-8; numbers beyond the range of a double and nesting over 1,000 levels are not read.",
)
CONFLICT = Kind("event-conflict", 409, "The event id is taken", "Use a new event_id, or send exactly the same content.")
BROKEN_BODY = Kind(
    "broken-body", 400, "The body breaks",
    "What was before the line is kept: mend it and send the same body again, nothing is kept twice.",
)  # fmt: skip
ENCODING = Kind("unsupported-encoding", 415, "The body's encoding is not known", "Send gzip, zstd, or plain.")
KEY_RUNNING = Kind("idempotency-key-in-use", 409, "The first request is running", "Send the same after Retry-After.")
KEY_REUSED = Kind("idempotency-key-reused", 422, "The key was used for another body", "Use a new Idempotency-Key.")
UNKNOWN = Kind("not-found", 404, "There is no such thing", "Check the id; it may belong to another tenant.")
NO_ROUTE = Kind("no-route", 404, "There is no such path", "See /docs or /openapi.json for the paths there are.")
NO_KEY = Kind("missing-key", 401, "No service key was sent", "Send the key in the header that `detail` names.")
BAD_KEY = Kind("invalid-key", 401, "The service key is not valid", "Check the key; it may have been revoked.")
NO_SCOPE = Kind("missing-scope", 403, "The key lacks a scope", "Use a key with the scope that `detail` names.")
METHOD = Kind("method-not-allowed", 405, "The method is not allowed here", "Use a method named in the Allow header.")
SCHEMA_CONFLICT = Kind(
    "schema-conflict", 409, "That version of the schema is taken", "A stored version never changes: use the next one."
)
USER_ERASED = Kind("user-erased", 410, "The user was erased", "Do not send it again: nothing is kept about this user.")
SESSION_ERASED = Kind("session-erased", 410, "The session was erased", "Use another session_id for a new session.")
RECEIPT_ERASED = Kind("receipt-erased", 410, "The receipt was erased", "Somebody it told about was: send no feedback.")
UNERASABLE = Kind("erasure-unavailable", 409, "Nothing can be erased here", "Set what `detail` names, then repeat.")
LOCKED = Kind("vault-locked", 503, "Sealed events cannot be opened", "Set the master key that `detail` names.")
EXISTS = Kind("already-exists", 409, "It exists already", "Use another name, or change what is there.")
NOT_NOW = Kind("not-now", 409, "It is not possible now", "Look at the state that `detail` names, and what it asks for.")
QUOTA = Kind("quota-exceeded", 429, "The tenant's quota is used up", "Nothing was kept: send again after Retry-After.")
OVERLOADED = Kind("overloaded", 503, "The service is overloaded", "Nothing was kept: send it again after Retry-After.")
NOT_REPLICATED = Kind(
    "not-replicated", 503, "Too few replicas hold it yet",
    "It may be in the ledger: send exactly the same again after Retry-After, it is never kept twice.",
)  # fmt: skip
BEHIND = Kind(
    "ledger-behind", 503, "The archive holds events that the ledger lost",
    "Nothing was kept: stop what writes, run `context-graph archive restore`, start again and send it again.",
)  # fmt: skip
STORE = Kind("store-unavailable", 503, "The store is not available", "Send the same again after Retry-After seconds.")
MODEL = Kind("model-unavailable", 503, "A model is not available", "Send the same again after Retry-After seconds.")
MODEL_MISSING = Kind(
    "model-missing", 503, "The live generation's model is not here", "Bring back the model that `detail` names."
)  # fmt: skip
ARCHIVE = Kind(
    "archive-damaged", 503, "The archive is damaged",
    "Run `context-graph archive verify`; bring back the file that `detail` names.",
)  # fmt: skip
INTERNAL = Kind("internal", 500, "A defect of the service", "Report it with the request id; the log has the details.")

BODY = (TOO_LARGE, MALFORMED, ENCODING)
"""What can be wrong with any body of JSON."""

KINDS: tuple[Kind, ...] = (
    INVALID, TOO_LARGE, MALFORMED, BROKEN_BODY, ENCODING, CONFLICT, KEY_RUNNING, KEY_REUSED, UNKNOWN,
    NO_ROUTE, NO_KEY, BAD_KEY, NO_SCOPE, METHOD,
    SCHEMA_CONFLICT, EXISTS, QUOTA, OVERLOADED, NOT_REPLICATED, BEHIND, STORE, MODEL, MODEL_MISSING, ARCHIVE, INTERNAL,
    NOT_NOW, USER_ERASED, SESSION_ERASED, RECEIPT_ERASED, UNERASABLE, LOCKED,
)  # fmt: skip
REFUSED = (QUOTA, OVERLOADED, NOT_REPLICATED, BEHIND)
"""What appending can be answered with beside the rest."""
_BY_HTTP_STATUS = {405: METHOD, 413: TOO_LARGE, 422: INVALID, 400: MALFORMED}


class ProblemError(Exception):
    """Raised inside the API for what no use case knows (authentication, malformed bodies)."""

    def __init__(
        self, kind: Kind, detail: str, headers: Mapping[str, str] | None = None, extra: Mapping[str, Any] | None = None
    ) -> None:
        """`extra`: further members of the document."""
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


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


_OF_TYPE: tuple[tuple[type[ContextGraphError], Kind], ...] = (  # the first that fits, so kinds before their kin
    (UnknownThing, UNKNOWN),
    (AlreadyExists, EXISTS),
    (NotNow, NOT_NOW),
    (ModelMissing, MODEL_MISSING),
    (ErasureUnavailable, UNERASABLE),
    (VaultLocked, LOCKED),
    (SchemaConflict, SCHEMA_CONFLICT),
    (Overloaded, OVERLOADED),
    (NotReplicated, NOT_REPLICATED),
    (LedgerBehind, BEHIND),
    (StoreUnavailable, STORE),
    (ModelUnavailable, MODEL),
    (ArchiveDamaged, ARCHIVE),
)


_ERASED: Mapping[str, Kind] = {"user": USER_ERASED, "session": SESSION_ERASED, "receipt": RECEIPT_ERASED}


def document_of(error: ContextGraphError) -> dict[str, Any]:
    """The problem document of one of our errors."""
    match error:
        case InvalidInput(problems=problems, too_large=too_large):
            return document(TOO_LARGE if too_large else INVALID, str(error), problems)
        case EventConflict(event_id=event_id, position=position):
            return document(CONFLICT, str(error), event_id=event_id, position=position)
        case Erased(kind=subject):
            return document(_ERASED[subject], str(error))
        case QuotaExceeded(quota=quota):
            return document(QUOTA, str(error), quota=quota)
        case _:
            kind = next((kind for of, kind in _OF_TYPE if isinstance(error, of)), INTERNAL)
            return document(kind, str(error))


def _response(request: Request, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    sent = dict(headers or {})
    request_id = request_id_of(request.scope)
    if request_id is not None:
        body = body | {"request_id": request_id}
    if body["status"] == 503:
        sent.setdefault("Retry-After", "2")
    return Response(orjson.dumps(body), status_code=body["status"], media_type=MEDIA_TYPE, headers=sent)


def install(app: FastAPI) -> None:
    """Every error of the app becomes a problem document."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, ContextGraphError)
        body = document_of(error)
        if isinstance(error, Overloaded | QuotaExceeded):
            request.app.state.services.metrics.refused.labels(body["code"]).inc()
        elif body["status"] >= 500:
            log.error("request_failed", reason=str(error), exc_info=error)
        retry_after = error.retry_after if isinstance(error, TemporaryError) else 0
        headers = {"Retry-After": str(retry_after)} if retry_after else None
        return _response(request, body, headers)

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return _response(request, document(error.kind, error.detail, **error.extra), error.headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        details = list(error.errors())
        if any(item["type"] == "json_invalid" for item in details):
            item = next(item for item in details if item["type"] == "json_invalid")
            reason = item.get("ctx", {}).get("error", item["msg"])
            detail = f"the body is not JSON: {reason} at character {item['loc'][-1]}"
            return _response(request, document(MALFORMED, detail))
        stripped = [item | {"loc": tuple(item["loc"])[1:]} for item in details]
        problems = problems_of(stripped)
        detail = "; ".join(f"{p.pointer or '/'}: {p.detail}" for p in problems)
        return _response(request, document(INVALID, detail, problems))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _of_router(request, error)

    async def defect(request: Request, error: Exception) -> Response:
        log.error("defect", method=request.method, path=request.url.path, exc_info=error)
        body = document(INTERNAL, f"{type(error).__name__} while answering; the log has the details")
        return _response(request, body, id_headers(request.scope))

    app.add_exception_handler(ContextGraphError, ours)
    app.add_exception_handler(ProblemError, problem)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, defect)


def _of_router(request: Request, error: HTTPException) -> Response:
    """What the framework itself refuses. OPTIONS of a path that exists is answered with its methods."""
    headers = dict(error.headers or {})
    if error.status_code == METHOD.status:
        headers["Allow"] = ", ".join(_allowed(request))
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    if error.status_code == NO_ROUTE.status:
        detail = f"nothing answers {request.method} {request.url.path}"
        return _response(request, document(NO_ROUTE, detail), headers)
    kind = _BY_HTTP_STATUS.get(error.status_code, INTERNAL)
    return _response(request, document(kind, f"{request.method} {request.url.path}: {error.detail}"), headers)


def _allowed(request: Request) -> list[str]:
    """The methods that some route has for this path. The router's own header names those of the first route alone."""
    scope = dict(request.scope)
    found = {
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches(scope | {"method": method})[0] is Match.FULL for route in request.app.routes)
    }
    return sorted(found | ({"HEAD"} if "GET" in found else set()) | {"OPTIONS"})


def answers(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for a route that needs a key: these kinds, and what every such route may answer."""
    return documented(*kinds, NO_KEY, NO_SCOPE, STORE)


def documented(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for these kinds alone: one entry a status."""
    entries: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        entry = entries.setdefault(
            kind.status,
            {"description": kind.title, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}},
        )
        if kind.title not in entry["description"]:
            entry["description"] += f"; {kind.title.lower()}"
    return entries


PROBLEM_SCHEMA: dict[str, Any] = {
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
        "request_id": {"type": "string", "description": "the X-Request-Id of the answer"},
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
