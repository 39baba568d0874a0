"""Schemas of the event types that this service reads by name: what it looks for in their payloads.

Permissive: they describe the fields that have a meaning here and let everything else through. A tenant's own schema of
the same type and version takes the place of one of these, except for the types that only the service appends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from context_graph.domain.event import (
    ANSWER_REFUSED_TYPE,
    ENTITY_MERGE_TYPE,
    ENTITY_SPLIT_TYPE,
    ERASURE_TYPE,
    FACT_SUPERSEDED_TYPE,
    FACT_TYPE,
    FACTS_READ_TYPE,
    FEEDBACK_TYPE,
    RECEIPT_TYPE,
    REREAD_TYPE,
    SUMMARY_TYPE,
)
from context_graph.ingest.schema_rules import PayloadSchema, compile_schema

RESERVED_TYPES = (
    SUMMARY_TYPE, RECEIPT_TYPE, FEEDBACK_TYPE, ERASURE_TYPE, ENTITY_MERGE_TYPE, ENTITY_SPLIT_TYPE,
    FACT_TYPE, FACT_SUPERSEDED_TYPE, FACTS_READ_TYPE, ANSWER_REFUSED_TYPE, REREAD_TYPE,
)  # fmt: skip


def _schema(title: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"title": title, "type": ["object", "string", "array", "null"], "properties": properties}


_TEXT = {"description": "what was said; searched", "type": ["string", "array", "object", "null"]}
_RESULT = {"description": "what came back, any JSON; searched"}
_CALL = {"description": "as the model sent them: an object, or JSON in a string"}
_WORDS = {"type": "string"}
_IDS = {"type": "array", "items": {"type": "string"}}

_MESSAGE = {"text": _TEXT, "content": _TEXT, "message": _TEXT}

SCHEMAS: Mapping[str, dict[str, Any]] = {
    "user.message": _schema("What a person said", **_MESSAGE),
    "agent.message": _schema("What an agent said", **_MESSAGE),
    "tool.call": _schema("A call of the tool in tool_name", arguments=_CALL),
    "tool.result": _schema("What a tool answered", result=_RESULT, error=_RESULT),
    "agent.decision": _schema("What an agent decided, and why", **_MESSAGE, reason=_TEXT),
    "agent.handover": _schema("Another agent takes over", **_MESSAGE, to={"type": ["string", "null"]}),
    SUMMARY_TYPE: _schema("A summary, made by the service", text=_TEXT),
    RECEIPT_TYPE: _schema("A context that was served", request={"type": "object"}, items={"type": "array"}),
    FEEDBACK_TYPE: _schema("Whether a served context helped", useful=_IDS, not_useful=_IDS),
    ERASURE_TYPE: _schema("A person or a session was erased"),
    ENTITY_MERGE_TYPE: _schema("Names that are one thing", entities=_IDS),
    ENTITY_SPLIT_TYPE: _schema("Names that are different things", entities=_IDS),
    FACT_TYPE: _schema(
        "A fact or a preference that a language model noted, with the words that hold it",
        subject=_WORDS,
        predicate=_WORDS,
        object=_WORDS,
        kind={"enum": ["fact", "preference"]},
        quote=_WORDS,
        evidence={"type": "object"},
        text=_TEXT,
    ),
    FACT_SUPERSEDED_TYPE: _schema(
        "A fact holds no longer: another took its place",
        fact_id=_WORDS,
        by=_WORDS,
        reason={"enum": ["updated", "contradicted"]},
    ),
    FACTS_READ_TYPE: _schema("Up to where a session was read for facts", covers={"type": "object"}),
    ANSWER_REFUSED_TYPE: _schema("An answer of the language model that could not be believed", reason=_WORDS),
    REREAD_TYPE: _schema("Somebody asked to read a session again", number={"type": "integer"}),
}


def builtin_schemas() -> dict[str, dict[int, PayloadSchema]]:
    """Compiled, by event type and version: all are version 1."""
    return {name: {1: compile_schema(name, 1, schema, "service")} for name, schema in SCHEMAS.items()}
