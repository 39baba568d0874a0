"""What a replay leaves out because it is forgotten: the pure counterpart of what the stages take away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from context_graph.delivery.forgetting import place_of
from context_graph.domain.event import SERVICE_SESSION, LedgerEvent
from context_graph.domain.forgetting import Decision, Decisions, decision_of, decisions, standing
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.text import SUMMARY_ID_PREFIX, session_scope
from context_graph.store.facts import (
    DOCUMENT,
    EFFECT,
    ENTITIES,
    EVENT,
    FORGOTTEN,
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
_TAKEN_FROM = ("agent:", "tool:", "user:")  # timelines; from those of sessions when all of them goes
_SESSION = "session:"


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
    return {session_id: decisions(standing(found)) for session_id, found in known.items()}


def without_forgotten(
    events: Sequence[LedgerEvent], facts: Iterable[Fact], known: dict[str, Decisions]
) -> Iterator[Fact]:
    """The facts of these events that stay. Agents, tools, people, sessions are listed while an event of theirs stands.

    `known`: what `read_decisions` answers.
    """
    gone, members, placeless, alive = _parted(events, known)
    for fact in facts:
        owner, _, member = fact.name.partition("\0")
        decided = _deciding(fact, known)
        taken = owner.startswith(_TAKEN_FROM) or fact.kind in (EFFECT, OPINION)
        if decided is not None and decided.summary_forgotten(fact.at):
            stays = False
        elif fact.kind in _OF_AN_EVENT:
            stays = fact.name not in gone
        elif fact.kind in (TIMELINE, EFFECT, OPINION):
            stays = member not in (members if taken else placeless)
        elif fact.kind == REGISTERED:
            stays = owner in alive or not owner.startswith((*_TAKEN_FROM, _SESSION))
        else:
            stays = fact.kind != FORGOTTEN or _stands(owner, member, known)
        if stays:
            yield fact


def _parted(
    events: Sequence[LedgerEvent], known: dict[str, Decisions]
) -> tuple[set[str], set[str], set[str], set[str]]:
    """What is forgotten, by id and by member of a timeline, the members that leave their session too; who is listed."""
    gone, members, placeless, alive = set[str](), set[str](), set[str](), set[str]()
    for event in events:
        envelope = event.envelope
        if envelope.is_derived:
            continue
        decided, member = known.get(envelope.session_id), event.position.sort_key + envelope.event_id
        if decided is not None and decided.placeless(place_of(event)):
            placeless.add(member)
        else:
            alive.add(_SESSION + envelope.session_id)
        if decided is not None and decided.forgotten(place_of(event)):
            gone.add(envelope.event_id)
            members.add(member)
        else:
            alive |= {f"agent:{envelope.agent_id}", f"tool:{envelope.tool_name}", f"user:{envelope.user_id}"}
    return gone, members, placeless, alive


def _stands(session_id: str, order: str, known: dict[str, Decisions]) -> bool:
    """Whether a decision still says something beside the others about its session."""
    return any(decision.order == order for decision in known[session_id].known)


def _deciding(fact: Fact, known: dict[str, Decisions]) -> Decisions | None:
    """What was decided about the summary that a document or vector is of."""
    if fact.kind not in (DOCUMENT, VECTOR) or not fact.name.startswith(_OF_A_SUMMARY):
        return None
    return known.get(fact.name.removeprefix(_OF_A_SUMMARY))
