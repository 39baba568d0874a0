"""What the answers about the graph look like, for OpenAPI. As `answer_shapes.py`."""

from __future__ import annotations

from typing import Any

from context_graph.api.answer_shapes import answer, ref

Shape = dict[str, Any]

_S: Shape = {"type": "string"}
_SN: Shape = {"type": ["string", "null"]}
_I: Shape = {"type": "integer", "minimum": 0}
_B: Shape = {"type": "boolean"}
_IDS: Shape = {"type": "array", "items": _S}
_TIME: Shape = {"type": "string", "format": "date-time"}


def _all(**properties: Shape) -> Shape:
    """An object that has all of these."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Shape) -> Shape:
    return {"type": "array", "items": items}


def _map(values: Shape) -> Shape:
    return {"type": "object", "additionalProperties": values}


_PAGE = _all(next_cursor=_SN)
_META = {"as_of": _SN, "truncated": _IDS, "complete": _B}
_NODE = _all(
    kind={"enum": ["event", "summary", "receipt", "feedback", "fact", "placeholder", "session", "agent", "user",
                   "tool", "entity"]},
    attributes=_map({"type": ["string", "boolean", "array"]}),
    provenance={"type": ["object", "null"]},
    scores=_map({"type": "number"}),
    reason=_S,
    depth=_I,
    via={**_SN, "description": "the node through which it was first reached"},
)  # fmt: skip
_EDGE = _all(source=_S, target=_S, type=_S, properties={"type": "object"}, position=_S)
_GRAPH = {"nodes": _map(_NODE), "edges": _list(_EDGE), "page": _PAGE}
_PATHS = _list(_list(_all(event_id=_S, position=_SN)))
_IMPACT = _all(
    events=_I, deepest=_I, by_type=_map(_I), sessions=_IDS, agents=_IDS, failed=_IDS, last_occurred_at=_SN
)  # fmt: skip
_NODE_EXAMPLE = {
    "kind": "event",
    "attributes": {"event_type": "tool.call", "tool_name": "refund", "origin": "tool", "text": "refund(order id: W1)",
                   "keywords": ["refund", "order"]},
    "provenance": {
        "event_id": "call-1", "position": "0-1788254999123-0", "occurred_at": "2026-09-20T10:00:00.000Z",
        "session_id": "chat-17", "agent_id": "support", "trace_id": None,
    },
    "scores": {}, "reason": "asked for", "depth": 0, "via": None,
}  # fmt: skip
_EFFECT_EXAMPLE = {
    **_NODE_EXAMPLE, "reason": "effects, 1 steps away", "depth": 1, "via": "call-1",
    "attributes": {"event_type": "tool.result", "tool_name": "refund", "origin": "tool", "text": "refunded"},
}  # fmt: skip
_EDGE_EXAMPLE = {
    "source": "result-1", "target": "call-1", "type": "CAUSED_BY", "properties": {"explicit": True},
    "position": "0-1788254999124-0",
}  # fmt: skip
_META_EXAMPLE: dict[str, Any] = {"as_of": None, "truncated": [], "complete": True}
_LINEAGE_EXAMPLE: dict[str, Any] = {
    "nodes": {"call-1": _NODE_EXAMPLE, "result-1": _EFFECT_EXAMPLE}, "edges": [_EDGE_EXAMPLE],
    "page": {"next_cursor": None},
    "meta": {
        "root": "call-1", **_META_EXAMPLE,
        "paths": [[{"event_id": "call-1", "position": "0-1788254999123-0"},
                   {"event_id": "result-1", "position": "0-1788254999124-0"}]],
    },
}  # fmt: skip
_IMPACT_EXAMPLE: dict[str, Any] = {
    "events": 1, "deepest": 1, "by_type": {"tool.result": 1}, "sessions": ["chat-17"], "agents": ["support"],
    "failed": [], "last_occurred_at": "2026-09-20T10:00:01.000Z",
}  # fmt: skip
LINEAGE = answer(
    "The causal graph around the event", _all(**_GRAPH, meta=_all(root=_S, paths=_PATHS, **_META)), _LINEAGE_EXAMPLE
)
IMPACT = answer(
    "What it led to",
    _all(**_GRAPH, meta=_all(root=_S, paths=_PATHS, impact=_IMPACT, **_META)),
    _LINEAGE_EXAMPLE | {"meta": _LINEAGE_EXAMPLE["meta"] | {"impact": _IMPACT_EXAMPLE}},
)
GRAPH = answer(
    "The graph around the start",
    _all(**_GRAPH, meta=_all(missing=_list(_all(kind=_S, id=_S)), **_META)),
    {
        "nodes": {"call-1": _NODE_EXAMPLE}, "edges": [], "page": {"next_cursor": None},
        "meta": {"missing": [], **_META_EXAMPLE},
    },
)  # fmt: skip
_FACTS = {
    "session_id": _S, "began_at_position": _S, "began_at": _TIME, "first_occurred_at": _TIME,
    "last_occurred_at": _TIME, "events": _I,
    "complete": {**_B, "description": "false: `events` is the least, there were too many to count as of then"},
    "agents": _IDS, "users": _IDS, "tools": _IDS, "event_types": _IDS,
}  # fmt: skip
_FACTS_EXAMPLE: dict[str, Any] = {
    "session_id": "chat-17", "began_at_position": "0-1788254999123-0", "began_at": "2026-09-20T10:00:00.123Z",
    "first_occurred_at": "2026-09-20T10:00:00.000Z", "last_occurred_at": "2026-09-20T10:04:00.000Z", "events": 12,
    "complete": True, "agents": ["support"], "users": ["lena"], "tools": ["refund"],
    "event_types": ["user.message", "agent.message", "tool.call", "tool.result"],
}  # fmt: skip
SESSIONS = answer(
    "Latest begun first",
    _all(sessions=_list(_all(**_FACTS)), page=_PAGE, meta=_all(scanned=_I, **_META)),
    {"sessions": [_FACTS_EXAMPLE], "page": {"next_cursor": None}, "meta": _META_EXAMPLE | {"scanned": 1}},
)
_SUMMARY = {"type": ["object", "null"], "description": "the newest: its event, text, method and the events it cites"}
SESSION = answer(
    "The session",
    _all(**_FACTS, summary=_SUMMARY, episodes=_list({"type": "object"}), meta=_all(**_META)),
    _FACTS_EXAMPLE | {"summary": None, "episodes": [], "meta": _META_EXAMPLE},
)
_SHARED = _all(entity=_S, weight={"type": "number"}, event_ids=_IDS, positions=_IDS)
_RELATED = _all(
    session_id=_S, score={"type": "number"}, position=_S, entities=_list(_SHARED),
    similarity={"type": ["number", "null"], "description": "cosine of the summaries, where it is above 0.5"},
)  # fmt: skip
RELATED = answer("Best first", _all(session_id=_S, related=_list(_RELATED), meta=_all(**_META)))
_COMMUNITY = {
    "id": _S, "size": _I, "events": _I, "members": _list(_all(entity=_S, centrality={"type": "number"}, events=_I)),
}  # fmt: skip
COMMUNITIES = answer("Largest first", _all(communities=_list(_all(**_COMMUNITY)), page=_PAGE, meta=_all(**_META)))
COMMUNITY = answer(
    "The community",
    _all(
        **_COMMUNITY,
        names={"type": "object", "description": "member to all its names, of those that have several"},
        sessions=_list(_all(session_id=_S, events=_I)),
        summary={"type": ["object", "null"], "description": "method, and sentences with the events that they cite"},
        meta=_all(**_META),
    ),
)
TIMELINE = answer(
    "In order of occurrence",
    _all(events=_list(ref("EventRead")), page=_PAGE, meta=_all(scanned=_I, **_META)),
)
SIMILAR = answer(
    "The event and those near it in meaning, nearest first",
    _all(**_GRAPH, meta=_all(root=_S, complete=_B)),
)
_EVIDENCE = _all(event_id=_S, position=_S, quote=_S)
_FACT = {
    "id": _S, "kind": {"enum": ["fact", "preference"]}, "subject": _S, "predicate": _S, "object": _S, "text": _S,
    "user_id": _SN, "session_id": _S, "valid_from": {**_TIME, "description": "when it was said first"},
    "valid_to": {**_SN, "description": "since when another holds, by when that was said"},
    "learned_at": {**_S, "description": "position of the fact"},
    "superseded_at": {**_SN, "description": "position at which that was learned"},
    "superseded_by": _SN, "reason": {"enum": ["updated", "contradicted", None]},
    "evidence": _EVIDENCE,
    "also": {
        **_list(_all(id=_S, session_id=_S, valid_from=_TIME, learned_at=_S, evidence=_EVIDENCE)),
        "description": "other sayings of the same, last learned first, up to 200",
    },
}  # fmt: skip
_FACT_EXAMPLE: dict[str, Any] = {
    "id": "fact-9f2c", "kind": "preference", "subject": "user", "predicate": "prefers", "object": "window seats",
    "text": "user prefers window seats", "user_id": "nadia", "session_id": "chat-17",
    "valid_from": "2026-09-20T10:00:00.000Z", "valid_to": None, "learned_at": "0-1788254999123-0",
    "superseded_at": None, "superseded_by": None, "reason": None,
    "evidence": {"event_id": "e-1", "position": "0-1788254000000-0", "quote": "I always want window seats"},
    "also": [],
}  # fmt: skip
FACTS = answer(
    "Last learned first",
    _all(facts=_list(_all(**_FACT)), page=_PAGE, meta=_all(scanned=_I, **_META)),
    {"facts": [_FACT_EXAMPLE], "page": {"next_cursor": None}, "meta": _META_EXAMPLE | {"scanned": 1}},
)
FACT = answer(
    "The fact, its evidence and its history",
    _all(**_FACT, event={"type": ["object", "null"]}, history=_list(_all(**_FACT)), meta=_all(**_META)),
    _FACT_EXAMPLE | {"event": None, "history": [_FACT_EXAMPLE], "meta": _META_EXAMPLE},
)

REREAD: dict[str, Any] = {
    "description": "It is asked for, by the how manieth event of its kind in the session",
    "content": {
        "application/json": {
            "example": {"session_id": "chat-17", "reread": 1, "position": "0-1788255012345-0", "run_id": "run-1"}
        }
    },
}
