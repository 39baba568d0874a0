"""The graph's vocabulary, and the difference one batch of events makes to it.

`GraphDelta` is what Stage 1's fold returns and the store applies: sets of facts, each of which may be written twice or
in any order with the same result. It holds no counters and no deletions. A cause that has not arrived is not written
as a node: whatever reads the graph shows a named but absent event as a placeholder, and its arrival completes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from context_graph.domain.event import LedgerEvent
from context_graph.domain.forgetting import Pin
from context_graph.domain.learned import LearnedFact, Supersession
from context_graph.domain.position import Position

# Changes when the same events would give another graph; a rebuild then fills a new generation.
FOLD_VERSION = 5
TimelineKind = Literal["session", "agent", "user", "tool", "entity"]
ReceiptsOf = Literal["event", "session", "agent", "user"]
Verdict = Literal[1, 0, -1]


def timeline_member(position: Position, event_id: str) -> str:
    """The member of a timeline's sorted set: equal times then order by ledger position."""
    return position.sort_key + event_id


def split_member(bucket: int, member: str) -> tuple[Position, str]:
    """The inverse of `timeline_member`."""
    return Position.of_sort_key(bucket, member), member[17:]


@dataclass(frozen=True, slots=True)
class EventNode:
    """An event in the graph, as Stage 1 wrote it. Times in ms UTC."""

    id: str
    position: Position
    event_type: str
    session_id: str
    agent_id: str
    occurred_at: int
    origin: str
    user_id: str | None = None
    tool_name: str | None = None
    status: str | None = None
    trace_id: str | None = None
    ended_at: int | None = None
    causes: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    """Of a receipt: whom the events that it served are about. Of a summary over sessions: whom these are about."""
    sessions: tuple[str, ...] = ()
    """Of a summary over sessions: those that were read."""


def node_of(event: LedgerEvent) -> EventNode:
    """An event of the ledger as a node."""
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


@dataclass(frozen=True, slots=True)
class SummaryNode:
    """The newest summary of a scope: a derived event, and the events its sentences cite."""

    id: str
    scope: str
    position: Position
    event_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one piece of feedback says of one event: it helped (1), it did not (-1), or that is taken back (0).

    Of an origin's opinions on an event the one at the highest position holds. The origin is the receipt that feedback
    is about, or the event that cites what a context served it.
    """

    origin_id: str
    position: Position
    verdict: Verdict


@dataclass(slots=True)
class GraphDelta:
    """Facts to write: event nodes, timeline entries, effects and the latest occurrence of each named thing.

    `first_seen`: a session's agents, users, tools and event types (`agent:support`) with the position at which each
    appeared first. `receipts`: the receipts of contexts that held an event, told about a user, or were served to a
    session or an agent; members as on timelines. `opinions`: by event. `versions`: every summary of a scope.
    `pins`: the newest decision about each event; `pin_decisions`: all of them (`Pin.member`).
    `learned`: facts by id; `superseded`: what took the place of one.
    """

    events: dict[str, EventNode] = field(default_factory=dict)
    timelines: dict[tuple[TimelineKind, str], dict[str, int]] = field(default_factory=dict)
    effects: dict[str, dict[str, int]] = field(default_factory=dict)
    seen: dict[tuple[TimelineKind, str], int] = field(default_factory=dict)
    summaries: dict[str, SummaryNode] = field(default_factory=dict)
    first_seen: dict[str, dict[str, Position]] = field(default_factory=dict)
    receipts: dict[tuple[ReceiptsOf, str], set[str]] = field(default_factory=dict)
    opinions: dict[str, set[Opinion]] = field(default_factory=dict)
    versions: dict[str, set[str]] = field(default_factory=dict)
    pins: dict[str, Pin] = field(default_factory=dict)
    pin_decisions: set[str] = field(default_factory=set)
    learned: dict[str, LearnedFact] = field(default_factory=dict)
    superseded: set[Supersession] = field(default_factory=set)

    def put_on_timeline(self, kind: TimelineKind, identifier: str, member: str, occurred_at: int) -> None:
        """An event stands on the timeline of a session, agent, user, tool or entity."""
        self.timelines.setdefault((kind, identifier), {})[member] = occurred_at
        key = (kind, identifier)
        self.seen[key] = max(occurred_at, self.seen.get(key, occurred_at))

    def put_first_seen(self, session_id: str, what: str, position: Position) -> None:
        """The lowest position of what appears in a session wins."""
        known = self.first_seen.setdefault(session_id, {})
        known[what] = min(position, known.get(what, position))

    def put_receipt(self, of: ReceiptsOf, identifier: str, member: str) -> None:
        """A receipt concerns an event or a user that it told about, or a session or an agent that it was served to."""
        self.receipts.setdefault((of, identifier), set()).add(member)

    def put_pin(self, pin: Pin) -> None:
        """The newest decision about an event wins; all of them stay known."""
        self.pin_decisions.add(pin.member)
        known = self.pins.get(pin.event_id)
        if known is None or known.order < pin.order:
            self.pins[pin.event_id] = pin

    def put_summary(self, summary: SummaryNode) -> None:
        """The newest summary of a scope wins, by position; all of them stay known."""
        self.versions.setdefault(summary.scope, set()).add(timeline_member(summary.position, summary.id))
        known = self.summaries.get(summary.scope)
        if known is None or known.position < summary.position:
            self.summaries[summary.scope] = summary

    def merge(self, others: Iterable[GraphDelta]) -> GraphDelta:
        """This delta with others added; order does not matter."""
        for other in others:
            self.events |= other.events
            for (kind, identifier), members in other.timelines.items():
                for member, occurred_at in members.items():
                    self.put_on_timeline(kind, identifier, member, occurred_at)
            for cause, effects in other.effects.items():
                self.effects.setdefault(cause, {}).update(effects)
            for summary in other.summaries.values():
                self.put_summary(summary)
            self._merge_records(other)
        return self

    def _merge_records(self, other: GraphDelta) -> None:
        for session_id, seen in other.first_seen.items():
            for what, position in seen.items():
                self.put_first_seen(session_id, what, position)
        for (of, identifier), receipts in other.receipts.items():
            self.receipts.setdefault((of, identifier), set()).update(receipts)
        for event_id, opinions in other.opinions.items():
            self.opinions.setdefault(event_id, set()).update(opinions)
        for pin in other.pins.values():
            self.put_pin(pin)
        self.pin_decisions |= other.pin_decisions
        self.learned |= other.learned
        self.superseded |= other.superseded
        for scope, summaries in other.versions.items():
            self.versions.setdefault(scope, set()).update(summaries)
