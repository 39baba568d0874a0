"""Reading the ledger in pages over HTTP: filters, bounds, order, cursors."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from context_graph.api import problems
from context_graph.api.auth import ReadTenant
from context_graph.api.cursors import MAX_LENGTH, Bound, looks_like_cursor, resumed, write_cursor
from context_graph.api.moments import parse_as_of
from context_graph.api.problems import answers
from context_graph.api.rendering import event_json, json_response
from context_graph.api.services import services_of
from context_graph.domain.event import Origin, SessionId, Status
from context_graph.domain.event_filter import EventFilter
from context_graph.domain.filters import moment
from context_graph.domain.partition import Tenant
from context_graph.domain.places import Places
from context_graph.domain.position import Position
from context_graph.errors import FieldProblem, InvalidInput
from context_graph.retrieval.event_pages import EventPage, EventPages, EventQuery

router = APIRouter(prefix="/v1/events", tags=["events"])

Values = Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=64)]
_LISTED = {
    "description": "A page; `meta.scanned` entries were read for it; `meta.unreadable`: those that are no events",
    "content": {
        "application/json": {
            "example": {
                "events": [{"event_id": "msg-1", "event_type": "user.message", "position": "0-1788254999123-0"}],
                "page": {"next_cursor": None},
                "meta": {"scanned": 1},
            }
        }
    },
}


class EventsQuery(BaseModel):
    """What to list. Repeat a filter for any of several values; several filters must all hold."""

    model_config = ConfigDict(extra="forbid")

    session_id: str | None = Field(default=None, max_length=256, description="only this session")
    event_type: Values = []
    agent_id: Values = []
    user_id: Values = []
    tool_name: Values = []
    trace_id: Values = []
    status: list[Status] = []
    origin: list[Origin] = []
    occurred_from: str | None = Field(default=None, max_length=40, description="RFC 3339, inclusive")
    occurred_to: str | None = Field(default=None, max_length=40, description="RFC 3339, exclusive")
    after: str | None = Field(
        default=None, max_length=MAX_LENGTH, description="a position: only what is behind it; or a cursor"
    )
    before: str | None = Field(default=None, max_length=MAX_LENGTH, description="a position: only what is ahead of it")
    as_of: str | None = Field(
        default=None, max_length=64, description="a position, or an RFC 3339 time of recording: as it was then"
    )
    order: Literal["asc", "desc"] = Field(default="asc", description="oldest or newest first, by position")
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = Field(
        default=None, max_length=MAX_LENGTH, description="page.next_cursor; the rest of the query as before"
    )


@router.get("", summary="List events in ledger order", responses={200: _LISTED, **answers(problems.INVALID)})
async def list_events(request: Request, tenant: ReadTenant, asked: Annotated[EventsQuery, Query()]) -> Response:
    """A page of the ledger; `page.next_cursor` is null at the end.

    A request reads a bounded number of entries (`meta.scanned`): with filters that few events pass, a page may be
    short or empty and still have a next one.
    """
    services = services_of(request)
    query, bound = _query(tenant, asked)
    cursor = asked.cursor
    if cursor is None and asked.after is not None and looks_like_cursor(asked.after):
        cursor = asked.after
    if cursor is not None:
        query = resumed(tenant, query, bound, cursor)
    pages = EventPages(services.resources.ledger, services.resources.settings.reads.max_scanned_events)
    page = await pages.page(tenant, query)
    behind = None if page.next is None else write_cursor(tenant, query, bound, page.next)
    return json_response(
        {
            "events": [event_json(event) for event in page.events],
            "page": {"next_cursor": behind},
            "meta": {"scanned": page.scanned} | _unreadable(page),
        }
    )


def _query(tenant: Tenant, asked: EventsQuery) -> tuple[EventQuery, Bound]:
    chosen = EventFilter(
        event_type=tuple(sorted(asked.event_type)),
        agent_id=tuple(sorted(asked.agent_id)),
        user_id=tuple(sorted(asked.user_id)),
        tool_name=tuple(sorted(asked.tool_name)),
        status=tuple(sorted(asked.status)),
        origin=tuple(sorted(asked.origin)),
        trace_id=tuple(sorted(asked.trace_id)),
        occurred_from=_time("occurred_from", asked.occurred_from),
        occurred_to=_time("occurred_to", asked.occurred_to),
    )
    after = asked.after
    query = EventQuery(
        order=asked.order,
        limit=asked.limit,
        filter=chosen,
        session_id=None if asked.session_id is None else SessionId(asked.session_id),
        low=None if after is None or looks_like_cursor(after) else parse_places("after", after, tenant),
        high=_upper(tenant, asked),
    )
    return query, Bound(asked.order, asked.before, asked.as_of)


def _upper(tenant: Tenant, asked: EventsQuery) -> Places | None:
    """Ahead of which everything lies: what `before` and `as_of` name, whichever comes first in each bucket."""
    high = None if asked.before is None else parse_places("before", asked.before, tenant)
    as_of = parse_as_of(asked.as_of)
    if as_of is None:
        return high
    last = [as_of.last(bucket) for bucket in range(tenant.buckets)]
    behind = [Position(position.bucket, position.ms, position.seq + 1) for position in last]
    return Places(tuple(behind if high is None else map(min, behind, high.positions)))


def parse_places(name: str, text: str, tenant: Tenant) -> Places:
    """Places from outside: a position, or several joined by dots. Raises InvalidInput naming the field."""
    try:
        return Places.parse(text, tenant.buckets)
    except ValueError as error:
        remedy = "send a position or cursor that this service returned"
        raise InvalidInput([FieldProblem(f"/{name}", str(error), remedy, "position")]) from error


def _time(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return moment(text)
    except (ValueError, OverflowError) as error:
        detail = f"{text!r} is not a time: {error}"
        remedy = "send RFC 3339 with an offset, such as 2026-09-01T09:30:00Z (write + as %2B in an address)"
        raise InvalidInput([FieldProblem(f"/{name}", detail, remedy, "time")]) from error


def _unreadable(page: EventPage) -> dict[str, int]:
    """Entries of the ledger that are no events, where there are any: they are passed over, not hidden."""
    return {"unreadable": len(page.unreadable)} if page.unreadable else {}
