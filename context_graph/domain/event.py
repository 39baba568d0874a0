"""The event envelope: what agents post and what the ledger keeps.

Values here are already valid: `ingest/validation.py` is the gate from JSON, `store/codec.py` turns an envelope into the
bytes that are stored and hashed. Times are integers: milliseconds since 1970-01-01 UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NewType, TypeAlias, get_args

from context_graph.domain.position import Position

TenantId = NewType("TenantId", str)
EventId = NewType("EventId", str)
SessionId = NewType("SessionId", str)

JsonValue: TypeAlias = "None | bool | int | float | str | list[JsonValue] | dict[str, JsonValue]"

Status = Literal["pending", "running", "completed", "failed", "timeout"]
Origin = Literal["user", "agent", "tool", "system", "derived"]
STATUSES: tuple[Status, ...] = get_args(Status)
ORIGINS: tuple[Origin, ...] = get_args(Origin)

# The types of events the service itself appends. They carry what a replay cannot recompute (adr/0004).
SUMMARY_TYPE = "memory.summary"
RECEIPT_TYPE = "memory.receipt"
# As `/v1/context` gives them, a UUID of version 7: an agent's own `receipt-12` is none.
_RECEIPT_ID = re.compile(r"receipt-[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
FEEDBACK_TYPE = "memory.feedback"
ERASURE_TYPE = "memory.erasure"
ENTITY_MERGE_TYPE = "memory.entity_merge"
ENTITY_SPLIT_TYPE = "memory.entity_split"
FORGOTTEN_TYPE = "memory.forgotten"
RECALLED_TYPE = "memory.recalled"
PINNED_TYPE = "memory.pinned"
UNPINNED_TYPE = "memory.unpinned"
FACT_TYPE = "memory.fact"
FACT_SUPERSEDED_TYPE = "memory.fact_superseded"
FACTS_READ_TYPE = "memory.facts_read"
ANSWER_REFUSED_TYPE = "memory.answer_refused"
REREAD_TYPE = "memory.reread"

SERVICE_SESSION = SessionId("context-graph")
"""The service's own session: receipts of requests without a session, tombstones."""
SERVICE_AGENT = "context-graph"
"""Who appends derived events, where no agent asked for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What a caller says happened. Field names are those of the HTTP contract."""

    event_id: EventId
    event_type: str
    session_id: SessionId
    agent_id: str
    occurred_at: int
    trace_id: str | None = None
    user_id: str | None = None
    parent_event_id: EventId | None = None
    caused_by: tuple[EventId, ...] = ()
    tool_name: str | None = None
    ended_at: int | None = None
    status: Status | None = None
    schema_version: int = 1
    importance_hint: int | None = None
    origin: Origin | None = None
    payload: JsonValue = None
    payload_ref: str | None = None

    @property
    def causes(self) -> tuple[EventId, ...]:
        """Every explicit cause once: the parent first, then `caused_by` in the order given."""
        named = ((self.parent_event_id,) if self.parent_event_id is not None else ()) + self.caused_by
        return tuple(dict.fromkeys(named))

    @property
    def is_derived(self) -> bool:
        """Whether the service itself made this event (summaries, receipts, feedback)."""
        return self.origin == "derived"

    @property
    def known_origin(self) -> Origin:
        """The origin as told, else as the event type's first segment suggests: user, tool, system, otherwise agent."""
        if self.origin is not None:
            return self.origin
        first = self.event_type.partition(".")[0]
        return {"user": "user", "tool": "tool", "system": "system"}.get(first, "agent")  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """An envelope in the ledger: with its position and, from the position, when it was recorded."""

    tenant: TenantId
    position: Position
    envelope: Envelope
    stored_schema_version: int | None = None
    """The version it is stored in, when an upcaster has turned it into a newer one (`domain/upcast.py`)."""
    erased: bool = False
    """A tombstone: what it said about its person or in its session was erased; payload and person are None."""

    @property
    def recorded_at(self) -> int:
        """Milliseconds since the epoch, by the ledger's clock (the time half of the stream id)."""
        return self.position.ms


def cited_among(causes: Iterable[str]) -> tuple[str, ...]:
    """What an event cites of a served context: the causes that it names beside the context's receipt."""
    named = tuple(causes)
    others = tuple(cause for cause in named if not _RECEIPT_ID.fullmatch(cause))
    return others if len(others) < len(named) else ()


def opinion_id(receipt_id: str, number: int) -> EventId:
    """The id of the n-th feedback on a receipt, counted from 1 without gaps."""
    return EventId(f"feedback-{number}-{receipt_id}")


def iso(ms: int) -> str:
    """RFC 3339 in UTC with milliseconds: `2026-05-01T12:00:00.000Z`."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"
