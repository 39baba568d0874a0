"""What every read takes: as of when, and behind which write. And the cursors of its pages.

A cursor is opaque outside: base64url of a version, a digest of tenant and query, and the place reached. One of another
tenant or query is refused; nothing in it is secret, and a forged one reads no more than its tenant may read anyway.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import blake2b
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from context_graph.api.moments import parse_as_of, parse_position
from context_graph.domain.filters import NO_FILTERS, Filters, moment, parse
from context_graph.domain.partition import Tenant
from context_graph.domain.position import Position
from context_graph.domain.stages import Stage
from context_graph.errors import FieldProblem, InvalidInput
from context_graph.retrieval.request import AsOf
from context_graph.retrieval.waiting import GRAPH_STAGES, Waiting

_VERSION = 1
MAX_CURSOR = 2048


class Reading(BaseModel):
    """As of when to read, and behind which write of one's own."""

    model_config = ConfigDict(extra="forbid")

    as_of: str | None = Field(
        default=None, max_length=64, description="a position, or an RFC 3339 time of recording: as it was then"
    )
    min_position: str | None = Field(
        default=None, max_length=64, description="wait until the stages have passed this position"
    )
    wait_ms: int = Field(default=5000, ge=0, le=60_000, description="longest wait for min_position, milliseconds")

    @property
    def moment(self) -> AsOf | None:
        """`as_of`, parsed. Raises InvalidInput."""
        return parse_as_of(self.as_of)

    async def waited(self, waiting: Waiting, tenant: Tenant, stages: tuple[Stage, ...] = GRAPH_STAGES) -> list[str]:
        """Wait as asked; what had not passed in time, in words for `meta.truncated`."""
        position = parse_position("min_position", self.min_position)
        missing = await waiting.passed(tenant, position, self.wait_ms, stages)
        return [f"{stage} has not passed min_position" for stage in missing]


class Paged(Reading):
    """A reading in pages."""

    limit: int = Field(default=50, ge=1, le=500)
    cursor: str | None = Field(
        default=None, max_length=MAX_CURSOR, description="page.next_cursor; the rest of the query as before"
    )


def parse_time(name: str, text: str | None) -> int | None:
    """RFC 3339 with an offset, as ms UTC. Raises InvalidInput naming the field."""
    if text is None:
        return None
    try:
        return moment(text)
    except ValueError as error:
        remedy = "send RFC 3339 with an offset, such as 2026-09-01T09:30:00Z (write + as %2B in an address)"
        raise InvalidInput([FieldProblem(f"/{name}", f"{text!r} is not a time: {error}", remedy, "time")]) from error


def named_filters(raw: dict[str, dict[str, Any]] | None) -> Filters:
    """Filters of a request's body. Raises InvalidInput."""
    return parse(raw) if raw else NO_FILTERS


def write_cursor(tenant: Tenant, asked: object, place: list[str | int] | None) -> str | None:
    """The cursor behind a page that ended at `place`, for the query `asked` (JSON without limit and cursor)."""
    if place is None:
        return None
    body = orjson.dumps([_VERSION, _digest(tenant, asked), place])
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def read_cursor(tenant: Tenant, asked: object, cursor: str | None) -> list[Any] | None:
    """The place that a cursor names. Raises InvalidInput naming /cursor when it belongs to another query."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        version, digest, place = orjson.loads(raw)
        if version != _VERSION or not isinstance(place, list):
            raise ValueError("a cursor of another version")
    except (ValueError, TypeError, binascii.Error) as error:
        raise refused("this is not a cursor", "send back page.next_cursor of the previous page") from error
    if digest != _digest(tenant, asked):
        detail = "this cursor belongs to a query with other filters, bounds or order"
        raise refused(detail, "repeat the first page's query unchanged beside the cursor; only limit may differ")
    return place


def place_position(tenant: Tenant, place: list[Any] | None) -> Position | None:
    """The position that a cursor's place is. Raises InvalidInput when a forged one is none of this tenant's."""
    if place is None:
        return None
    try:
        (text,) = place
        position = Position.parse(text)
        if position.bucket >= tenant.buckets:
            raise ValueError("of another bucket")
    except (ValueError, TypeError) as error:
        raise refused("this is not a cursor", "send back page.next_cursor of the previous page") from error
    return position


def refused(detail: str, remedy: str) -> InvalidInput:
    """A cursor that is none."""
    return InvalidInput([FieldProblem("/cursor", detail, remedy, "cursor")])


def _digest(tenant: Tenant, asked: object) -> str:
    text = orjson.dumps([tenant.name, asked], option=orjson.OPT_SORT_KEYS)
    return blake2b(text, digest_size=9).hexdigest()
