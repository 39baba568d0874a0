"""Forgetting: which stretches of sessions are out of the graph and the index, as the ledger says it. Pure.

A stretch is a part of a session in its order of occurrence: from one event to another, both included, as far as they
were in the ledger up to a position. What arrives later in between is news, and not forgotten. The service appends
`memory.forgotten` and `memory.recalled` about stretches; over an event the newest decision that holds it decides, so
their order of arrival at a stage does not matter. The same for `memory.pinned` and `memory.unpinned` about one event.

These events say where something is and when it was, never what: they are kept in the clear in the service's own
session, and outlive the erasure of what they are about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from context_graph.domain.event import (
    FORGOTTEN_TYPE,
    PINNED_TYPE,
    RECALLED_TYPE,
    SERVICE_AGENT,
    SERVICE_SESSION,
    UNPINNED_TYPE,
    Envelope,
    EventId,
    JsonValue,
    LedgerEvent,
)
from context_graph.domain.position import Position
from context_graph.errors import PermanentError

MOST_EVENTS = 1000
"""Events of a stretch, and of all stretches that one decision lists: some 110 kB of JSON."""
_ORDER = 17  # characters of a sort key


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where an event stands in its session: when it occurred (ms UTC), then where in the ledger (sort key)."""

    occurred_at: int
    order: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """From `first` to `last`, both included, of what was in the ledger up to the sort key `through`."""

    first: Place
    last: Place
    through: str

    def holds(self, place: Place) -> bool:
        """Whether an event of the session that stands there belongs to it."""
        return self.first <= place <= self.last and place.order <= self.through

    def contains(self, other: Stretch) -> bool:
        """Whether it holds whatever the other holds."""
        return self.first <= other.first and other.last <= self.last and other.through <= self.through


@dataclass(frozen=True, slots=True)
class Member:
    """An event of a stretch, as a decision lists it."""

    event_id: str
    place: Place


@dataclass(frozen=True, slots=True)
class Decision:
    """That stretches of a session are forgotten, or are not any more. `order`: the sort key of its own position.

    `at`: ms UTC; what is recalled counts as new from then on.
    """

    session_id: str
    order: str
    forgotten: bool
    at: int
    stretches: tuple[Stretch, ...]
    members: tuple[Member, ...] = ()
    summaries_through: str = ""
    """Not about events but about the session's summaries up to that sort key; its members are these."""
    places: bool = False
    """The events leave the timeline of their session too: nothing is left of it in graph and index."""

    def overrules(self, other: Decision) -> bool:
        """Whether an older decision says nothing any more beside this one, about all of a session."""
        return (
            self.places
            and other.order < self.order
            and other.summaries_through <= self.summaries_through
            and all(any(mine.contains(its) for mine in self.stretches) for its in other.stretches)
        )


@dataclass(frozen=True, slots=True)
class Pin:
    """That an event is pinned, or is not any more. `order`: the sort key of the decision."""

    event_id: str
    order: str
    pinned: bool

    @property
    def value(self) -> str:
        """What is stored: the greatest one holds."""
        return f"{self.order}{int(self.pinned)}"

    @property
    def member(self) -> str:
        """As it stands among all decisions about pins, in the order of the ledger."""
        return f"{self.value}{self.event_id}"


@dataclass(frozen=True, slots=True)
class Decisions:
    """All decisions about a session, newest first."""

    known: tuple[Decision, ...] = ()

    def deciding(self, place: Place) -> Decision | None:
        """The newest one about the event that stands there."""
        return next((d for d in self.known if any(stretch.holds(place) for stretch in d.stretches)), None)

    def forgotten(self, place: Place) -> bool:
        """Whether the event that stands there is forgotten."""
        decision = self.deciding(place)
        return decision is not None and decision.forgotten

    def placeless(self, place: Place) -> bool:
        """Whether the event that stands there has left the timeline of its session too."""
        decision = self.deciding(place)
        return decision is not None and decision.forgotten and decision.places

    def deciding_summary(self, order: str) -> Decision | None:
        """The newest one about the session's summary with that sort key: one for a summary holds for older ones too."""
        return next((d for d in self.known if order <= d.summaries_through), None)

    def summary_forgotten(self, order: str) -> bool:
        """Whether the session's summary with that sort key is out of index and vectors."""
        decision = self.deciding_summary(order)
        return decision is not None and decision.forgotten

    @property
    def any_forgotten(self) -> bool:
        """Whether a stretch is forgotten that was not brought back whole by a newer decision."""
        return any(
            self.forgotten(stretch.first) or self.forgotten(stretch.last)
            for decision in self.known
            if decision.forgotten
            for stretch in decision.stretches
        )

    def recalled_at(self, place: Place) -> int | None:
        """When the event that stands there was brought back, if the newest decision did that."""
        decision = self.deciding(place)
        return decision.at if decision is not None and not decision.forgotten else None


def decisions(known: Iterable[Decision]) -> Decisions:
    """Put in order."""
    return Decisions(tuple(sorted(known, key=lambda decision: decision.order, reverse=True)))


def standing(known: Sequence[Decision]) -> list[Decision]:
    """Those of a session that still say something. Which these are does not depend on when the others were dropped."""
    return [one for one in known if not any(other.overrules(one) for other in known)]


def decision_of(event: LedgerEvent) -> Decision | None:
    """The decision in an event, None when it holds none. Raises PermanentError when it is misshapen."""
    if event.envelope.event_type not in (FORGOTTEN_TYPE, RECALLED_TYPE) or not event.envelope.is_derived:
        return None
    payload: Any = event.envelope.payload
    bucket = event.position.bucket
    try:
        return Decision(
            session_id=payload["session_id"],
            order=event.position.sort_key,
            forgotten=event.envelope.event_type == FORGOTTEN_TYPE,
            at=event.envelope.occurred_at,
            stretches=tuple(
                Stretch(_place(s["first"]), _place(s["last"]), Position.parse(s["through"]).sort_key)
                for s in payload["stretches"]
            ),
            members=tuple(
                Member(event_id, Place(ms, _order(bucket, position))) for event_id, position, ms in payload["events"]
            ),
            summaries_through=_order(bucket, payload["summaries_through"]) if "summaries_through" in payload else "",
            places=payload.get("places") is True,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PermanentError(f"{event.envelope.event_id!r} decides about no stretch: {error!r}") from error


def split_pin(member: str) -> tuple[str, bool, str]:
    """The order, whether it is pinned, and the event id of a `Pin.member`."""
    return member[:_ORDER], member[_ORDER] == "1", member[_ORDER + 1 :]


def pin_of(event: LedgerEvent) -> Pin | None:
    """The pin in an event, None when it holds none."""
    if event.envelope.event_type not in (PINNED_TYPE, UNPINNED_TYPE) or not event.envelope.is_derived:
        return None
    pinned = event.envelope.event_type == PINNED_TYPE
    return next((Pin(cause, event.position.sort_key, pinned) for cause in event.envelope.causes), None)


def payload_of(
    bucket: int, session_id: str, stretches: Sequence[Stretch], members: Sequence[Member]
) -> dict[str, JsonValue]:
    """What a decision's event says of its stretches and their events, in the order of the session."""

    def position(order: str) -> str:
        return str(Position.of_sort_key(bucket, order))

    def place(one: Place) -> JsonValue:
        return {"occurred_at": one.occurred_at, "position": position(one.order)}

    return {
        "session_id": session_id,
        "stretches": [
            {"first": place(s.first), "last": place(s.last), "through": position(s.through)} for s in stretches
        ],
        "events": [[m.event_id, position(m.place.order), m.place.occurred_at] for m in members],
    }


def _place(said: Any) -> Place:
    return Place(int(said["occurred_at"]), Position.parse(said["position"]).sort_key)


def _order(bucket: int, text: str) -> str:
    position = Position.parse(text)
    if position.bucket != bucket:
        raise ValueError(f"{text} is in another partition")
    return position.sort_key


def decision_event(
    forgotten: bool,
    bucket: int,
    session_id: str,
    stretches: Sequence[Stretch],
    members: Sequence[Member],
    *,
    occurred_at: int,
    said: dict[str, JsonValue] | None = None,
    after: str = "",
    summaries_through: str = "",
    places: bool = False,
) -> Envelope:
    """The event that decides about stretches. The same stretches after the same decision (`after`) have the same id.

    `said`: what else its payload says (reason, policy, counts). `summaries_through`, `places`: see `Decision`.
    """
    kind = FORGOTTEN_TYPE if forgotten else RECALLED_TYPE
    identity = "\x00".join((session_id, after, *(f"{s.first}{s.last}{s.through}" for s in stretches)))
    if summaries_through:
        identity += f"\x00summaries {summaries_through}"
        said = {"summaries_through": str(Position.of_sort_key(bucket, summaries_through)), **(said or {})}
    if places:
        identity += "\x00places"
        said = {"places": True, **(said or {})}
    return Envelope(
        event_id=EventId(f"{kind.partition('.')[2]}-{blake2b(identity.encode(), digest_size=16).hexdigest()}"),
        event_type=kind,
        session_id=SERVICE_SESSION,
        agent_id=SERVICE_AGENT,
        occurred_at=occurred_at,
        origin="derived",
        payload={**payload_of(bucket, session_id, stretches, members), **(said or {})},
    )


def pin_event(event_id: str, *, pinned: bool, event_id_of_pin: str, occurred_at: int) -> Envelope:
    """The event that pins another one, or ends that."""
    return Envelope(
        event_id=EventId(event_id_of_pin),
        event_type=PINNED_TYPE if pinned else UNPINNED_TYPE,
        session_id=SERVICE_SESSION,
        agent_id=SERVICE_AGENT,
        occurred_at=occurred_at,
        origin="derived",
        parent_event_id=EventId(event_id),
    )
