"""Working memory and search over HTTP."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from context_graph.api import answer_shapes as shapes
from context_graph.api import problems
from context_graph.api.auth import ReadTenant
from context_graph.api.bodies import described, read_model
from context_graph.api.moments import parse_as_of, parse_position
from context_graph.api.problems import answers
from context_graph.api.readings import named_filters, read_cursor, refused, write_cursor
from context_graph.api.rendering import json_response, search_json, served_json
from context_graph.api.services import Services, services_of
from context_graph.domain.partition import Tenant
from context_graph.domain.position import Position
from context_graph.domain.query import Intent
from context_graph.retrieval.items import DEFAULT_SHARES, Section, Share
from context_graph.retrieval.request import MARK_BYTES, AsOf, ContextQuery, SearchQuery, mark
from context_graph.retrieval.served import Found
from context_graph.retrieval.waiting import WaitFor

router = APIRouter(prefix="/v1", tags=["memory"])

_LONGEST_CURSOR = 32_768  # characters: it names what earlier pages held
_DEEPEST = 1000  # results of each channel that a search ranks and pages through

WaitForField = Annotated[
    WaitFor,
    Field(
        description="what min_position waits for: graph (timelines and causes), text (found by words as well), vectors "
        "(by meaning too); meta.behind names every stage that has not passed it"
    ),
]
Part = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=100)]
RawFilters = Annotated[
    dict[str, dict[str, Any]],
    Field(description='{field: {op: value}}, and-ed: {"tool_name": {"eq": "refund"}}', examples=[{}]),
]


class ShareIn(BaseModel):
    """A section's part of the budget."""

    model_config = ConfigDict(extra="forbid", strict=True, title="SectionShare")

    min: Part = Field(default=0.0, description="what it has before the others have their turn, 0 to 1")
    max: Part = Field(default=1.0, description="what it has at most, 0 to 1")


class ContextIn(BaseModel):
    """What working memory is wanted for, and how much of it."""

    model_config = ConfigDict(extra="forbid", strict=True, title="ContextRequest")

    query: str | None = Field(default=None, max_length=8192, description="what the agent is about to do or was asked")
    session_id: str | None = Field(default=None, min_length=1, max_length=256)
    agent_id: str | None = Field(default=None, min_length=1, max_length=128)
    user_id: str | None = Field(default=None, min_length=1, max_length=128)
    token_budget: int = Field(default=2000, ge=16, le=128_000)
    format: Literal["json", "markdown", "messages", "anthropic"] = "json"
    tokenizer: Literal["o200k_base", "cl100k_base", "claude"] | None = Field(
        default=None, description="claude is an estimate: its tokenizer is not published"
    )
    sections: dict[Section, Part | ShareIn] | None = Field(
        default=None, description="what a section takes of the budget at first, 0 to 1; or {min, max}"
    )
    intents: dict[Intent, Weight] | None = None
    filters: RawFilters | None = None
    as_of: str | None = Field(default=None, description="a position, or an RFC 3339 time of recording")
    min_position: str | None = Field(default=None, description="wait until the stages have passed this position")
    wait_ms: int = Field(default=5000, ge=0, le=60_000, description="longest wait for min_position, milliseconds")
    wait_for: WaitForField = "vectors"
    max_depth: int = Field(default=1, ge=0, le=5, description="causal steps from a match")
    max_nodes: int = Field(default=200, ge=1, le=1000)
    explain: bool = Field(default=False, description="scores and channels in the answer")


class SearchIn(BaseModel):
    """What to search for."""

    model_config = ConfigDict(extra="forbid", strict=True, title="SearchRequest")

    query: str = Field(min_length=1, max_length=8192)
    mode: Literal["hybrid", "semantic", "keyword"] = "hybrid"
    limit: int = Field(default=10, ge=1, le=200)
    filters: RawFilters | None = None
    as_of: str | None = None
    min_position: str | None = None
    wait_ms: int = Field(default=5000, ge=0, le=60_000)
    wait_for: WaitForField = "vectors"
    cursor: str | None = Field(
        default=None,
        max_length=_LONGEST_CURSOR,
        description="page.next_cursor; the rest as before. Later pages are as of the first one",
    )


_ASKED = (problems.INVALID, *problems.BODY, problems.MODEL)
_CONTEXT_EXAMPLE = {"query": "why was nadia refunded twice?", "token_budget": 600, "format": "markdown"}
_SEARCH_EXAMPLE = {"query": "payment timeout", "mode": "hybrid", "limit": 5}


@router.post(
    "/context",
    summary="Working memory",
    openapi_extra=described(ContextIn.model_json_schema(), _CONTEXT_EXAMPLE),
    responses={200: shapes.CONTEXT, **answers(*_ASKED)},
)
async def post_context(request: Request, tenant: ReadTenant) -> Response:
    """The context an agent needs now, within the token budget, every line citing its events."""
    body = await read_model(request, ContextIn)
    services = services_of(request)
    query = ContextQuery(
        query=body.query or "",
        session_id=body.session_id,
        agent_id=body.agent_id,
        user_id=body.user_id,
        token_budget=body.token_budget,
        format=body.format,
        tokenizer=body.tokenizer or services.resources.settings.retrieval.tokenizer,
        shares=_shares(body.sections) if body.sections is not None else DEFAULT_SHARES,
        intents=body.intents,
        filters=named_filters(body.filters),
        as_of=parse_as_of(body.as_of),
        min_position=parse_position("min_position", body.min_position),
        wait_ms=body.wait_ms,
        wait_for=body.wait_for,
        max_depth=body.max_depth,
        max_nodes=body.max_nodes,
        explain=body.explain,
    )
    with services.metrics.timed("context"):
        served = await services.retrieval.context(tenant, query)
    return json_response(served_json(served))


@router.post(
    "/search",
    summary="Search",
    openapi_extra=described(SearchIn.model_json_schema(), _SEARCH_EXAMPLE),
    responses={200: shapes.SEARCH, **answers(*_ASKED)},
)
async def post_search(request: Request, tenant: ReadTenant) -> Response:
    """Documents by meaning, by words, or both; best first, with the score of each channel."""
    body = await read_model(request, SearchIn)
    asked = ["search", body.model_dump(exclude={"limit", "cursor", "min_position", "wait_ms", "wait_for"})]
    then, depth, seen = _page(read_cursor(tenant, asked, body.cursor))
    query = SearchQuery(
        query=body.query,
        mode=body.mode,
        limit=body.limit,
        filters=named_filters(body.filters),
        as_of=parse_as_of(body.as_of) or then,
        min_position=parse_position("min_position", body.min_position),
        wait_ms=body.wait_ms,
        wait_for=body.wait_for,
        seen=seen,
        depth=depth,
    )
    services = services_of(request)
    with services.metrics.timed("search"):
        found, now = await asyncio.gather(services.retrieval.search(tenant, query), _now(services, tenant))
    cursor = write_cursor(tenant, asked, _behind(query, found, query.as_of or now))
    return json_response(search_json(query, found, cursor))


def _shares(sections: Mapping[Section, float | ShareIn]) -> dict[Section, Share]:
    return {
        name: Share(share.min, share.max) if isinstance(share, ShareIn) else Share(share)
        for name, share in sections.items()
    }


def _page(place: list[Any] | None) -> tuple[AsOf | None, int, frozenset[bytes]]:
    """As of when, how deep the first page looked, and the marks of what earlier pages held."""
    try:
        match place:
            case None:
                return None, 0, frozenset()
            case [int(ms), str(position), int(depth), str(marks)] if 1 <= depth <= _DEEPEST and abs(ms) < 2**53:
                raw = b64decode(marks, validate=True)
                seen = frozenset(raw[at : at + MARK_BYTES] for at in range(0, len(raw), MARK_BYTES))
                return AsOf(ms, Position.parse(position) if position else None), depth, seen
    except ValueError as error:
        raise refused("this is not a cursor", "send back page.next_cursor of the previous page") from error
    raise refused("this is not a cursor", "send back page.next_cursor of the previous page")


def _behind(query: SearchQuery, found: Found, then: AsOf) -> list[str | int] | None:
    """What the next page begins from; None when there is none."""
    if not found.more:
        return None
    marks = sorted(query.seen | {mark(one.document.id) for one in found.results})
    position = "" if then.position is None else str(then.position)
    return [then.ms, position, found.depth, b64encode(b"".join(marks)).decode()]


async def _now(services: Services, tenant: Tenant) -> AsOf:
    """The end of the ledger: what a search in pages goes on from."""
    ledger = services.resources.ledger
    ends = [end for end in [await ledger.last(partition) for partition in tenant.partitions] if end is not None]
    if len(tenant.partitions) == 1 and ends:
        return AsOf(ends[0].ms, ends[0])
    return AsOf(max((end.ms for end in ends), default=0))
