"""What is forgotten stays forgotten, in every stage and generation, whatever comes first.

A stage handles a batch, then looks at the decisions about the batch's sessions and takes away what is forgotten; a
decision in the batch it keeps first, then takes away what it lists, or handles that again where it is recalled. Two
workers may be at the same event at the same time, so whoever has acted looks once more: it ends when nothing was
decided since it looked. Then the last one to act has acted by all decisions there are, and the result is the same in
any order: what is written before a decision is found by the decision, what is written after it finds the decision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from context_graph.delivery.source import Handler
from context_graph.domain.event import LedgerEvent
from context_graph.domain.forgetting import Decision, Decisions, Place, decision_of
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store.forgotten import Forgotten, Places
from context_graph.store.ledger import Ledger

_NONE = Decisions()
_READ = 200  # events read again at once


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

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        """Handle the batch, whole. Raises what the stage's handler raises, and StoreUnavailable."""
        found = [decision for event in events if (decision := decision_of(event)) is not None]
        if found:
            await self.forgotten.put(partition, found)
        touched = _touched(events, found)
        if self.spares:
            known = await self.forgotten.of(partition, _sessions(touched))
            events = [event for event in events if not _is_forgotten(event, known)]
        await self.inner.handle(partition, events)
        await self._settle(partition, touched, {m.event_id for decision in found for m in decision.members})

    async def _settle(self, partition: Partition, touched: dict[str, tuple[str, Place]], listed: set[str]) -> None:
        """Act by the decisions until they stay the same. `listed`: events that a decision of the batch is about."""
        acted_by: dict[str, Decisions] | None = None
        removed: set[str] = set()
        while True:
            known = await self.forgotten.of(partition, _sessions(touched))
            if known == acted_by or not (known or removed):
                return
            gone = {i: place for i, (session, place) in touched.items() if known.get(session, _NONE).forgotten(place)}
            back = [touched[i][1] for i in (listed | removed) - gone.keys()]
            await self.remove(partition, gone)
            await self._again(partition, back)
            removed |= gone.keys()
            acted_by = known

    async def _again(self, partition: Partition, places: Iterable[Place]) -> None:
        """Handle events once more, from the ledger."""
        ids = [Position.of_sort_key(partition.bucket, order).stream_id for order in sorted(p.order for p in places)]
        for start in range(0, len(ids), _READ):
            await self.inner.handle(partition, await self.ledger.at(partition, ids[start : start + _READ]))


def place_of(event: LedgerEvent) -> Place:
    """Where an event stands in its session."""
    return Place(event.envelope.occurred_at, event.position.sort_key)


def _touched(events: Sequence[LedgerEvent], found: Sequence[Decision]) -> dict[str, tuple[str, Place]]:
    """Event id -> session and place: the events of a batch that can be forgotten, and those that decisions list."""
    touched = {m.event_id: (decision.session_id, m.place) for decision in found for m in decision.members}
    for event in events:
        if not event.envelope.is_derived:
            touched[event.envelope.event_id] = (event.envelope.session_id, place_of(event))
    return touched


def _sessions(touched: dict[str, tuple[str, Place]]) -> list[str]:
    return sorted({session for session, _ in touched.values()})


def _is_forgotten(event: LedgerEvent, known: dict[str, Decisions]) -> bool:
    if event.envelope.is_derived:
        return False
    return known.get(event.envelope.session_id, _NONE).forgotten(place_of(event))
