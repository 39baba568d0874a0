"""Reading again what was given up: asked for by an event in the session, so that it is counted for good. Pure."""

from __future__ import annotations

from hashlib import blake2b

from context_graph.domain.event import REREAD_TYPE, SERVICE_AGENT, Envelope, EventId, SessionId


def reread_id(session_id: str, number: int) -> EventId:
    """The id of the `number`-th time (from 1) that a session is to be read again: whoever counts asks for these."""
    return EventId("reread-" + blake2b(f"{session_id}\0{number}".encode(), digest_size=16).hexdigest())


def reread_event(session_id: str, number: int, occurred_at: int) -> Envelope:
    """What is appended. `occurred_at`: ms UTC."""
    return Envelope(
        event_id=reread_id(session_id, number),
        event_type=REREAD_TYPE,
        session_id=SessionId(session_id),
        agent_id=SERVICE_AGENT,
        occurred_at=occurred_at,
        origin="derived",
        payload={"number": number},
    )
