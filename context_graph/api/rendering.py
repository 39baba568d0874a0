"""Values as JSON: the one place where an event's wire names are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import Response

from context_graph.domain.document import Document
from context_graph.domain.event import LedgerEvent, iso
from context_graph.errors import FieldProblem
from context_graph.models.tokens import ESTIMATED
from context_graph.retrieval.items import Item
from context_graph.retrieval.request import AsOf, SearchQuery
from context_graph.retrieval.served import Found, Served

_MOST_DROPPED = 50  # items left out that are listed one by one; all are counted


def json_response(body: object, status: int = 200) -> Response:
    """A JSON answer by orjson."""
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")


def event_json(event: LedgerEvent) -> dict[str, Any]:
    """An event with the envelope's names and what the server assigned; absent fields are absent."""
    envelope = event.envelope
    fields: dict[str, Any] = {
        "event_id": envelope.event_id,
        "event_type": envelope.event_type,
        "session_id": envelope.session_id,
        "agent_id": envelope.agent_id,
        "occurred_at": iso(envelope.occurred_at),
        "trace_id": envelope.trace_id,
        "user_id": envelope.user_id,
        "parent_event_id": envelope.parent_event_id,
        "caused_by": list(envelope.caused_by) or None,
        "tool_name": envelope.tool_name,
        "ended_at": None if envelope.ended_at is None else iso(envelope.ended_at),
        "status": envelope.status,
        "schema_version": envelope.schema_version,
        "stored_schema_version": event.stored_schema_version,
        "importance_hint": envelope.importance_hint,
        "origin": envelope.origin,
        "payload": envelope.payload,
        "payload_ref": envelope.payload_ref,
        "erased": event.erased or None,
        "position": str(event.position),
        "recorded_at": iso(event.recorded_at),
        "tenant": event.tenant,
    }
    return {name: value for name, value in fields.items() if value is not None}


def warnings_json(warnings: Sequence[FieldProblem]) -> list[dict[str, str]]:
    """Where an event that was kept differs from its schema."""
    return [{"pointer": w.pointer, "detail": w.detail, "remedy": w.remedy, "code": w.code} for w in warnings]


def served_json(served: Served) -> dict[str, Any]:
    """The answer of POST /v1/context."""
    packed, query = served.packed, served.query
    items = [
        _item_json(item, ref, tokens, explain=query.explain)
        for ref, (item, tokens) in enumerate(zip(packed.items, packed.tokens, strict=True), 1)
    ]
    body: dict[str, Any] = {"receipt_id": served.receipt_id}
    if served.content is not None:
        body["content"] = served.content
    body["items"] = items
    body["budget"] = {
        "limit": query.token_budget,
        "used": packed.used,
        "tokenizer": query.tokenizer,
        "estimated": query.tokenizer in ESTIMATED,
        "by_section": packed.by_section,
        "overhead": packed.used - sum(packed.by_section.values()),
        "dropped": [{"id": d.id, "reason": d.reason, "tokens": d.tokens} for d in packed.dropped[:_MOST_DROPPED]],
        "dropped_total": len(packed.dropped),
    }
    body["meta"] = {
        "intents": served.understanding.intents,
        "terms": served.understanding.terms,
        "seeds": list(served.seeds),
        "channels": _shares(packed.items),
        "timings_ms": dict(served.timings),
        "as_of": as_of_json(query.as_of),
        "complete": not served.passed.missing and not served.truncated,
        "truncated": [*_late(served.passed.missing), *served.truncated],
        "behind": list(served.passed.behind),
        "recall_available": list(served.recallable),
    }
    return body


def _item_json(item: Item, ref: int, tokens: int, *, explain: bool) -> dict[str, Any]:
    document = item.document
    rendered: dict[str, Any] = {
        "id": item.id,
        "ref": ref,
        "kind": document.kind,
        "event_ids": list(item.event_ids),
        "position": str(document.position),
        "session_id": document.session_id,
        "agent_id": document.agent_id,
        "user_id": document.user_id,
        "event_type": document.event_type,
        "tool_name": document.tool_name,
        "speaker": document.speaker,
        "occurred_at": iso(document.occurred_at),
        "text": item.text,
        **_cut_json(item.text, document, cut=item.cut),
        "tokens": tokens,
        "section": item.section,
        "rank": item.rank,
        "score": round(item.score, 6),
        "reason": item.reason,
        "channels": {name: round(score, 6) for name, score in item.channels.items()},
    }
    if explain:
        rendered["importance"] = document.importance
        rendered["bond"] = item.bond
    return rendered


def _cut_json(shown: str, document: Document, *, cut: bool) -> dict[str, Any]:
    """Whether a text is shown cut, when it was indexed or now, and the characters of the whole."""
    whole = document.whole
    return {"cut": cut or whole is not None, "characters": {"shown": len(shown), "whole": whole or len(document.text)}}


def _shares(items: Sequence[Item]) -> dict[str, float]:
    """What part of the answer each channel brought in, largest first; they sum to 1. Items count alike."""
    shares: dict[str, float] = {}
    for item in items:
        added = {name: score for name, score in item.channels.items() if score > 0}
        whole = sum(added.values())
        for name, score in added.items():
            shares[name] = shares.get(name, 0.0) + score / whole
    total = sum(shares.values())
    return {name: round(share / total, 4) for name, share in sorted(shares.items(), key=lambda pair: -pair[1])}


def _late(missing: Sequence[str]) -> list[str]:
    return [f"{stage} has not passed min_position" for stage in missing]


def as_of_json(as_of: AsOf | None) -> str | None:
    """As of when an answer is, in the form in which it was asked."""
    if as_of is None:
        return None
    return str(as_of.position) if as_of.position is not None else iso(as_of.ms)


def search_json(query: SearchQuery, found: Found, cursor: str | None) -> dict[str, Any]:
    """The answer of POST /v1/search."""
    results = [
        {
            "id": candidate.document.id,
            "kind": candidate.document.kind,
            "event_ids": list(candidate.document.event_ids),
            "position": str(candidate.document.position),
            "session_id": candidate.document.session_id,
            "agent_id": candidate.document.agent_id,
            "user_id": candidate.document.user_id,
            "event_type": candidate.document.event_type,
            "tool_name": candidate.document.tool_name,
            "occurred_at": iso(candidate.document.occurred_at),
            "text": candidate.document.text,
            **_cut_json(candidate.document.text, candidate.document, cut=False),
            "score": round(candidate.score, 6),
            "channels": {name: round(score, 6) for name, score in candidate.channels.items()},
        }
        for candidate in found.results
    ]
    return {
        "results": results,
        "page": {"next_cursor": cursor},
        "meta": {
            "complete": not found.passed.missing and not found.truncated,
            "truncated": [*_late(found.passed.missing), *found.truncated],
            "behind": list(found.passed.behind),
            "as_of": as_of_json(query.as_of),
        },
    }
