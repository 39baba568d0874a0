"""Receipts as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from context_graph.domain.event import LedgerEvent, iso
from context_graph.domain.text import searchable
from context_graph.retrieval.accounts import Knowledge, ReceiptPage
from context_graph.retrieval.receipts import Receipt, Reproduced, ServedItem

_EXCERPT = 240  # characters of an event's text


def reproduced_json(receipt: Receipt, reproduced: Reproduced) -> dict[str, Any]:
    """The answer of GET /v1/receipts/{id}/content."""
    items = [
        {
            "ref": ref,
            "id": item.id,
            "kind": item.document.kind,
            "event_ids": list(item.event_ids),
            "position": str(item.document.position),
            "session_id": item.document.session_id,
            "occurred_at": iso(item.document.occurred_at),
            "speaker": item.document.speaker,
            "section": item.section,
            "rank": item.rank,
            "score": item.score,
            "text": item.text,
            "cut": item.cut or item.document.whole is not None,
        }
        for ref, item in zip(reproduced.refs, reproduced.items, strict=True)
    ]
    body: dict[str, Any] = {"receipt_id": receipt.id, "state": reproduced.state, "format": reproduced.format}
    if reproduced.content is not None:
        body["content"] = reproduced.content
    return body | {
        "items": items,
        "sha256": {"served": reproduced.served_sha256, "now": reproduced.sha256},
        "erased": list(reproduced.erased),
        "missing": list(reproduced.missing),
    }


def holding_json(event_id: str, page: ReceiptPage, late: Sequence[str]) -> dict[str, Any]:
    """The answer of GET /v1/events/{id}/receipts, without its page."""
    receipts = []
    for receipt in page.receipts:
        held = [(ref, item) for ref, item in enumerate(receipt.items, 1) if event_id in (item.id, *item.event_ids)]
        receipts.append(_head(receipt) | {"as": [_held(event_id, ref, item) for ref, item in held]})
    return {"event_id": event_id, "receipts": receipts, "meta": _meta(late)}


def knowledge_json(knowledge: Knowledge, late: Sequence[str]) -> dict[str, Any]:
    """The answer of GET /v1/events/{id}/context, without its page."""
    event = knowledge.event
    receipts = [
        _head(receipt)
        | {"items": [_item(ref, item) for ref, item in enumerate(receipt.items, 1)], "dropped": list(receipt.dropped)}
        for receipt in knowledge.receipts
    ]
    truncated = ["unserved and since: the last 200 events were looked at"] if knowledge.truncated else []
    return {
        "event": _brief(event),
        "receipts": receipts,
        "unserved": [_brief(one) for one in knowledge.unserved],
        "since": [_brief(one) for one in knowledge.since],
        "meta": _meta([*late, *truncated]),
    }


def _head(receipt: Receipt) -> dict[str, Any]:
    envelope, request = receipt.event.envelope, receipt.request
    return {
        "receipt_id": receipt.id,
        "position": str(receipt.event.position),
        "served_at": iso(envelope.occurred_at),
        "session_id": request.get("session_id"),
        "agent_id": envelope.agent_id,
        "user_id": envelope.user_id,
        "query": request.get("query"),
        "as_of": request.get("as_of"),
        "format": request.get("format"),
        "erased": receipt.event.erased,
    }


def _held(event_id: str, ref: int, item: ServedItem) -> dict[str, Any]:
    other = "summary" if item.id.startswith("summary:") else "folded"
    how = "itself" if item.id == event_id else other
    return {"how": how, **_item(ref, item)}


def _item(ref: int, item: ServedItem) -> dict[str, Any]:
    return {
        "ref": ref,
        "id": item.id,
        "event_ids": list(item.event_ids),
        "position": str(item.position),
        "section": item.section,
        "rank": item.rank,
        "score": item.score,
    }


def _brief(event: LedgerEvent) -> dict[str, Any]:
    envelope = event.envelope
    return {
        "event_id": envelope.event_id,
        "event_type": envelope.event_type,
        "session_id": envelope.session_id,
        "agent_id": envelope.agent_id,
        "occurred_at": iso(envelope.occurred_at),
        "position": str(event.position),
        "text": "" if event.erased else " ".join(searchable(envelope).text.split())[:_EXCERPT],
        "erased": event.erased,
    }


def _meta(truncated: Sequence[str]) -> dict[str, Any]:
    return {"complete": not truncated, "truncated": list(truncated)}
