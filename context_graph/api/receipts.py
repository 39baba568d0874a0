"""Receipts and feedback over HTTP: what was served, the bytes again, to whom, and whether it helped."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from context_graph.api import problems
from context_graph.api import receipt_shapes as shapes
from context_graph.api.answer_shapes import RECEIPT
from context_graph.api.auth import ReadTenant
from context_graph.api.bodies import described, read_model
from context_graph.api.paths import ANY_ID
from context_graph.api.problems import answers
from context_graph.api.readings import Paged, place_position, read_cursor, write_cursor
from context_graph.api.receipt_rendering import holding_json, knowledge_json, reproduced_json
from context_graph.api.rendering import event_json, json_response
from context_graph.api.services import services_of
from context_graph.domain.position import Position
from context_graph.errors import FieldProblem, InvalidInput
from context_graph.retrieval.opinions import Feedback

router = APIRouter(prefix="/v1", tags=["accountability"])

Ids = Annotated[list[Annotated[str, Field(min_length=1, max_length=300)]], Field(max_length=1000)]


class FeedbackIn(BaseModel):
    """Which of the served items helped, and which did not: ids of items, or of events that they cite."""

    model_config = ConfigDict(extra="forbid", strict=True, title="FeedbackRequest")

    useful: Ids = []
    not_useful: Ids = []
    note: str | None = Field(default=None, max_length=4096, description="in words, for people; nothing reads it")


_FEEDBACK_EXAMPLE = {"useful": ["msg-1"], "not_useful": ["msg-7"], "note": "the address was what I needed"}


@router.get(
    "/receipts/{receipt_id}",
    summary="Read a receipt",
    responses={200: RECEIPT, **answers(problems.UNKNOWN, problems.INVALID)},
)
async def get_receipt(request: Request, tenant: ReadTenant, receipt_id: str) -> Response:
    """What a served context held: request, items with ranks and scores, tokens, and the hash of its bytes."""
    return json_response(event_json((await services_of(request).accounts.receipt(tenant, receipt_id)).event))


@router.get(
    "/receipts/{receipt_id}/content",
    summary="Reproduce what was served",
    responses={200: shapes.REPRODUCED, **answers(problems.UNKNOWN, problems.INVALID)},
)
async def get_content(request: Request, tenant: ReadTenant, receipt_id: str) -> Response:
    """The very bytes again, rendered from the ledger and checked against the receipt's SHA-256.

    `state`: `reproduced` (the same bytes), `different` (the rules of rendering have changed since), `erased` (somebody
    in it was erased: nothing is made up in their place) or `incomplete` (an event of it cannot be read).
    """
    receipt, reproduced = await services_of(request).accounts.content(tenant, receipt_id)
    return json_response(reproduced_json(receipt, reproduced))


@router.post(
    "/receipts/{receipt_id}/feedback",
    status_code=201,
    summary="Say whether a context helped",
    openapi_extra=described(FeedbackIn.model_json_schema(), _FEEDBACK_EXAMPLE),
    responses={
        201: shapes.RECORDED,
        200: shapes.RECORDED_BEFORE,
        **answers(
            problems.UNKNOWN, problems.INVALID, *problems.BODY, problems.RECEIPT_ERASED,
            *problems.REFUSED,
        ),
    },
)  # fmt: skip
async def post_feedback(request: Request, tenant: ReadTenant, receipt_id: str) -> Response:
    """An event that raises or lowers how strongly the events are remembered.

    The same again is a duplicate (200); another opinion on the same receipt takes the place of the one before, and
    one with empty lists takes it back.
    """
    body = await read_model(request, FeedbackIn)
    if not body.model_fields_set:
        remedy = 'name ids in "useful" or "not_useful"; to take an opinion back send both as empty lists'
        raise InvalidInput([FieldProblem("", "it says nothing about any item", remedy, "empty")])
    said = Feedback(tuple(body.useful), tuple(body.not_useful), body.note)
    recorded = await services_of(request).accounts.feedback(tenant, receipt_id, said)
    answer = {"event_id": recorded.event_id, "position": str(recorded.position), "status": recorded.status}
    return json_response(answer, 201 if recorded.status == "created" else 200)


@router.get(
    f"/events/{{event_id:{ANY_ID}}}/receipts",
    summary="Which contexts held this event",
    responses={200: shapes.HOLDING, **answers(problems.UNKNOWN, problems.INVALID)},
)
async def get_event_receipts(
    request: Request, tenant: ReadTenant, event_id: str, asked: Annotated[Paged, Query()]
) -> Response:
    """Receipts of the contexts that held the event, newest first: itself, or a summary that cites it."""
    services = services_of(request)
    late = await asked.waited(services.waiting, tenant)
    query, before = _resumed(tenant, ["event receipts", event_id, asked.as_of], asked)
    page = await services.accounts.containing(tenant, event_id, asked.limit, before, asked.moment)
    body = holding_json(event_id, page, late)
    return _paged(tenant, query, body, page.next)


@router.get(
    f"/events/{{event_id:{ANY_ID}}}/context",
    summary="What the agent knew when it did that",
    responses={200: shapes.KNOWLEDGE, **answers(problems.UNKNOWN, problems.INVALID)},
)
async def get_event_context(
    request: Request, tenant: ReadTenant, event_id: str, asked: Annotated[Paged, Query()]
) -> Response:
    """The contexts served to the event's agent in its session before the event, newest first, with their items.

    Beside them, of the session's last 200 events before it: `unserved`, which were in the ledger and in none of these
    contexts, and `since`, which came after the newest of them was asked for.
    """
    services = services_of(request)
    late = await asked.waited(services.waiting, tenant)
    query, before = _resumed(tenant, ["event context", event_id, asked.as_of], asked)
    knowledge = await services.accounts.known_before(tenant, event_id, asked.limit, before, asked.moment)
    return _paged(tenant, query, knowledge_json(knowledge, late), knowledge.next)


def _resumed(tenant: ReadTenant, query: list[Any], asked: Paged) -> tuple[list[Any], Position | None]:
    return query, place_position(tenant, read_cursor(tenant, query, asked.cursor))


def _paged(tenant: ReadTenant, query: list[Any], body: dict[str, Any], behind: Position | None) -> Response:
    place: list[str | int] | None = None if behind is None else [str(behind)]
    return json_response(body | {"page": {"next_cursor": write_cursor(tenant, query, place)}})
