"""Envelopes as bytes: the canonical JSON that is stored, hashed and read back.

Canonical means: keys sorted at every level, no insignificant space, absent fields absent. Two envelopes are the same
event exactly when these bytes are equal; `content_hash` is BLAKE2b over them, 16 bytes (RFC 7693).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import orjson

from context_graph.domain.event import Envelope, JsonValue
from context_graph.store import sealing

_OPTIONAL = (
    "trace_id",
    "user_id",
    "parent_event_id",
    "tool_name",
    "ended_at",
    "status",
    "importance_hint",
    "origin",
    "payload",
    "payload_ref",
)


def encode(envelope: Envelope) -> bytes:
    """Canonical JSON of an envelope. Times stay integers (ms UTC); defaults are left out."""
    fields: dict[str, Any] = {
        "event_id": envelope.event_id,
        "event_type": envelope.event_type,
        "session_id": envelope.session_id,
        "agent_id": envelope.agent_id,
        "occurred_at": envelope.occurred_at,
    }
    for name in _OPTIONAL:
        value = getattr(envelope, name)
        if value is not None:
            fields[name] = value
    if envelope.caused_by:
        fields["caused_by"] = envelope.caused_by
    if envelope.schema_version != 1:
        fields["schema_version"] = envelope.schema_version
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)


def decode(body: bytes) -> Envelope:
    """The inverse of `encode`. Raises ValueError on bytes that `encode` did not make."""
    try:
        fields: Any = orjson.loads(body)
        if not isinstance(fields, dict):
            raise ValueError(f"not a stored envelope: JSON, but a {type(fields).__name__}")
        fields["caused_by"] = tuple(fields.get("caused_by", ()))
        return Envelope(**fields)
    except TypeError as error:
        raise ValueError(f"not a stored envelope: {error}") from error


def identity(body: bytes) -> tuple[str, str] | None:
    """The event id and the session id in a stored body, sealed or not; None when it is no envelope."""
    try:
        fields = _clear_fields(body)
        event_id, session_id = fields["event_id"], fields["session_id"]
    except (ValueError, TypeError, KeyError):
        return None
    return (event_id, session_id) if isinstance(event_id, str) and isinstance(session_id, str) else None


def event_type(body: bytes) -> str:
    """The event type in a stored body, sealed or not; empty when it has none."""
    try:
        found = _clear_fields(body)["event_type"]
    except (ValueError, TypeError, KeyError):
        return ""
    return found if isinstance(found, str) else ""


def _clear_fields(body: bytes) -> Any:
    return orjson.loads(sealing.clear_part(body) if sealing.is_sealed(body) else body)


def content_hash(body: bytes) -> bytes:
    """16 bytes that are equal exactly when the canonical JSON is (BLAKE2b)."""
    return blake2b(body, digest_size=16).digest()


def canonical_json(value: JsonValue | dict[str, Any] | list[Any]) -> bytes:
    """Canonical JSON of any JSON value."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
