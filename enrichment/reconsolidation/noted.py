"""Facts as events: what is appended of a stretch of a session that was read, and what a mark of it says later. Pure.

Which of two facts holds is decided by when their evidence was said, not by which was noted first; of two at the same
time by the place of their evidence in the ledger. So the order in which sessions are read changes nothing (adr/0040).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from context_graph.domain.event import (
    FACT_SUPERSEDED_TYPE,
    FACT_TYPE,
    FACTS_READ_TYPE,
    Envelope,
    EventId,
    JsonValue,
    LedgerEvent,
    SessionId,
    iso,
)
from context_graph.domain.learned import Reason, plain, statement
from context_graph.domain.places import moment_key
from context_graph.domain.position import Position
from enrichment.reconsolidation.facts import PROMPT_VERSION, Claim, Known, Read, Said
from enrichment.reconsolidation.plan import AGENT


def stretch_id(session_id: str, lines: Sequence[Said], model: str, again: int) -> EventId:
    """The id of what says that these lines were read. `again`: the how manieth time, if not the first."""
    first, last = lines[0].position, lines[-1].position
    parts = (session_id, str(first), str(last), model, str(PROMPT_VERSION))
    return EventId(f"facts-{_digest(*parts, str(again)) if again else _digest(*parts)}")


def events_of(
    session_id: str, lines: Sequence[Said], read: Read, known: Known, model: str, *, again: int = 0
) -> list[Envelope]:
    """What to append in one step: facts, what they take the place of, and last the mark that these lines were read."""
    mark = stretch_id(session_id, lines, model, again)
    facts = {claim.place: _fact(claim, mark, model) for claim in read.claims}
    events = list(facts.values())
    for claim in read.claims:
        for label, reason in claim.against:
            for other in _named(label, facts, known):
                if other.user_id == claim.user_id and other.id != facts[claim.place].event_id:
                    events.append(_superseded(facts[claim.place], other, reason))
    events.append(_mark(mark, session_id, lines, read, model, again=again))
    return list({event.event_id: event for event in events}.values())


def counted(created: Sequence[Envelope], read: Read) -> dict[str, int]:
    """What metrics tell of a stretch, given which of its events are new. A stretch that was read before counts once."""
    counts = Counter[str]()
    for event in created:
        if event.event_type == FACT_TYPE:
            counts["facts_noted"] += 1
        elif event.event_type == FACT_SUPERSEDED_TYPE and isinstance(event.payload, dict):
            counts[f"facts_superseded:{event.payload['reason']}"] += 1
        elif event.event_type == FACTS_READ_TYPE and read.reason is None:
            counts.update(f"facts_refused:{fault}" for fault in read.refused)
    return counts


@dataclass(frozen=True, slots=True)
class _Other:
    id: str
    user_id: str | None
    valid_from: int
    evidence: Position


def _named(label: str, facts: Mapping[int, Envelope], known: Known) -> list[_Other]:
    """Which facts a label of an answer names."""
    number = int(label[1:])
    if label[0] == "F":
        own = facts.get(number)
        return [] if own is None else [_Other(own.event_id, own.user_id, own.occurred_at, _evidence(own))]
    group = known.groups[number - 1] if 1 <= number <= len(known.groups) else ()
    return [_Other(fact.id, fact.user_id, fact.valid_from, fact.event_position) for fact in group]


def _evidence(fact: Envelope) -> Position:
    payload: Any = fact.payload
    return Position.parse(payload["evidence"]["position"])


def _fact(claim: Claim, mark: str, model: str) -> Envelope:
    source = claim.said.event
    words = (claim.subject, claim.predicate, claim.object)
    return Envelope(
        event_id=EventId(f"fact-{_digest(mark, source.envelope.event_id, claim.kind, *map(plain, words))}"),
        event_type=FACT_TYPE,
        session_id=source.envelope.session_id,
        agent_id=AGENT,
        occurred_at=source.envelope.occurred_at,
        user_id=source.envelope.user_id,
        caused_by=(source.envelope.event_id,),
        origin="derived",
        payload={
            "subject": claim.subject,
            "predicate": claim.predicate,
            "object": claim.object,
            "kind": claim.kind,
            "text": statement(*words),
            "quote": claim.quote,
            "evidence": {"event_id": source.envelope.event_id, "position": str(source.position)},
            "valid_from": iso(source.envelope.occurred_at),
            "model": model,
            "prompt_version": PROMPT_VERSION,
        },
    )


def _superseded(fact: Envelope, other: _Other, reason: Reason) -> Envelope:
    """Whichever of the two was said earlier holds no longer; of two in one event the one that was known."""
    said, known = (fact.occurred_at, moment_key(_evidence(fact))), (other.valid_from, moment_key(other.evidence))
    newer = said >= known
    loser, winner = (other.id, fact.event_id) if newer else (fact.event_id, other.id)
    since = max(fact.occurred_at, other.valid_from)
    return Envelope(
        event_id=EventId(f"superseded-{_digest(loser, winner)}"),
        event_type=FACT_SUPERSEDED_TYPE,
        session_id=fact.session_id,
        agent_id=AGENT,
        occurred_at=since,
        user_id=fact.user_id,
        caused_by=(EventId(winner), EventId(loser)),
        origin="derived",
        payload={"fact_id": loser, "by": winner, "reason": reason, "valid_to": iso(since)},
    )


def _mark(mark: EventId, session_id: str, lines: Sequence[Said], read: Read, model: str, *, again: int) -> Envelope:
    payload: dict[str, JsonValue] = {
        "covers": {
            "events": len(lines),
            "first_position": str(lines[0].position),
            "last_position": str(lines[-1].position),
        },
        "model": model,
        "prompt_version": PROMPT_VERSION,
        "facts": len(read.claims),
        "refused": len(read.refused),
    }
    if read.reason is not None:
        payload |= {"reason": read.reason, "given_up": True}
    if again:
        payload["reread"] = again
    return Envelope(
        event_id=mark,
        event_type=FACTS_READ_TYPE,
        session_id=SessionId(session_id),
        agent_id=AGENT,
        occurred_at=lines[-1].event.envelope.occurred_at,
        origin="derived",
        payload=payload,
    )


@dataclass(frozen=True, slots=True)
class Mark:
    """A stretch that was read. `given_up`: no answer about it could be believed. `again`: the how manieth reading."""

    first: Position
    last: Position
    given_up: bool
    again: int


def mark_of(event: LedgerEvent) -> Mark | None:
    """What a mark says; None for other events."""
    payload: Any = event.envelope.payload
    if event.envelope.event_type != FACTS_READ_TYPE or not isinstance(payload, dict):
        return None
    first, last = (Position.parse(payload["covers"][name]) for name in ("first_position", "last_position"))
    return Mark(first, last, "reason" in payload, payload.get("reread", 0))


def _digest(*parts: str) -> str:
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
