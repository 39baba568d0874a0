"""What is forgotten stays forgotten, in every stage and generation, whatever comes first.

A stage handles a batch, then looks at the decisions about the batch's sessions and takes away what is forgotten; a
decision in the batch it keeps first, then takes away what it lists, or handles that again where it is recalled. Two
workers may be at the same event at the same time, so whoever has acted looks once more: it ends when nothing was
decided since it looked. Then the last one to act has acted by all decisions there are, and the result is the same in
any order: what is written before a decision is found by the decision, what is written after it finds the decision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from context_graph.delivery.source import Handler
from context_graph.domain.event import SUMMARY_TYPE, LedgerEvent
from context_graph.domain.forgetting import Decision, Decisions, Place, decision_of
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store.forgotten import Forgotten, Move, Places
from context_graph.store.ledger import Ledger

_NONE = Decisions()
_READ = 200  # events read again at once


class Touched(NamedTuple):
    """What a decision may be about: an event, or a summary of a session."""

    session_id: str
    place: Place
    is_summary: bool = False

    def is_forgotten(self, known: Mapping[str, Decisions]) -> bool:
        """By what is known of its session."""
        decided = known.get(self.session_id, _NONE)
        return decided.summary_forgotten(self.place.order) if self.is_summary else decided.forgotten(self.place)


@dataclass(frozen=True, slots=True)
class ForgettingHandler:
    """A stage's handler that respects what is forgotten.

    `remove` takes away what the stage keeps of events. `spares`: forgotten events need not be handled at all, because
    nothing of what the stage makes of them stays (else they are handled, and then reduced to what stays).
    """

    inner: Handler
    forgotten: Forgotten
    ledger: Ledger
    remove: Callable[[Partition, Places], Awaitable[None]]
    spares: bool
    remove_summaries: Callable[[Partition, Mapping[str, str]], Awaitable[None]] | None = None
    """Takes away the summaries of sessions up to a sort key; None: the stage keeps what it has of summaries."""
    settle_places: Callable[[Partition, Iterable[Move]], Awaitable[None]] | None = None
    """Has forgotten events stand on the timelines of their sessions, or not; None: the stage has no timelines."""

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        """Handle the batch, whole. Raises what the stage's handler raises, and StoreUnavailable."""
        found = [decision for event in events if (decision := decision_of(event)) is not None]
        if found:
            await self.forgotten.put(partition, found)
        touched = _touched(events, found, summaries=self.remove_summaries is not None)
        if self.spares:
            known = await self.forgotten.of(partition, _sessions(touched))
            events = [event for event in events if not _is_forgotten(event, known)]
        await self.inner.handle(partition, events)
        await self._settle(partition, touched, {m.event_id for decision in found for m in decision.members})

    async def _settle(self, partition: Partition, touched: dict[str, Touched], listed: set[str]) -> None:
        """Act by the decisions until they stay the same. `listed`: events that a decision of the batch is about."""
        acted_by: dict[str, Decisions] | None = None
        removed: set[str] = set()
        while True:
            known = await self.forgotten.of(partition, _sessions(touched))
            if known == acted_by or not (known or removed):
                return
            gone = {i: one for i, one in touched.items() if one.is_forgotten(known)}
            back = [touched[i].place for i in (listed | removed) & (touched.keys() - gone.keys())]
            await self._remove(partition, gone)
            if self.settle_places is not None:
                await self.settle_places(partition, _moves(gone, known))
            await self._again(partition, back)
            removed |= gone.keys()
            acted_by = known

    async def _remove(self, partition: Partition, gone: Mapping[str, Touched]) -> None:
        await self.remove(partition, {i: one.place for i, one in gone.items() if not one.is_summary})
        through: dict[str, str] = {}
        for one in gone.values():
            if one.is_summary:
                through[one.session_id] = max(one.place.order, through.get(one.session_id, ""))
        if self.remove_summaries is not None and through:
            await self.remove_summaries(partition, through)

    async def _again(self, partition: Partition, places: Iterable[Place]) -> None:
        """Handle events once more, from the ledger."""
        ids = [Position.of_sort_key(partition.bucket, order).stream_id for order in sorted(p.order for p in places)]
        for start in range(0, len(ids), _READ):
            await self.inner.handle(partition, await self.ledger.at(partition, ids[start : start + _READ]))


def _moves(gone: Mapping[str, Touched], known: Mapping[str, Decisions]) -> list[Move]:
    return [
        Move(one.session_id, event_id, one.place, known[one.session_id].placeless(one.place))
        for event_id, one in gone.items()
    ]


def place_of(event: LedgerEvent) -> Place:
    """Where an event stands in its session."""
    return Place(event.envelope.occurred_at, event.position.sort_key)


def touched_by(event: LedgerEvent) -> Touched | None:
    """The event as decisions see it; None where none can be about it."""
    envelope = event.envelope
    is_summary = envelope.event_type == SUMMARY_TYPE
    if envelope.is_derived and not is_summary:
        return None
    return Touched(envelope.session_id, place_of(event), is_summary)


def _touched(events: Sequence[LedgerEvent], found: Sequence[Decision], *, summaries: bool) -> dict[str, Touched]:
    """Event id -> what the events of a batch that can be forgotten are, and those that decisions list.

    `summaries`: those of sessions too.
    """
    touched = {
        member.event_id: Touched(decision.session_id, member.place, bool(decision.summaries_through))
        for decision in found
        for member in decision.members
    }
    for event in events:
        one = touched_by(event)
        if one is not None:
            touched[event.envelope.event_id] = one
    return {i: one for i, one in touched.items() if summaries or not one.is_summary}


def _sessions(touched: Mapping[str, Touched]) -> list[str]:
    return sorted({one.session_id for one in touched.values()})


def _is_forgotten(event: LedgerEvent, known: Mapping[str, Decisions]) -> bool:
    one = touched_by(event)
    return one is not None and one.is_forgotten(known)
