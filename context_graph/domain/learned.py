"""Facts and preferences: what a language model noted from events, and which of it holds at a moment. Pure.

A fact is one derived event (`memory.fact`) with the words that hold it and the event that said them. It never changes:
that another took its place is an event of its own (`memory.fact_superseded`), so what held earlier stays readable, as
of any position. Times of validity are those of what was said: from the evidence on, until the evidence of what took
its place. Who says the same again, in whatever session, says one statement: what ends it ends every saying of it up to
then, also one that was read later. A supersession counts only while the fact that took the place can be read: when that
is erased, the older one holds again, because nothing that is left says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, cast, get_args

from context_graph.domain.event import FACT_SUPERSEDED_TYPE, FACT_TYPE, LedgerEvent
from context_graph.domain.places import moment_key
from context_graph.domain.position import Position
from context_graph.errors import PermanentError

FactKind = Literal["fact", "preference"]
FACT_KINDS: tuple[FactKind, ...] = ("fact", "preference")
Reason = Literal["updated", "contradicted"]
REASONS: tuple[Reason, ...] = get_args(Reason)
Fault = Literal["form", "line", "quote", "object", "subject"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
"""Why a fact of an answer does not stand: it lacks a part, names no line, quotes what is not there, or its quote or its
event does not hold what it says."""
USER = "user"
"""The subject of a fact about the person that its event is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedFact:
    """A fact as it was noted. `position`: of the fact, when it was learned; `valid_from`: ms UTC, when it was said.

    `event_id`, `event_position` and `quote` are its evidence; `user_id` is whom the evidence is about.
    """

    id: str
    position: Position
    session_id: str
    user_id: str | None
    subject: str
    predicate: str
    object: str
    kind: FactKind
    quote: str
    event_id: str
    event_position: Position
    valid_from: int

    @property
    def text(self) -> str:
        """In words: `user prefers window seats`."""
        return statement(self.subject, self.predicate, self.object)

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for facts that say the same of the same person."""
        return (self.user_id or "", self.kind, *(plain(word) for word in (self.subject, self.predicate, self.object)))

    @property
    def statement_id(self) -> str:
        """The key in few characters: 16 bytes of BLAKE2 as hex."""
        return blake2b("\0".join(self.key).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Supersession:
    """That `old` holds no longer since `valid_to` (ms UTC), because `new` does. `position`: when that was learned."""

    position: Position
    session_id: str
    user_id: str | None
    old: str
    new: str
    reason: Reason
    valid_to: int


@dataclass(frozen=True, slots=True)
class Standing:
    """A fact and, where it holds no longer, what took its place first, by when that was said.

    `also`: other sayings of the same statement, last learned first, that hold as long (`merged`).
    """

    fact: LearnedFact
    ended: Supersession | None = None
    also: tuple[LearnedFact, ...] = ()

    @property
    def current(self) -> bool:
        """Whether it holds."""
        return self.ended is None

    @property
    def valid_from(self) -> int:
        """When it was said first, ms UTC."""
        return min(fact.valid_from for fact in (self.fact, *self.also))

    @property
    def ids(self) -> frozenset[str]:
        """Of every saying."""
        return frozenset(fact.id for fact in (self.fact, *self.also))

    def held_at(self, moment: int) -> bool:
        """Whether it held then (ms UTC): it had been said, and nothing had taken its place."""
        return self.valid_from <= moment and (self.ended is None or moment < self.ended.valid_to)


def statement(subject: str, predicate: str, object_: str) -> str:
    """A fact in words."""
    return f"{subject} {predicate} {object_}"


def plain(words: str) -> str:
    """Words as they are compared: case and space do not count."""
    return " ".join(words.casefold().split())


def fact_of(event: LedgerEvent) -> LearnedFact | None:
    """The fact that an event notes; None for other events and for erased ones. Raises PermanentError."""
    envelope = event.envelope
    if envelope.event_type != FACT_TYPE or event.erased:
        return None
    payload: Any = envelope.payload
    try:
        evidence = payload["evidence"]
        if payload["kind"] not in FACT_KINDS:
            raise ValueError(payload["kind"])
        return LearnedFact(
            id=envelope.event_id,
            position=event.position,
            session_id=envelope.session_id,
            user_id=envelope.user_id,
            subject=str(payload["subject"]),
            predicate=str(payload["predicate"]),
            object=str(payload["object"]),
            kind=payload["kind"],
            quote=str(payload["quote"]),
            event_id=str(evidence["event_id"]),
            event_position=Position.parse(evidence["position"]),
            valid_from=envelope.occurred_at,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PermanentError(f"fact {envelope.event_id!r} lacks a part of what makes one: {error}") from error


def supersession_of(event: LedgerEvent) -> Supersession | None:
    """What an event says of two facts; None for other events and for erased ones. Raises PermanentError."""
    envelope = event.envelope
    if envelope.event_type != FACT_SUPERSEDED_TYPE or event.erased:
        return None
    payload: Any = envelope.payload
    try:
        return Supersession(
            position=event.position,
            session_id=envelope.session_id,
            user_id=envelope.user_id,
            old=str(payload["fact_id"]),
            new=str(payload["by"]),
            reason=cast("Reason", str(payload["reason"])),
            valid_to=envelope.occurred_at,
        )
    except (KeyError, TypeError) as error:
        raise PermanentError(f"{envelope.event_id!r} does not say which fact took the place of which") from error


def standing(
    facts: Collection[LearnedFact],
    ended: Mapping[str, Iterable[Supersession]],
    readable: Callable[[str], bool],
) -> list[Standing]:
    """How these facts stand. `ended`: by fact, what is known to have taken its place; `readable`: whether that is.

    Of several that took its place it is the one that was said first, whatever was learned first (adr/0040). What ended
    one saying of a statement ends those of `facts` that say the same and were said before.
    """
    said: dict[tuple[str, ...], list[Supersession]] = {}
    for fact in facts:
        said.setdefault(fact.key, []).extend(each for each in ended.get(fact.id, ()) if readable(each.new))
    found = []
    for fact in facts:
        known = [each for each in said[fact.key] if each.old == fact.id or each.valid_to > fact.valid_from]
        found.append(Standing(fact, min(known, key=lambda each: (each.valid_to, each.new), default=None)))
    return found


def merged(standing: Iterable[Standing]) -> list[Standing]:
    """Sayings of one statement that hold as long as one, by the last learned; in the order of these."""
    groups: dict[tuple[object, ...], list[LearnedFact]] = {}
    ends: dict[tuple[object, ...], Supersession | None] = {}
    for each in standing:
        until = None if each.ended is None else (each.ended.valid_to, each.ended.new)
        groups.setdefault((each.fact.key, until), []).append(each.fact)
        ends.setdefault((each.fact.key, until), each.ended)
    found = []
    for key, facts in groups.items():
        last, *others = sorted(facts, key=lambda fact: moment_key(fact.position), reverse=True)
        found.append(Standing(last, ends[key], tuple(others)))
    return sorted(found, key=lambda each: moment_key(each.fact.position), reverse=True)
