"""Nodes and edges as JSON: the one shape of graph answers (lineage, impact, graph queries). And sessions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from context_graph.api.rendering import as_of_json, event_json
from context_graph.domain.event import FACT_TYPE, FEEDBACK_TYPE, RECEIPT_TYPE, SUMMARY_TYPE, iso
from context_graph.domain.graph import EventNode
from context_graph.domain.keywords import keywords_of
from context_graph.domain.text import cited_events
from context_graph.retrieval.graph_query import Found, GraphNode
from context_graph.retrieval.lineage import Lineage, LineageNode
from context_graph.retrieval.related_sessions import RelatedSession
from context_graph.retrieval.request import AsOf
from context_graph.retrieval.sessions import Session
from context_graph.store.sessions import SessionFacts

_EXCERPT = 240  # characters of an event's text
_MOST_PATHS = 20
_KINDS = {SUMMARY_TYPE: "summary", RECEIPT_TYPE: "receipt", FEEDBACK_TYPE: "feedback", FACT_TYPE: "fact"}


def lineage_json(lineage: Lineage, as_of: AsOf | None, late: Sequence[str]) -> dict[str, Any]:
    """The graph shape, and in its meta the paths from the root to each end, the longest first."""
    truncated = [*late, *lineage.truncated]
    return {
        "nodes": {node.event_id: _lineage_node(node) for node in lineage.nodes.values()},
        "edges": [
            {
                "source": edge.source,
                "target": edge.target,
                "type": "CAUSED_BY",
                "properties": {"explicit": True},
                "position": str(edge.position),
            }
            for edge in lineage.edges.values()
        ],
        "page": {"next_cursor": None},
        "meta": {
            "root": lineage.root,
            "paths": [[_step(node) for node in path] for path in lineage.paths(_MOST_PATHS)],
            "as_of": as_of_json(as_of),
            "truncated": truncated,
            "complete": not truncated,
        },
    }


def impact_json(lineage: Lineage, as_of: AsOf | None, late: Sequence[str]) -> dict[str, Any]:
    """As `lineage_json`, and what it comes to."""
    body = lineage_json(lineage, as_of, late)
    events = [node.event for node in lineage.nodes.values() if node.depth and node.event is not None]
    body["meta"]["impact"] = {
        "events": len(events),
        "deepest": max((node.depth for node in lineage.nodes.values()), default=0),
        "by_type": dict(sorted(Counter(event.event_type for event in events).items())),
        "sessions": sorted({event.session_id for event in events}),
        "agents": sorted({event.agent_id for event in events}),
        "failed": sorted(event.id for event in events if event.status in ("failed", "timeout")),
        "last_occurred_at": iso(max(event.occurred_at for event in events)) if events else None,
    }
    return body


def graph_json(found: Found, as_of: AsOf | None, late: Sequence[str]) -> dict[str, Any]:
    """The answer of POST /v1/graph/query."""
    truncated = [*late, *found.truncated]
    return {
        "nodes": {str(node.id): _graph_node(node) for node in found.nodes.values()},
        "edges": [
            {
                "source": str(edge.source),
                "target": str(edge.target),
                "type": edge.type,
                "properties": dict(edge.properties),
                "position": str(edge.position),
            }
            for edge in found.edges.values()
        ],
        "page": {"next_cursor": None},
        "meta": {
            "missing": [{"kind": node.kind, "id": node.id} for node in found.missing],
            "as_of": as_of_json(as_of),
            "truncated": truncated,
            "complete": not truncated,
        },
    }


def facts_json(facts: SessionFacts) -> dict[str, Any]:
    """A session in a list."""
    return {
        "session_id": facts.session_id,
        "began_at_position": str(facts.began),
        "began_at": iso(facts.began.ms),
        "first_occurred_at": iso(facts.first_at),
        "last_occurred_at": iso(facts.last_at),
        "events": facts.events,
        "complete": facts.complete,
        "agents": list(facts.agents),
        "users": list(facts.users),
        "tools": list(facts.tools),
        "event_types": list(facts.types),
    }


def session_json(session: Session, as_of: AsOf | None, late: Sequence[str]) -> dict[str, Any]:
    """The answer of GET /v1/sessions/{id}."""
    summary = session.summary
    told: dict[str, Any] | None = None
    episodes: list[Any] = []
    if summary is not None and not summary.erased:
        payload = summary.envelope.payload if isinstance(summary.envelope.payload, dict) else {}
        cited = cited_events(summary.envelope)
        told = {
            "event_id": summary.envelope.event_id,
            "position": str(summary.position),
            "text": payload.get("text"),
            "method": payload.get("method"),
            "event_ids": list(cited),
        }
        listed = payload.get("episodes")
        episodes = listed if isinstance(listed, list) else []
    return facts_json(session.facts) | {
        "summary": told,
        "episodes": episodes,
        "meta": {"as_of": as_of_json(as_of), "truncated": list(late), "complete": not late},
    }


def related_json(one: RelatedSession) -> dict[str, Any]:
    """A session that belongs to another, and why."""
    entities = [
        {
            "entity": shared.entity_id,
            "weight": round(shared.weight, 4),
            "event_ids": [shared.here.id, shared.there.id],
            "positions": [str(shared.here.position), str(shared.there.position)],
        }
        for shared in one.shared
    ]
    return {
        "session_id": one.session_id,
        "score": one.score,
        "position": str(one.position),
        "entities": entities,
        "similarity": one.similarity,
    }


def timeline_json(entries: Sequence[Any], late: Sequence[str], scanned: int, as_of: AsOf | None) -> dict[str, Any]:
    """The answer of GET /v1/timeline, without its page."""
    meta = {"scanned": scanned, "as_of": as_of_json(as_of), "truncated": list(late), "complete": not late}
    return {"events": [event_json(event) for event in entries], "meta": meta}


def _step(node: LineageNode) -> dict[str, Any]:
    return {"event_id": node.event_id, "position": None if node.event is None else str(node.event.position)}


def _lineage_node(node: LineageNode) -> dict[str, Any]:
    reason = "asked for" if node.depth == 0 else f"{node.direction}, {node.depth} steps away"
    if node.event is None:
        return _placeholder(reason, node.depth, node.via)
    shown = _event(node.event, node.text, reason, node.depth) | {"via": node.via}
    if node.forgotten:
        shown["attributes"]["forgotten"] = True
        shown["reason"] = f"{reason}; forgotten, read from the ledger"
    return shown


def _graph_node(node: GraphNode) -> dict[str, Any]:
    via = None
    reason = "asked for"
    if node.via is not None:
        other = node.via.source if node.via.target == node.id else node.via.target
        via = str(other)
        reason = f"{node.via.type} {'of' if node.via.target == node.id else 'to'} {via}"
    if node.id.kind == "event":
        if node.event is None:
            return _placeholder(reason, node.depth, via)
        return _event(node.event, node.text, reason, node.depth) | {"via": via}
    return {
        "kind": node.id.kind,
        "attributes": {"id": node.id.id},
        "provenance": None if node.event is None else _provenance(node.event),
        "scores": {},
        "reason": reason,
        "depth": node.depth,
        "via": via,
    }


def _placeholder(reason: str, depth: int, via: str | None) -> dict[str, Any]:
    return {
        "kind": "placeholder",
        "attributes": {},
        "provenance": None,
        "scores": {},
        "reason": f"{reason}; named as a cause, not arrived",
        "depth": depth,
        "via": via,
    }


def _event(event: EventNode, text: str, reason: str, depth: int) -> dict[str, Any]:
    attributes = {
        "event_type": event.event_type,
        "tool_name": event.tool_name,
        "user_id": event.user_id,
        "status": event.status,
        "origin": event.origin,
        "text": text[:_EXCERPT],
        "keywords": list(keywords_of(text)) or None,
    }
    return {
        "kind": _KINDS.get(event.event_type, "event"),
        "attributes": {name: value for name, value in attributes.items() if value is not None},
        "provenance": _provenance(event),
        "scores": {},
        "reason": reason,
        "depth": depth,
    }


def _provenance(event: EventNode) -> dict[str, Any]:
    return {
        "event_id": event.id,
        "position": str(event.position),
        "occurred_at": iso(event.occurred_at),
        "session_id": event.session_id,
        "agent_id": event.agent_id,
        "trace_id": event.trace_id,
    }
