"""Sessions and timelines over HTTP: pages that neither skip nor repeat while events come in."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from context_graph.api import graph_shapes as shapes
from context_graph.api import problems
from context_graph.api.auth import ReadTenant
from context_graph.api.graph_rendering import facts_json, related_json, session_json, timeline_json
from context_graph.api.paths import ANY_ID
from context_graph.api.problems import answers
from context_graph.api.readings import Paged, Reading, parse_time, read_cursor, refused, write_cursor
from context_graph.api.rendering import as_of_json, json_response
from context_graph.api.services import services_of
from context_graph.domain.graph import TimelineKind
from context_graph.domain.partition import Tenant
from context_graph.domain.position import Position
from context_graph.errors import FieldProblem, InvalidInput
from context_graph.retrieval.sessions import SessionFilter
from context_graph.retrieval.timeline import TimelineQuery
from context_graph.store.graph import TimelineEntry
from context_graph.store.sessions import SessionPlace

router = APIRouter(prefix="/v1", tags=["graph"])

_Name = Annotated[str | None, Field(default=None, min_length=1, max_length=256)]
_Time = Annotated[str | None, Field(default=None, max_length=40)]
_NO_CURSOR = "send back page.next_cursor of the previous page"


class SessionsIn(Paged):
    """Which sessions. Several filters must all hold."""

    agent_id: _Name = None
    user_id: _Name = None
    tool_name: _Name = None
    event_type: _Name = None
    active_from: _Time = Field(default=None, description="RFC 3339: with an event at or after it")
    active_to: _Time = Field(default=None, description="RFC 3339: with an event before it")


class RelatedIn(Reading):
    """How many, and how sure."""

    limit: int = Field(default=10, ge=1, le=50, description="sessions in the answer")
    min_score: float = Field(default=0.0, ge=0, le=1, description="least score")


class TimelineIn(Paged):
    """Whose timeline: exactly one of session, agent, user, tool and entity."""

    session_id: _Name = None
    agent_id: _Name = None
    user_id: _Name = None
    tool_name: _Name = None
    entity: Annotated[str | None, Field(default=None, min_length=1, max_length=512, description="an entity's id")] = (
        None
    )
    order: Literal["asc", "desc"] = Field(default="asc", description="oldest or newest first, by occurrence")
    occurred_from: _Time = Field(default=None, description="RFC 3339, inclusive")
    occurred_to: _Time = Field(default=None, description="RFC 3339, exclusive")


_KINDS: tuple[tuple[str, TimelineKind], ...] = (
    ("session_id", "session"), ("agent_id", "agent"), ("user_id", "user"), ("tool_name", "tool"), ("entity", "entity"),
)  # fmt: skip


@router.get("/sessions", summary="List sessions", responses={200: shapes.SESSIONS, **answers(problems.INVALID)})
async def list_sessions(request: Request, tenant: ReadTenant, asked: Annotated[SessionsIn, Query()]) -> Response:
    """Sessions, latest begun first (by their first position in the ledger).

    A page with filters that few sessions pass may be short or empty and still have a next one.
    """
    services = services_of(request)
    late = await asked.waited(services.waiting, tenant)
    wanted = SessionFilter(
        asked.agent_id, asked.user_id, asked.tool_name, asked.event_type,
        parse_time("active_from", asked.active_from), parse_time("active_to", asked.active_to),
    )  # fmt: skip
    query = ["sessions", asked.model_dump(exclude={"limit", "cursor", "min_position", "wait_ms"})]
    behind = _session_place(tenant, read_cursor(tenant, query, asked.cursor))
    page = await services.sessions.page(tenant, wanted, asked.limit, behind, asked.moment)
    place: list[str | int] | None = (
        None if page.next is None else [page.next.order, page.next.bucket, page.next.session_id]
    )
    return json_response(
        {
            "sessions": [facts_json(facts) for facts in page.sessions],
            "page": {"next_cursor": write_cursor(tenant, query, place)},
            "meta": {
                "scanned": page.scanned,
                "as_of": as_of_json(asked.moment),
                "truncated": late,
                "complete": not late,
            },
        }
    )


@router.get(
    f"/sessions/{{session_id:{ANY_ID}}}/related",
    summary="Sessions that belong to one",
    responses={200: shapes.RELATED, **answers(problems.UNKNOWN, problems.INVALID)},
)
async def get_related(
    request: Request, tenant: ReadTenant, session_id: str, asked: Annotated[RelatedIn, Query()]
) -> Response:
    """By the entities that both mention (names that are one thing count as one) and by the similarity of their
    summaries, best first; each with the events that show it."""
    services = services_of(request)
    late = await asked.waited(services.waiting, tenant)
    await services.sessions.session(tenant, session_id, asked.moment)
    found = await services.retrieval.related.of(
        tenant, session_id, asked.limit, asked.min_score, asked.moment, cut=late.append
    )
    meta = {"as_of": as_of_json(asked.moment), "truncated": late, "complete": not late}
    return json_response({"session_id": session_id, "related": [related_json(one) for one in found], "meta": meta})


@router.get(
    f"/sessions/{{session_id:{ANY_ID}}}",
    summary="Read one session",
    responses={200: shapes.SESSION, **answers(problems.UNKNOWN, problems.INVALID)},
)
async def get_session(
    request: Request, tenant: ReadTenant, session_id: str, asked: Annotated[Reading, Query()]
) -> Response:
    """Who was in it, from when to when, how many events; its newest summary and the episodes that this tells of."""
    services = services_of(request)
    late = await asked.waited(services.waiting, tenant)
    session = await services.sessions.session(tenant, session_id, asked.moment)
    return json_response(session_json(session, asked.moment, late))


@router.get("/timeline", summary="Read a timeline", responses={200: shapes.TIMELINE, **answers(problems.INVALID)})
async def get_timeline(request: Request, tenant: ReadTenant, asked: Annotated[TimelineIn, Query()]) -> Response:
    """The events of a session, agent, user, tool or entity in order of occurrence, ties in the order of the ledger.

    What occurred earlier than where a page begins and arrives later is not on later pages; everything that was there
    at the first page is on exactly one.
    """
    services = services_of(request)
    late = await asked.waited(services.waiting, tenant)
    kind, identifier = _whose(asked)
    query = ["timeline", asked.model_dump(exclude={"limit", "cursor", "min_position", "wait_ms"})]
    page = await services.timeline.page(
        tenant,
        TimelineQuery(
            kind=kind,
            id=identifier,
            order=asked.order,
            limit=asked.limit,
            behind=_entry(tenant, read_cursor(tenant, query, asked.cursor)),
            occurred_from=parse_time("occurred_from", asked.occurred_from),
            occurred_to=parse_time("occurred_to", asked.occurred_to),
            as_of=asked.moment,
        ),
    )
    place: list[str | int] | None = None
    if page.next is not None:
        place = [page.next.occurred_at, str(page.next.position), page.next.event_id]
    body = timeline_json(page.events, late, page.scanned, asked.moment)
    return json_response(body | {"page": {"next_cursor": write_cursor(tenant, query, place)}})


def _whose(asked: TimelineIn) -> tuple[TimelineKind, str]:
    named = [(kind, value) for name, kind in _KINDS if (value := getattr(asked, name)) is not None]
    if len(named) != 1:
        names = ", ".join(name for name, _ in _KINDS)
        detail = f"a timeline is of exactly one of {names}; {len(named)} were named"
        raise InvalidInput([FieldProblem("", detail, f"send one of {names}", "one-of")])
    return named[0]


def _session_place(tenant: Tenant, place: list[Any] | None) -> SessionPlace | None:
    if place is None:
        return None
    match place:
        case [int(order), int(bucket), str(session_id)] if 0 <= bucket < tenant.buckets and 0 <= order < 2**54:
            return SessionPlace(order, bucket, session_id)
        case _:
            raise refused("this is not a cursor", _NO_CURSOR)


def _entry(tenant: Tenant, place: list[Any] | None) -> TimelineEntry | None:
    if place is None:
        return None
    try:
        occurred_at, text, event_id = place
        position = Position.parse(text)
        if position.bucket >= tenant.buckets or not isinstance(occurred_at, int) or abs(occurred_at) >= 2**53:
            raise ValueError("of another tenant")
        return TimelineEntry(occurred_at, position, str(event_id))
    except (ValueError, TypeError) as error:
        raise refused("this is not a cursor", _NO_CURSOR) from error
