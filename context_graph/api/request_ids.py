"""A name for every request: `X-Request-Id`, taken from the caller when it is a sane one, else made here.

It is in every answer's header, in every problem document and in every log line written while the request is answered.
Plain ASGI, because it stands before the path whose cost is measured: two microseconds a request.

HEAD is answered here too: as GET, without the body (RFC 9110 9.3.2). A stream that a HEAD would start is ended after
its headers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

HEADER = "X-Request-Id"
_RAW_HEADER = HEADER.lower().encode()
_SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def numbered_ids(prefix: str) -> Callable[[], str]:
    """Ids that differ: the process' random `prefix` and a number. A random one each would cost twice the time."""
    numbers = count(1)
    return lambda: f"{prefix}{next(numbers):08x}"


class RequestIds:
    """The middleware. `make_id` returns a fresh id of the characters that callers may use."""

    def __init__(self, app: ASGIApp, make_id: Callable[[], str]) -> None:
        self._app = app
        self._make_id = make_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the request, then let the app answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = ""
        for name, value in scope["headers"]:
            if name == _RAW_HEADER and _SANE.fullmatch(value):
                request_id = value.decode()
        request_id = request_id or self._make_id()
        scope["request_id"] = request_id
        bind_contextvars(request_id=request_id)  # the server runs each request in a context of its own
        raw = (_RAW_HEADER, request_id.encode())

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), raw]
            await send(message)

        if scope["method"] == "HEAD":
            await _head(self._app, scope, receive, named)
        else:
            await self._app(scope, receive, named)


async def _head(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as GET would, headers only."""
    ended = False

    async def headers_only(message: Message) -> None:
        nonlocal ended
        if message["type"] == "http.response.start":
            await send(message)
        elif not ended:
            ended = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def gone_once_answered() -> Message:
        return {"type": "http.disconnect"} if ended else await receive()

    await app({**scope, "method": "GET"}, gone_once_answered, headers_only)


def request_id_of(scope: Scope) -> str | None:
    """The request's name, where the middleware has seen it."""
    found = scope.get("request_id")
    return found if isinstance(found, str) else None


def id_headers(scope: Scope) -> dict[str, str]:
    """The header for an answer that does not pass through the middleware: the last resort's 500."""
    request_id = request_id_of(scope)
    return {} if request_id is None else {HEADER: request_id}
