"""Generators of events for laws: small alphabets, so that ids meet, repeat and refer to each other."""

from __future__ import annotations

from hypothesis import strategies as st

from context_graph.domain.event import Envelope, EventId, LedgerEvent, SessionId, TenantId
from context_graph.domain.position import Position

RECEIPT = "receipt-0198a3c2-5b1e-7c44-9d3a-2f6b8e0d1c55"
IDS = st.sampled_from([f"e{number}" for number in range(8)])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

ENVELOPES = st.builds(
    Envelope,
    event_id=IDS.map(EventId),
    event_type=st.sampled_from(["user.message", "agent.message", "tool.call", "tool.result"]),
    session_id=st.sampled_from(["s1", "s2", "s 3}"]).map(SessionId),
    agent_id=st.sampled_from(["support", "coder"]),
    occurred_at=st.integers(0, 5000),
    trace_id=st.none() | st.just("trace"),
    user_id=st.none() | st.sampled_from(["nadia", "omar"]),
    parent_event_id=st.none() | IDS.map(EventId),
    caused_by=st.lists((IDS | st.just(RECEIPT)).map(EventId), max_size=3).map(tuple),
    tool_name=st.none() | st.sampled_from(["refund", "track"]),
    ended_at=st.none() | st.integers(5000, 9000),
    status=st.none() | st.sampled_from(["completed", "failed"]),
    schema_version=st.integers(1, 3),
    importance_hint=st.none() | st.integers(1, 10),
    origin=st.none() | st.sampled_from(["user", "agent", "tool"]),
    payload=JSON,
    payload_ref=st.none() | st.just("s3://x"),
)


def _ledger(envelopes: list[Envelope]) -> list[LedgerEvent]:
    """Each id once, as the ledger keeps it, at increasing positions."""
    first = {envelope.event_id: envelope for envelope in reversed(envelopes)}
    return [
        LedgerEvent(TenantId("default"), Position(0, 1_700_000_000_000 + place // 3, place % 3), envelope)
        for place, envelope in enumerate(first.values())
    ]


LEDGERS = st.lists(ENVELOPES, max_size=12).map(_ledger)
