"""Importing NDJSON over HTTP: a body of any length, read as fast as the ledger takes it.

The answer is one summary, or, when asked for `application/x-ndjson`, a line about once a second while it goes on with
the summary as the last. Clients that send their whole body before they read (most do) see those lines together at the
end: the server reads only as fast as it appends, so what was sent shows how far it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import orjson
import structlog
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from context_graph.api import problems
from context_graph.api.auth import IngestTenant
from context_graph.api.bodies import encoding_of
from context_graph.api.problems import KINDS, Kind, ProblemError, answers, document, document_of
from context_graph.api.rendering import json_response
from context_graph.api.services import Services, services_of
from context_graph.domain.partition import Tenant
from context_graph.errors import ContextGraphError, TemporaryError
from context_graph.ingest.import_summary import ImportSummary
from context_graph.ingest.unpacking import BodyTooLarge, BrokenBody, Encoding

router = APIRouter(prefix="/v1/events", tags=["events"])
log = structlog.get_logger(__name__)

LINES = "application/x-ndjson"
_TELL_SECONDS = 1.0
_COMPRESSED_TYPES: dict[str, Encoding] = {
    "application/gzip": "gzip", "application/x-gzip": "gzip", "application/zstd": "zstd",
}  # fmt: skip

_EXAMPLE = {
    "lines": 2, "created": 1, "duplicate": 0, "conflict": 0, "invalid": 1, "bytes": 310, "seconds": 0.004,
    "first_errors": [
        {"line": 2, "event_id": "msg-2", "pointer": "/occurred_at", "detail": "'2026-09-01T09:30:00' has no offset",
         "remedy": "send RFC 3339 with an offset, such as 2026-09-01T09:30:00Z", "code": "naive"}
    ],
    "last_position": "0-1788254999123-0", "last_positions": ["0-1788254999123-0"], "complete": False,
}  # fmt: skip
_SUMMARY = {
    "description": "What became of the lines; with `Accept: application/x-ndjson` lines of progress, then this",
    "content": {
        "application/json": {"schema": {"type": "object", "title": "ImportSummary"}, "example": _EXAMPLE},
        LINES: {"schema": {"type": "string"}},
    },
}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "one event a line; `Content-Encoding: gzip` or `zstd`, or the content types of these",
        "content": {
            LINES: {
                "schema": {"type": "string"},
                "example": '{"event_id": "msg-1", "event_type": "user.message", …}',
            },
            "application/gzip": {"schema": {"type": "string", "format": "binary"}},
            "application/zstd": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post(
    "/import",
    summary="Append a stream of events (NDJSON)",
    openapi_extra=_BODY,
    responses={
        200: _SUMMARY,
        **answers(problems.BROKEN_BODY, problems.TOO_LARGE, problems.ENCODING, *problems.REFUSED),
    },
)
async def post_import(request: Request, tenant: IngestTenant) -> Response:
    """Append each line once; wrong lines are counted and the first ones shown.

    The same body again adds nothing: events that are there are duplicates, and a line without an `event_id` gets one
    made of its number and content. A body that breaks is a problem that names the line, with the summary of what was
    kept. `Idempotency-Key` is not needed and not read.
    """
    services = services_of(request)
    encoding = _encoding(request)
    if LINES in request.headers.get("accept", ""):
        return _ProgressResponse(services, tenant, request, encoding)
    summary = await services.importer.run(tenant, _body(request), encoding, _no_progress)
    _count(services, summary)
    if summary.broken is not None:
        raise _problem(summary.broken, summary)
    return json_response(summary_json(summary))


class _ProgressResponse(Response):
    """Reads the request while it answers, which Starlette's streaming response does not allow: it too would receive."""

    def __init__(self, services: Services, tenant: Tenant, request: Request, encoding: Encoding) -> None:
        super().__init__(media_type=LINES)
        del self.headers["content-length"]
        self._services = services
        self._tenant = tenant
        self._request = request
        self._encoding = encoding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Progress lines, then the summary, with the problem if the import broke."""
        del scope, receive  # the request has them
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        told = monotonic()

        async def tell(summary: ImportSummary) -> None:
            nonlocal told
            if monotonic() - told >= _TELL_SECONDS:
                told = monotonic()
                await _send_line(send, summary_json(summary) | {"complete": False, "finished": False})

        summary = await self._services.importer.run(self._tenant, _body(self._request), self._encoding, tell)
        _count(self._services, summary)
        last = summary_json(summary) | {"finished": True}
        if summary.broken is not None:
            problem = _problem(summary.broken, summary)
            last["problem"] = document(problem.kind, problem.detail, line=summary.line)
        await _send_line(send, last)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_line(send: Send, value: dict[str, Any]) -> None:
    line = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    await send({"type": "http.response.body", "body": line, "more_body": True})


async def _no_progress(_: ImportSummary) -> None:
    return


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect as error:
        raise BrokenBody("the sender went away") from error


def _encoding(request: Request) -> Encoding:
    """How the body is compressed, by Content-Encoding, else by its type. Raises ProblemError for what is not known."""
    named = encoding_of(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return _COMPRESSED_TYPES.get(kind, "identity") if named == "identity" else named


def _problem(error: ContextGraphError, summary: ImportSummary) -> ProblemError:
    """What ended an import, with what was kept."""
    extra = {"line": summary.line, "summary": summary_json(summary)}
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, TemporaryError) else {}
    return ProblemError(_kind(error), str(error), headers, extra)


def _kind(error: ContextGraphError) -> Kind:
    if isinstance(error, BrokenBody):
        return problems.BROKEN_BODY
    if isinstance(error, BodyTooLarge):
        return problems.TOO_LARGE
    code = document_of(error)["code"]
    return next(kind for kind in KINDS if kind.code == code)


def _count(services: Services, summary: ImportSummary) -> None:
    for status in ("created", "duplicate", "conflict", "invalid"):
        services.metrics.ingested.labels(status).inc(getattr(summary, status))
    if summary.broken is not None:
        log.warning("import_broken", line=summary.line, lines=summary.lines, reason=str(summary.broken))


def summary_json(summary: ImportSummary) -> dict[str, Any]:
    """The summary with the contract's names."""
    return {
        "lines": summary.lines,
        "created": summary.created,
        "duplicate": summary.duplicate,
        "conflict": summary.conflict,
        "invalid": summary.invalid,
        "bytes": summary.bytes,
        "seconds": round(summary.seconds, 3),
        "first_errors": [
            {
                "line": error.line,
                "event_id": error.event_id,
                "pointer": error.problem.pointer,
                "detail": error.problem.detail,
                "remedy": error.problem.remedy,
                "code": error.problem.code,
            }
            for error in summary.first_errors
        ],
        "last_position": None if summary.last_position is None else str(summary.last_position),
        "last_positions": [str(position) for position in summary.positions],
        "complete": summary.broken is None and not (summary.invalid or summary.conflict),
    }
