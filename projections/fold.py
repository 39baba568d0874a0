"""The fold: from an event to the facts it adds to the graph. Pure, and the only place that decides them.

Whoever changes what it decides raises `FOLD_VERSION` (`domain/graph.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from context_graph.domain.event import SUMMARY_TYPE, JsonValue, LedgerEvent
from context_graph.domain.graph import EventNode, GraphDelta, SummaryNode, timeline_member
from context_graph.errors import PermanentError


def fold(events: Iterable[LedgerEvent]) -> GraphDelta:
    """The facts of these events together. Order does not matter, and an event twice counts once."""
    delta = GraphDelta()
    for event in events:
        if event.envelope.is_derived:
            _fold_derived(delta, event)
        else:
            _fold_event(delta, event)
    return delta


def _fold_event(delta: GraphDelta, event: LedgerEvent) -> None:
    envelope = event.envelope
    member = timeline_member(event.position, envelope.event_id)
    occurred_at = envelope.occurred_at
    delta.events[envelope.event_id] = _node(event)
    delta.put_on_timeline("session", envelope.session_id, member, occurred_at)
    delta.put_on_timeline("agent", envelope.agent_id, member, occurred_at)
    if envelope.user_id is not None:
        delta.put_on_timeline("user", envelope.user_id, member, occurred_at)
    if envelope.tool_name is not None:
        delta.put_on_timeline("tool", envelope.tool_name, member, occurred_at)
    for cause in envelope.causes:
        delta.effects.setdefault(cause, {})[member] = occurred_at


def _fold_derived(delta: GraphDelta, event: LedgerEvent) -> None:
    """Derived events are no part of what happened: a summary becomes a summary node, the rest only event nodes."""
    delta.events[event.envelope.event_id] = _node(event)
    if event.envelope.event_type == SUMMARY_TYPE and not event.erased:
        delta.put_summary(_summary(event))


def _node(event: LedgerEvent) -> EventNode:
    envelope = event.envelope
    return EventNode(
        id=envelope.event_id,
        position=event.position,
        event_type=envelope.event_type,
        session_id=envelope.session_id,
        agent_id=envelope.agent_id,
        occurred_at=envelope.occurred_at,
        origin=envelope.known_origin,
        user_id=envelope.user_id,
        tool_name=envelope.tool_name,
        status=envelope.status,
        trace_id=envelope.trace_id,
        ended_at=envelope.ended_at,
        causes=envelope.causes,
    )


def _summary(event: LedgerEvent) -> SummaryNode:
    payload = event.envelope.payload
    scope = payload.get("scope") if isinstance(payload, Mapping) else None
    sentences = payload.get("sentences") if isinstance(payload, Mapping) else None
    if not isinstance(scope, str) or not isinstance(sentences, list):
        raise PermanentError(f"summary {event.envelope.event_id!r} has no scope or no sentences in its payload")
    cited = (identifier for sentence in sentences for identifier in _cited(sentence))
    return SummaryNode(event.envelope.event_id, scope, event.position, tuple(dict.fromkeys(cited)))


def _cited(sentence: JsonValue) -> list[str]:
    ids = sentence.get("event_ids") if isinstance(sentence, dict) else None
    return [identifier for identifier in ids if isinstance(identifier, str)] if isinstance(ids, list) else []
