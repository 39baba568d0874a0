"""Which events of the ledger a reader wants: exact values of the envelope's fields, and bounds of their time.

Evaluated on each event as it is read, since the ledger has no index; the search filters (`filters.py`) are for what
has been projected.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from context_graph.domain.event import Envelope


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Every field given must match one of its values; `occurred_from` is inclusive, `occurred_to` exclusive, ms UTC."""

    event_type: tuple[str, ...] = ()
    agent_id: tuple[str, ...] = ()
    user_id: tuple[str, ...] = ()
    tool_name: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()
    trace_id: tuple[str, ...] = ()
    session_id: tuple[str, ...] = ()
    occurred_from: int | None = None
    occurred_to: int | None = None

    def holds(self, envelope: Envelope) -> bool:
        """Whether the event is wanted. `origin` is the one told, else the one its type suggests."""
        if self.occurred_from is not None and envelope.occurred_at < self.occurred_from:
            return False
        if self.occurred_to is not None and envelope.occurred_at >= self.occurred_to:
            return False
        if self.origin and envelope.known_origin not in self.origin:
            return False
        return all(getattr(envelope, name) in wanted for name, wanted in self._exact())

    def _exact(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(name, wanted) for name in _EXACT if (wanted := getattr(self, name))]


_EXACT = tuple(
    field.name for field in fields(EventFilter) if field.name not in {"origin", "occurred_from", "occurred_to"}
)
