"""The fold: from an event to the facts it adds to the graph. Pure, and the only place that decides them.

Whoever changes what it decides raises `FOLD_VERSION` (`domain/graph.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from context_graph.domain.event import (
    FACT_SUPERSEDED_TYPE,
    FACT_TYPE,
    FEEDBACK_TYPE,
    FORGOTTEN_TYPE,
    PINNED_TYPE,
    RECALLED_TYPE,
    RECEIPT_TYPE,
    SERVICE_SESSION,
    SUMMARY_TYPE,
    UNPINNED_TYPE,
    JsonValue,
    LedgerEvent,
    cited_among,
)
from context_graph.domain.forgetting import pin_of
from context_graph.domain.graph import GraphDelta, Opinion, SummaryNode, Verdict, node_of, timeline_member
from context_graph.domain.learned import fact_of, supersession_of
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
    delta.events[envelope.event_id] = node_of(event)
    delta.put_on_timeline("session", envelope.session_id, member, occurred_at)
    delta.put_on_timeline("agent", envelope.agent_id, member, occurred_at)
    if envelope.user_id is not None:
        delta.put_on_timeline("user", envelope.user_id, member, occurred_at)
    if envelope.tool_name is not None:
        delta.put_on_timeline("tool", envelope.tool_name, member, occurred_at)
    for cause in envelope.causes:
        delta.effects.setdefault(cause, {})[member] = occurred_at
    for cited in () if event.erased else cited_among(envelope.causes):
        opinion = Opinion(envelope.event_id, event.position, 1)
        delta.opinions.setdefault(cited, set()).add(opinion)
    named = (("agent", envelope.agent_id), ("user", envelope.user_id), ("tool", envelope.tool_name))
    for kind, name in (*named, ("type", envelope.event_type)):
        if name is not None:
            delta.put_first_seen(envelope.session_id, f"{kind}:{name}", event.position)


def _fold_derived(delta: GraphDelta, event: LedgerEvent) -> None:
    """Derived events are no part of what happened: they stand on no timeline and are nobody's effects.

    Their nodes name no person, who would not be found by a timeline when that person is erased; but for those of
    facts, which have lists of their own. What is forgotten or recalled is told by the decisions' rows: these have no
    nodes, else forgetting would leave more nodes the longer it goes on.
    """
    if event.envelope.event_type in (FORGOTTEN_TYPE, RECALLED_TYPE):
        return
    delta.events[event.envelope.event_id] = replace(node_of(event), user_id=None)
    fold_more = _DERIVED.get(event.envelope.event_type)
    if fold_more is not None:
        fold_more(delta, event)


def _fold_summary(delta: GraphDelta, event: LedgerEvent) -> None:
    if event.erased:
        return
    summary = _summary(event)
    delta.put_summary(summary)
    payload = event.envelope.payload
    if isinstance(payload, dict) and "sessions" in payload:
        people, sessions = _strings(payload.get("people")), _strings(payload["sessions"])
        delta.events[summary.id] = replace(delta.events[summary.id], people=people, sessions=sessions)


def _fold_receipt(delta: GraphDelta, event: LedgerEvent) -> None:
    """What it served are its causes, which stay readable when the receipt is erased: so does this index.

    An agent's are those that it asked for without a session.
    """
    envelope = event.envelope
    member = timeline_member(event.position, envelope.event_id)
    for served in envelope.causes:
        delta.put_receipt("event", served, member)
    if envelope.session_id == SERVICE_SESSION:
        delta.put_receipt("agent", envelope.agent_id, member)
    else:
        delta.put_receipt("session", envelope.session_id, member)
    told_of = _strings(envelope.payload.get("people") if isinstance(envelope.payload, dict) else None)
    delta.events[envelope.event_id] = replace(delta.events[envelope.event_id], people=told_of)
    for person in told_of:
        delta.put_receipt("user", person, member)


def _fold_feedback(delta: GraphDelta, event: LedgerEvent) -> None:
    payload = event.envelope.payload
    receipt_id = event.envelope.parent_event_id
    if not isinstance(payload, dict) or receipt_id is None:
        return  # erased: nobody's opinion any more
    for name, verdict in _VERDICTS:
        ids = payload.get(name)
        for event_id in ids if isinstance(ids, list) else ():
            if isinstance(event_id, str):
                opinion = Opinion(receipt_id, event.position, verdict)
                delta.opinions.setdefault(event_id, set()).add(opinion)


def _fold_pin(delta: GraphDelta, event: LedgerEvent) -> None:
    pin = pin_of(event)
    if pin is not None:
        delta.put_pin(pin)


def _fold_fact(delta: GraphDelta, event: LedgerEvent) -> None:
    fact = fact_of(event)
    if fact is not None:
        delta.learned[fact.id] = fact
        delta.events[fact.id] = replace(delta.events[fact.id], user_id=fact.user_id)


def _fold_superseded(delta: GraphDelta, event: LedgerEvent) -> None:
    supersession = supersession_of(event)
    if supersession is not None:
        delta.superseded.add(supersession)


_VERDICTS: tuple[tuple[str, Verdict], ...] = (("useful", 1), ("not_useful", -1), ("withdrawn", 0))
_DERIVED: Mapping[str, Callable[[GraphDelta, LedgerEvent], None]] = {
    SUMMARY_TYPE: _fold_summary,
    RECEIPT_TYPE: _fold_receipt,
    FEEDBACK_TYPE: _fold_feedback,
    PINNED_TYPE: _fold_pin,
    UNPINNED_TYPE: _fold_pin,
    FACT_TYPE: _fold_fact,
    FACT_SUPERSEDED_TYPE: _fold_superseded,
}


def _summary(event: LedgerEvent) -> SummaryNode:
    payload = event.envelope.payload
    scope = payload.get("scope") if isinstance(payload, Mapping) else None
    sentences = payload.get("sentences") if isinstance(payload, Mapping) else None
    if not isinstance(scope, str) or not isinstance(sentences, list):
        raise PermanentError(f"summary {event.envelope.event_id!r} has no scope or no sentences in its payload")
    cited = (identifier for sentence in sentences for identifier in _cited(sentence))
    return SummaryNode(event.envelope.event_id, scope, event.position, tuple(dict.fromkeys(cited)))


def _strings(value: JsonValue) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _cited(sentence: JsonValue) -> list[str]:
    ids = sentence.get("event_ids") if isinstance(sentence, dict) else None
    return [identifier for identifier in ids if isinstance(identifier, str)] if isinstance(ids, list) else []
