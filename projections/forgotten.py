"""What a replay leaves out because it is forgotten: the pure counterpart of what the stages take away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from context_graph.delivery.forgetting import place_of
from context_graph.domain.event import SERVICE_SESSION, LedgerEvent
from context_graph.domain.forgetting import Decision, Decisions, decision_of, decisions
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.text import SUMMARY_ID_PREFIX, session_scope
from context_graph.store.facts import (
    DOCUMENT,
    EFFECT,
    ENTITIES,
    EVENT,
    OPINION,
    REGISTERED,
    TIMELINE,
    VECTOR,
    Fact,
)
from context_graph.store.ledger import Ledger

_PAGE = 1000
_OF_AN_EVENT = frozenset((EVENT, DOCUMENT, VECTOR, ENTITIES))
_OF_A_SUMMARY = SUMMARY_ID_PREFIX + session_scope("")
_TAKEN_FROM = ("agent:", "tool:", "user:")  # timelines; those of sessions stay


async def read_decisions(ledger: Ledger, partition: Partition, until: Position) -> dict[str, Decisions]:
    """By session, what was decided up to a position: the service's own session holds all of it."""
    known: dict[str, list[Decision]] = {}
    after: Position | None = None
    while page := await ledger.of_session(partition, SERVICE_SESSION, after, _PAGE):
        after = page[-1].position
        for event in page:
            decision = decision_of(event) if event.position <= until else None
            if decision is not None:
                known.setdefault(decision.session_id, []).append(decision)
    return {session_id: decisions(found) for session_id, found in known.items()}


def without_forgotten(
    events: Sequence[LedgerEvent], facts: Iterable[Fact], known: dict[str, Decisions]
) -> Iterator[Fact]:
    """The facts of these events that stay. Agents, tools and people are listed while an event of theirs is there."""
    gone, members, alive = set[str](), set[str](), set[str]()
    for event in events:
        envelope = event.envelope
        decided = None if envelope.is_derived else known.get(envelope.session_id)
        if decided is not None and decided.forgotten(place_of(event)):
            gone.add(envelope.event_id)
            members.add(event.position.sort_key + envelope.event_id)
        elif not envelope.is_derived:
            alive |= {f"agent:{envelope.agent_id}", f"tool:{envelope.tool_name}", f"user:{envelope.user_id}"}
    for fact in facts:
        owner, _, member = fact.name.partition("\0")
        decided = _deciding(fact, known)
        taken = owner.startswith(_TAKEN_FROM) or fact.kind in (EFFECT, OPINION)
        if decided is not None and decided.summary_forgotten(fact.at):
            stays = False
        elif fact.kind in _OF_AN_EVENT:
            stays = fact.name not in gone
        elif fact.kind in (TIMELINE, EFFECT, OPINION):
            stays = not taken or member not in members
        else:
            stays = fact.kind != REGISTERED or not taken or owner in alive
        if stays:
            yield fact


def _deciding(fact: Fact, known: dict[str, Decisions]) -> Decisions | None:
    """What was decided about the summary that a document or vector is of."""
    if fact.kind not in (DOCUMENT, VECTOR) or not fact.name.startswith(_OF_A_SUMMARY):
        return None
    return known.get(fact.name.removeprefix(_OF_A_SUMMARY))
