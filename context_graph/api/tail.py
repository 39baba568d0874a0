"""The live tail over HTTP: server-sent events that go on where they broke off.

`id:` is the place behind an event (a position; with several buckets one position a bucket, joined by dots). A client
that reconnects sends it as `Last-Event-ID` and gets what follows: nothing twice, nothing left out. The first message
has an id and no data, so that a connection which broke before its first event goes on from its own beginning.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from time import monotonic
from typing import Annotated

import orjson
import structlog
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from context_graph.api import problems
from context_graph.api.auth import ReadTenant
from context_graph.api.cursors import MAX_LENGTH
from context_graph.api.event_pages import Values, parse_places
from context_graph.api.problems import ProblemError, answers
from context_graph.api.rendering import event_json
from context_graph.api.services import services_of
from context_graph.delivery.tail import Gap, News, Skipped, TailQuery, Told
from context_graph.domain.event import SessionId
from context_graph.errors import ArchiveDamaged, ConfigurationError, StoreUnavailable

router = APIRouter(prefix="/v1/events", tags=["events"])
log = structlog.get_logger(__name__)

_KEEP_ALIVE_SECONDS = 14.0  # a poll later it is at most 20: below the 30 to 60 s after which proxies cut
_RETRY_MS = 1000  # what a client should wait before it connects again


_STREAM = {
    "description": "Messages; `id` is the place behind an event, to be sent as Last-Event-ID",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'data: {"event_id":"msg-1","position":"0-1788254999123-0"}\nid: 0-1788254999123-0\n\n',
        }
    },
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A tail that was asked for and may be given."""

    query: TailQuery
    request: Request


async def _asked(
    request: Request,
    tenant: ReadTenant,
    *,
    after: Annotated[
        str | None,
        Query(max_length=MAX_LENGTH, description="a position: what is behind it; 0-0-0: everything; absent: from now"),
    ] = None,
    session_id: Annotated[str | None, Query(max_length=256, description="only this session")] = None,
    event_type: Annotated[Values, Query(description="only this type; repeat for several")] = [],  # noqa: B006
    last_event_id: Annotated[
        str | None, Header(max_length=MAX_LENGTH, description="the id of the last message: go on behind it")
    ] = None,
) -> _Asked:
    """Checked before the answer begins: afterwards an error could only break it off."""
    place = last_event_id or after
    field = "Last-Event-ID" if last_event_id else "after"
    query = TailQuery(
        tenant=tenant,
        after=None if place is None else parse_places(field, place, tenant),
        session_id=None if session_id is None else SessionId(session_id),
        event_types=frozenset(event_type),
    )
    return _Asked(query, request)


@router.get(
    "/tail",
    summary="Follow events as they come (server-sent events)",
    response_class=StreamingResponse,  # EventSourceResponse here would make FastAPI expect a route that yields
    responses={200: _STREAM, **answers(problems.INVALID)},
)
async def tail_events(asked: Annotated[_Asked, Depends(_asked)]) -> Response:
    """Each event as one message; `gap` when events behind the place asked for can no longer be read.

    `unreadable` for an entry of the ledger that is no event; what follows it comes.
    """
    return EventSourceResponse(_stream(asked), headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})


async def _stream(asked: _Asked) -> AsyncIterator[bytes]:
    """The messages as bytes, each made when the one before was sent.

    FastAPI's own loop around a route that yields would read ahead, and reports each client that leaves in the middle
    of a message as a defect.
    """
    services = services_of(asked.request)
    recheck = services.resources.settings.reads.tail_recheck_seconds
    checked = spoken = monotonic()
    told = ""
    try:
        async with aclosing(services.tail.follow(asked.query)) as following:
            async for news in following:
                message = _message(news, told)
                if message is None and monotonic() - spoken >= _KEEP_ALIVE_SECONDS:
                    message = KEEPALIVE_COMMENT
                if message is not None:
                    told = str(news.places)
                    yield message
                    spoken = monotonic()
                if monotonic() - checked >= recheck:  # a key may be revoked while its stream is open
                    await services.authenticator.tenant(asked.request, "read")
                    checked = monotonic()
    except ProblemError as error:
        log.info("tail_ended", tenant=asked.query.tenant.name, reason=error.detail)
    except (StoreUnavailable, ConfigurationError, ArchiveDamaged) as error:
        log.warning("tail_broken", tenant=asked.query.tenant.name, reason=str(error))


def _message(news: News, told: str) -> bytes | None:
    """The news as bytes; `told` is the last id that was sent. None: there is nothing to say."""
    places = str(news.places)
    match news:
        case Told(event=event):
            return format_sse_event(data_str=orjson.dumps(event_json(event)).decode(), id=places)
        case Gap(after=after, until=until):
            data = {
                "after": str(after),
                "until": str(until),
                "detail": "events behind `after`, up to `until`, have left the ledger and no archive here holds them",
            }
            return format_sse_event(data_str=orjson.dumps(data).decode(), event="gap", id=places)
        case Skipped(position=position):
            data = {
                "position": str(position),
                "detail": "the entry of the ledger at `position` is no event: passed over",
            }
            return format_sse_event(data_str=orjson.dumps(data).decode(), event="unreadable", id=places)
        case _ if not told:
            return format_sse_event(id=places, retry=_RETRY_MS, comment="following")
        case _:
            return format_sse_event(id=places, comment="nothing of yours up to here") if told != places else None
