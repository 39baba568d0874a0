"""Receipts: what a served context is accounted for with, and the way back from a receipt to the very bytes. Pure.

A receipt names each item's place in the ledger, its section and how its text was cut, in reading order; it holds no
text of any event. The bytes are rendered again from the ledger by the same code that rendered them first, and the
SHA-256 in the receipt says whether they are the same. What was erased since is named, never made up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal, cast

from context_graph.domain.event import (
    RECEIPT_TYPE,
    SERVICE_AGENT,
    SERVICE_SESSION,
    Envelope,
    EventId,
    JsonValue,
    LedgerEvent,
    SessionId,
    iso,
)
from context_graph.domain.position import Position
from context_graph.domain.text import TEXT_VERSION, document_of
from context_graph.retrieval.items import SECTIONS, Item, Section
from context_graph.retrieval.pack import Packed
from context_graph.retrieval.render import FORMATS, Content
from context_graph.retrieval.request import ContextQuery

_CUT = " … "
_MOST_DROPPED = 50  # left out, listed one by one; all are counted
_ANY_IMPORTANCE = 5  # no format shows it

State = Literal["reproduced", "different", "erased", "incomplete"]


@dataclass(frozen=True, slots=True)
class Reproduced:
    """What a receipt's context was.

    `reproduced`: these are the very bytes. `different`: rendered anew they are others, because the rules of rendering
    or of a text have changed since. `erased`: somebody in it was erased, or the receipt itself; `incomplete`: events
    of it cannot be read. Only in the first two cases there is content. `items` are those that can still be read.
    """

    state: State
    format: str
    content: Content | None
    served_sha256: str | None
    sha256: str | None
    items: tuple[Item, ...]
    refs: tuple[int, ...]
    erased: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServedItem:
    """An item as its receipt names it. `cut`: characters of head and tail that were shown, None for all."""

    id: str
    position: Position
    event_ids: tuple[str, ...]
    section: Section
    rank: int
    score: float
    cut: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt read back; of an erased one only where it stands."""

    event: LedgerEvent
    items: tuple[ServedItem, ...] = ()
    request: Mapping[str, JsonValue] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    sha256: str | None = None
    people: tuple[str, ...] = ()

    @property
    def id(self) -> EventId:
        return self.event.envelope.event_id

    @property
    def known_ids(self) -> frozenset[str]:
        """Ids that feedback may name: of items, and of the events behind them."""
        return frozenset(name for item in self.items for name in (item.id, *item.event_ids))


def receipt_of(receipt_id: EventId, query: ContextQuery, packed: Packed, now_ms: int) -> Envelope:
    """The event that accounts for what was served. Its causes are the events that were in it."""
    shown = dict.fromkeys(name for item in packed.items for name in item.event_ids)
    return Envelope(
        event_id=receipt_id,
        event_type=RECEIPT_TYPE,
        session_id=SERVICE_SESSION if query.session_id is None else SessionId(query.session_id),
        agent_id=query.agent_id or SERVICE_AGENT,
        occurred_at=now_ms,
        user_id=query.user_id,
        caused_by=tuple(EventId(name) for name in shown),
        origin="derived",
        payload=_payload(query, packed),
    )


def people_of(query: ContextQuery, packed: Packed) -> tuple[str, ...]:
    """Whom the request and the served items are about: the receipt is forgotten with any of them.

    The query may quote whom it was asked about.
    """
    about = {query.user_id, *(item.document.user_id for item in packed.items)}
    return tuple(sorted(person for person in about if person is not None))


def digest(query_format: str, items: Sequence[Item]) -> str:
    """SHA-256 of the served bytes: of the JSON of `content`, of markdown as it is, of json as markdown shows it."""
    return sha256(FORMATS[query_format].counted(items).encode()).hexdigest()


def _payload(query: ContextQuery, packed: Packed) -> JsonValue:
    request: dict[str, JsonValue] = {
        "query": query.query,
        "session_id": query.session_id,
        "user_id": query.user_id,
        "agent_id": query.agent_id,
        "token_budget": query.token_budget,
        "format": query.format,
        "tokenizer": query.tokenizer,
    }
    if query.as_of is not None:
        request["as_of"] = str(query.as_of.position) if query.as_of.position is not None else iso(query.as_of.ms)
    dropped: list[JsonValue] = [{"id": d.id, "reason": d.reason, "tokens": d.tokens} for d in packed.dropped]
    served = [_item(item, tokens) for item, tokens in zip(packed.items, packed.tokens, strict=True)]
    return {
        "request": request,
        "items": cast("list[JsonValue]", served),
        "used": packed.used,
        "dropped": dropped[:_MOST_DROPPED],
        "dropped_total": len(packed.dropped),
        "people": list(people_of(query, packed)),
        "text_version": TEXT_VERSION,
        "sha256": digest(query.format, packed.items),
    }


def _item(item: Item, tokens: int) -> dict[str, JsonValue]:
    served: dict[str, JsonValue] = {
        "id": item.id,
        "position": str(item.document.position),
        "rank": item.rank,
        "score": round(item.score, 6),
        "section": item.section,
        "tokens": tokens,
    }
    if item.event_ids != (item.id,):
        served["event_ids"] = list(item.event_ids)
    if item.text != item.document.text:
        served["cut"] = list(ends_of(item.text, item.document.text))
    return served


def ends_of(text: str, whole: str) -> tuple[int, int]:
    """How many characters of the head and of the tail of `whole` are shown in `text`, around an ellipsis.

    Raises ValueError when `text` is no such cut.
    """
    place = text.find(_CUT)
    while place >= 0:
        head, tail = text[:place], text[place + len(_CUT) :]
        if whole.startswith(head) and whole.endswith(tail):
            return len(head), len(tail)
        place = text.find(_CUT, place + 1)
    raise ValueError("the text of an item is not a cut of its document's text")


def read_receipt(event: LedgerEvent) -> Receipt:
    """A receipt from its event; of an older form whatever it names."""
    payload = event.envelope.payload
    if not isinstance(payload, dict):
        return Receipt(event)
    raw: Any = payload
    request = raw.get("request") or {}
    items = tuple(_served(item) for item in raw.get("items", ()) if "position" in item)
    dropped = tuple(left_out["id"] for left_out in raw.get("dropped", ()))
    return Receipt(event, items, request, dropped, raw.get("sha256"), tuple(raw.get("people", ())))


def _served(raw: Mapping[str, Any]) -> ServedItem:
    cut = raw.get("cut")
    return ServedItem(
        id=raw["id"],
        position=Position.parse(raw["position"]),
        event_ids=tuple(raw.get("event_ids", (raw["id"],))),
        section=raw["section"] if raw["section"] in SECTIONS else "relevant",
        rank=raw["rank"],
        score=raw["score"],
        cut=None if cut is None else (cut[0], cut[1]),
    )


def reproduce(receipt: Receipt, events: Mapping[Position, LedgerEvent]) -> Reproduced:
    """The served context again. `events`: what the ledger has at the items' positions."""
    shape = str(receipt.request.get("format", "json"))
    if receipt.event.erased:
        return Reproduced("erased", shape, None, None, None, (), ())
    items: list[tuple[int, Item]] = []
    erased: list[str] = []
    missing: list[str] = []
    for ref, served in enumerate(receipt.items, 1):
        event = events.get(served.position)
        if event is None:
            missing.append(served.id)
        elif event.erased:
            erased.append(served.id)
        else:
            items.append((ref, _restored(served, event)))
    readable, refs = tuple(item for _, item in items), tuple(ref for ref, _ in items)
    if erased or missing:
        state: State = "erased" if erased else "incomplete"
        return Reproduced(state, shape, None, receipt.sha256, None, readable, refs, tuple(erased), tuple(missing))
    now = digest(shape, readable)
    same: State = "reproduced" if now == receipt.sha256 else "different"
    return Reproduced(same, shape, FORMATS[shape].content(readable), receipt.sha256, now, readable, refs)


def _restored(served: ServedItem, event: LedgerEvent) -> Item:
    document = document_of(event, _ANY_IMPORTANCE)
    text = document.text
    if served.cut is not None:
        head, tail = served.cut
        text = text[:head] + _CUT + text[len(text) - tail :]
    return Item(
        document=document,
        section=served.section,
        text=text,
        score=served.score,
        channels={},
        rank=served.rank,
        bond=served.id,
        cut=served.cut is not None,
        folded=tuple(name for name in served.event_ids if name not in document.event_ids),
    )
