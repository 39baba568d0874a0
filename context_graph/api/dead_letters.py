"""Dead letters over HTTP: list, show, re-drive, discard. A tenant sees its own, whoever asks.

A re-driven event goes through its stage again, out of its turn; its letter says `redriving` until the stage has handled
it, which removes the letter, or has failed again, which replaces it by one with a higher count and another id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from context_graph.api import problems
from context_graph.api.answer_shapes import ref
from context_graph.api.auth import AdminTenant
from context_graph.api.bodies import described, read_model
from context_graph.api.problems import answers
from context_graph.api.rendering import json_response
from context_graph.api.services import services_of
from context_graph.domain.event import iso
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.errors import FieldProblem, InvalidInput, UnknownThing
from context_graph.store.dead_letters import DeadLetter, DeadLetters

router = APIRouter(prefix="/v1/admin/dead-letters", tags=["dead letters"])

_PAGE = 500
_EXAMPLE: dict[str, Any] = {
    "id": "0-1788255012345-0", "group": "projection", "position": "0-1788254999123-0", "state": "dead",
    "event_id": "msg-1", "event_type": "user.message", "session_id": "s-1",
    "reason": "PermanentError: summary 'msg-1' has no scope", "deliveries": 1, "redriven": 0, "lost": 0,
    "parked_behind": 0, "buried_at": "2026-09-01T09:30:12.345Z",
}  # fmt: skip
_COUNT = {"type": "object", "required": ["count"], "properties": {"count": {"type": "integer", "minimum": 0}}}


def _answered(description: str, schema: dict[str, Any], example: object) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema, "example": example}}}


class Listing(BaseModel):
    """Which dead letters to list."""

    model_config = ConfigDict(extra="forbid")

    group: str | None = Field(default=None, min_length=1, max_length=128, description="only this consumer group's")
    reason: str | None = Field(default=None, min_length=1, max_length=256, description="only with this in their reason")
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = Field(default=None, max_length=64, description="page.next_cursor; the rest as before")


class Choice(BaseModel):
    """Which dead letters to take together."""

    model_config = ConfigDict(extra="forbid", strict=True)

    group: str | None = Field(default=None, min_length=1, max_length=128, description="only this consumer group's")
    reason: str | None = Field(default=None, min_length=1, max_length=256, description="only with this in their reason")


@router.get(
    "",
    summary="List dead letters",
    responses={
        200: _answered(
            "Oldest first; `counts` of every group",
            ref("DeadLetters"),
            {"dead_letters": [_EXAMPLE], "counts": {"projection": 1}, "page": {"next_cursor": None}},
        ),
        **answers(problems.INVALID),
    },
)
async def list_dead_letters(request: Request, tenant: AdminTenant, asked: Annotated[Listing, Query()]) -> Response:
    """A page; letters that come and go between two pages neither hide nor repeat others."""
    resources = services_of(request).resources
    after = None if asked.cursor is None else _place(tenant, asked.cursor)
    counts: dict[str, int] = {}
    shown: list[dict[str, Any]] = []
    for counted in await resources.dead_letters.counts_of(tenant.partitions):
        for name, count in counted.letters.items():
            counts[name] = counts.get(name, 0) + count
    for partition in tenant.partitions:
        missing = asked.limit + 1 - len(shown)
        if missing and (after is None or partition.bucket >= after.bucket):
            begin = str(after) if after is not None and after.bucket == partition.bucket else None
            letters = await resources.dead_letters.listed(
                partition, after=begin, limit=missing, group=asked.group, reason=asked.reason
            )
            shown += [await _shown(request, partition, letter) for letter in letters]
    more = len(shown) > asked.limit
    page = shown[: asked.limit]
    return json_response(
        {"dead_letters": page, "counts": counts, "page": {"next_cursor": page[-1]["id"] if more else None}}
    )


@router.post(
    "/redrive",
    status_code=202,
    summary="Re-drive dead letters",
    openapi_extra=described(Choice.model_json_schema(), {"group": "projection"}),
    responses={202: _answered("So many are being delivered again", _COUNT, {"count": 12}),
               **answers(problems.INVALID, *problems.BODY)},
)  # fmt: skip
async def redrive_dead_letters(request: Request, tenant: AdminTenant) -> Response:
    """All of them, or those of a group, or with a text in their reason. Safe to repeat."""
    asked = await read_model(request, Choice)
    letters = services_of(request).resources.dead_letters
    count = 0
    for partition in tenant.partitions:
        async for page in _pages(letters, partition, asked):
            count += await letters.redrive(partition, page)
    return json_response({"count": count}, 202)


@router.delete(
    "",
    summary="Discard dead letters",
    responses={200: _answered("So many are given up", _COUNT, {"count": 12}), **answers(problems.INVALID)},
)
async def discard_dead_letters(
    request: Request,
    tenant: AdminTenant,
    group: Annotated[str, Query(min_length=1, max_length=128, description="this consumer group's")],
    reason: Annotated[
        str | None, Query(min_length=1, max_length=256, description="only with this in their reason")
    ] = None,
) -> Response:
    """Those of a group for good: what the stage would have made of these events stays missing until a rebuild."""
    letters = services_of(request).resources.dead_letters
    count = 0
    for partition in tenant.partitions:
        async for page in _pages(letters, partition, Choice(group=group, reason=reason)):
            count += await letters.discard(partition, page)
    return json_response({"count": count})


@router.get(
    "/{letter_id}",
    summary="Read a dead letter",
    responses={200: _answered("With its traceback", ref("DeadLetter"), _EXAMPLE | {"traceback": "Traceback …"}),
               **answers(problems.INVALID, problems.UNKNOWN)},
)  # fmt: skip
async def get_dead_letter(
    request: Request, tenant: AdminTenant, letter_id: Annotated[str, Path(max_length=64)]
) -> Response:
    """Everything that is known of why the event was given up."""
    partition, letter = await _found(request, tenant, letter_id)
    return json_response(await _shown(request, partition, letter, whole=True))


@router.post(
    "/{letter_id}/redrive",
    status_code=202,
    summary="Re-drive a dead letter",
    responses={202: _answered("It is being delivered again", ref("DeadLetter"), _EXAMPLE | {"state": "redriving"}),
               **answers(problems.INVALID, problems.UNKNOWN)},
)  # fmt: skip
async def redrive_dead_letter(
    request: Request, tenant: AdminTenant, letter_id: Annotated[str, Path(max_length=64)]
) -> Response:
    """Its event goes through its stage again. Safe to repeat."""
    partition, letter = await _found(request, tenant, letter_id)
    await services_of(request).resources.dead_letters.redrive(partition, [letter])
    return json_response(await _shown(request, partition, letter, whole=True) | {"state": "redriving"}, 202)


@router.delete(
    "/{letter_id}",
    summary="Discard a dead letter",
    responses={200: _answered("It is given up", ref("DeadLetter"), _EXAMPLE),
               **answers(problems.INVALID, problems.UNKNOWN)},
)  # fmt: skip
async def discard_dead_letter(
    request: Request, tenant: AdminTenant, letter_id: Annotated[str, Path(max_length=64)]
) -> Response:
    """For good: what the stage would have made of the event stays missing until a rebuild. Its event stays."""
    partition, letter = await _found(request, tenant, letter_id)
    shown = await _shown(request, partition, letter, whole=True)
    await services_of(request).resources.dead_letters.discard(partition, [letter])
    return json_response(shown)


async def _found(request: Request, tenant: Tenant, letter_id: str) -> tuple[Partition, DeadLetter]:
    """The letter and its partition. Raises UnknownThing, also for an id that none can have."""
    try:
        place = Position.parse(letter_id)
    except ValueError as error:
        raise UnknownThing("dead letter", letter_id) from error
    if place.bucket < tenant.buckets and str(place) == letter_id:
        partition = Partition(tenant.name, place.bucket)
        letter = await services_of(request).resources.dead_letters.get(partition, letter_id)
        if letter is not None:
            return partition, letter
    raise UnknownThing("dead letter", letter_id)


async def _pages(letters: DeadLetters, partition: Partition, asked: Choice) -> AsyncIterator[list[DeadLetter]]:
    """The letters there were at the beginning, page by page: those that fail again meanwhile are not met anew."""
    newest = await letters.newest(partition)
    after: str | None = None
    while newest is not None:
        page = await letters.listed(partition, after=after, limit=_PAGE, group=asked.group, reason=asked.reason)
        mine = [letter for letter in page if Position.parse(letter.id) <= Position.parse(newest)]
        if mine:
            yield mine
        if len(page) < _PAGE or len(mine) < len(page):
            return
        after = page[-1].id


def _place(tenant: Tenant, cursor: str) -> Position:
    try:
        place = Position.parse(cursor)
    except ValueError as error:
        remedy = "send back page.next_cursor of the previous page"
        raise InvalidInput([FieldProblem("/cursor", "this is not a cursor", remedy, "cursor")]) from error
    if place.bucket >= tenant.buckets:
        remedy = "send back page.next_cursor of the previous page"
        raise InvalidInput([FieldProblem("/cursor", "this cursor is of another tenant", remedy, "cursor")])
    return place


async def _shown(request: Request, partition: Partition, letter: DeadLetter, *, whole: bool = False) -> dict[str, Any]:
    parking = services_of(request).resources.source.parking
    fields = asdict(letter)
    traceback, after = fields.pop("traceback"), letter.after
    for name in ("subjects", "after", "redriving"):
        del fields[name]
    for name in ("event_id", "event_type", "session_id"):
        fields[name] = fields[name] or None
    shown: dict[str, Any] = fields | {
        "position": str(letter.position),
        "state": "redriving" if letter.redriving else "dead",
        "parked_behind": await parking.count(partition, letter.group, letter.session_id) if letter.session_id else 0,
        "buried_at": iso(letter.buried_ms),
    }
    if after is not None:
        shown["lost_after"] = str(after)
    return shown | ({"traceback": traceback} if whole else {})
