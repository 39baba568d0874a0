"""Cursors: where a page of events ended, bound to the query it belongs to.

Opaque outside: base64url of a version, a digest of tenant and query, the places reached and, downwards, the places at
which it ends. Nothing in it is secret, and a forged one reads no more than its tenant may read anyway.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from typing import Any

import orjson

from context_graph.domain.partition import Tenant
from context_graph.domain.places import Places
from context_graph.errors import FieldProblem, InvalidInput
from context_graph.retrieval.event_pages import EventQuery

_VERSION = 1
MAX_LENGTH = 65_536  # characters: some 2,000 buckets; also what the HTTP server takes in one line


@dataclass(frozen=True, slots=True)
class Bound:
    """A query's text that a cursor is bound to, beside its filters: the bounds as the caller gave them."""

    order: str
    before: str | None
    as_of: str | None = None


def write_cursor(tenant: Tenant, query: EventQuery, bound: Bound, places: Places) -> str:
    """The cursor behind a page that ended at `places`."""
    floor = str(query.low) if query.order == "desc" and query.low is not None else None
    body = orjson.dumps([_VERSION, _digest(tenant, query, bound), str(places), floor])
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def resumed(tenant: Tenant, query: EventQuery, bound: Bound, cursor: str) -> EventQuery:
    """The query from where the cursor's page ended. Raises InvalidInput naming /cursor when it belongs to another."""
    digest, places, floor = _read(tenant, cursor)
    if digest != _digest(tenant, query, bound):
        detail = "this cursor belongs to a query with other filters, bounds or order"
        raise _refused(detail, "repeat the first page's query unchanged beside the cursor; only limit may differ")
    if query.order == "asc":
        return replace(query, low=places)
    return replace(query, high=places, low=floor)


def looks_like_cursor(text: str) -> bool:
    """Whether it is meant as a cursor rather than as a position, which begins with a digit."""
    return not text[:1].isdigit()


def _digest(tenant: Tenant, query: EventQuery, bound: Bound) -> str:
    asked = {"tenant": tenant.name, "session": query.session_id, **asdict(query.filter), **asdict(bound)}
    return blake2b(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS), digest_size=9).hexdigest()


def _read(tenant: Tenant, cursor: str) -> tuple[str, Places, Places | None]:
    try:
        body: Any = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        version, digest, places, floor = body
        if version != _VERSION or not isinstance(places, str) or not isinstance(floor, str | None):
            raise ValueError("a cursor of another version")
        low = None if floor is None else Places.parse(floor, tenant.buckets)
        return str(digest), Places.parse(places, tenant.buckets), low
    except (ValueError, TypeError, binascii.Error) as error:
        raise _refused("this is not a cursor", "send back page.next_cursor of the previous page") from error


def _refused(detail: str, remedy: str) -> InvalidInput:
    return InvalidInput([FieldProblem("/cursor", detail, remedy, "cursor")])
