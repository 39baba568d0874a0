"""What a language model is made to answer about facts, and people who say things."""

from __future__ import annotations

import json
from typing import Any

from context_graph.domain.event import Envelope, EventId, SessionId
from tests.llm_server import Reply

MINUTE = 60_000
START = 1_764_000_000_000  # ms: some day in November 2025


def preference(line: int, object_: str, quote: str, **more: Any) -> dict[str, Any]:
    """A preference as a model answers it."""
    return {
        "subject": "user", "predicate": "prefers", "object": object_, "kind": "preference", "line": line,
        "quote": quote, "replaces": [], "contradicts": [],
    } | more  # fmt: skip


def noted(*facts: dict[str, Any]) -> Reply:
    """An answer with these facts."""
    return Reply(json.dumps({"facts": list(facts)}))


def says(text: str, number: int = 0, *, session: str = "s1", user: str | None = "nadia", **more: Any) -> Envelope:
    """A message of a person, `number` minutes after the first."""
    fields: dict[str, Any] = {
        "event_id": EventId(f"{session}-{number}"),
        "event_type": "user.message",
        "session_id": SessionId(session),
        "agent_id": "support",
        "occurred_at": START + number * MINUTE,
        "user_id": user,
        "payload": {"text": text},
    }
    return Envelope(**(fields | more))
