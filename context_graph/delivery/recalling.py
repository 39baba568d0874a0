"""Pins and recall: what a person or an agent says against forgetting, as events in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

from context_graph.delivery.forgetting import place_of
from context_graph.domain.event import SUMMARY_TYPE, Envelope, LedgerEvent, SessionId
from context_graph.domain.forgetting import (
    MOST_EVENTS,
    Decisions,
    Member,
    Stretch,
    decision_event,
    pin_event,
)
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.errors import UnknownThing
from context_graph.store import codec
from context_graph.store.forgotten import Forgotten
from context_graph.store.ledger import Appendable, Appended, Ledger

_PAGE = 1000
_NONE = Decisions()


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was brought back: how many events, and the position behind which the stages have them again."""

    session_id: str
    events: int
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Recalling:
    """Pins and recalls the events of any tenant."""

    ledger: Ledger
    forgotten: Forgotten
    now_ms: Callable[[], int]

    async def pin(self, tenant: Tenant, event_id: str, *, pinned: bool) -> Position:
        """Pin an event, or end that; one that is forgotten comes back. Raises UnknownThing, StoreUnavailable."""
        partition, event = await self._find(tenant, event_id)
        said = pin_event(event_id, pinned=pinned, event_id_of_pin=f"pin-{uuid4().hex}", occurred_at=self.now_ms())
        [appended] = await self._append(partition, [said])
        if pinned:
            await self._recall(partition, event.envelope.session_id, [event])
        return appended.position

    async def recall_session(self, tenant: Tenant, session_id: str) -> Recalled:
        """Everything that is forgotten of a session. Raises UnknownThing when the ledger has no event of it."""
        partition = tenant.partition_of(SessionId(session_id))
        events: list[LedgerEvent] = []
        after: Position | None = None
        while page := await self.ledger.of_session(partition, session_id, after, _PAGE):
            events += page
            after = page[-1].position
        if not events:
            raise UnknownThing("session", session_id)
        return await self._recall(partition, session_id, events, whole=True)

    async def recall_events(self, tenant: Tenant, event_ids: Sequence[str]) -> list[Recalled]:
        """These events, those that are forgotten, by session. Raises UnknownThing when any is not in the ledger."""
        found: dict[tuple[Partition, str], list[LedgerEvent]] = {}
        for event_id in dict.fromkeys(event_ids):
            partition, event = await self._find(tenant, event_id)
            found.setdefault((partition, event.envelope.session_id), []).append(event)
        return [await self._recall(partition, session, events) for (partition, session), events in found.items()]

    async def _find(self, tenant: Tenant, event_id: str) -> tuple[Partition, LedgerEvent]:
        for partition in tenant.partitions:
            event = await self.ledger.get(partition, event_id)
            if event is not None and not event.envelope.is_derived:
                return partition, event
        raise UnknownThing("event", event_id)

    async def _recall(
        self, partition: Partition, session_id: str, events: Sequence[LedgerEvent], *, whole: bool = False
    ) -> Recalled:
        """Those that are forgotten. `whole`: they are all of the session, so neighbours become one stretch."""
        known = (await self.forgotten.of(partition, [session_id])).get(session_id, _NONE)
        ordered = sorted((e for e in events if not e.envelope.is_derived), key=place_of)
        parts = [run for run in _runs(ordered, known) if whole] or [
            [e] for e in ordered if known.forgotten(place_of(e))
        ]
        made: list[Envelope] = []
        for batch in _batches(parts):
            members = [Member(event.envelope.event_id, place_of(event)) for run in batch for event in run]
            made.append(
                decision_event(
                    False, partition.bucket, session_id, [_stretch(run) for run in batch], members,
                    occurred_at=self.now_ms(), after=known.known[0].order,
                )
            )  # fmt: skip
        if whole:
            made += self._summaries(partition, session_id, events, known)
        if not made:
            return Recalled(session_id, 0)
        answers = await self._append(partition, made)
        return Recalled(session_id, sum(map(len, parts)), max(answer.position for answer in answers))

    def _summaries(
        self, partition: Partition, session_id: str, events: Sequence[LedgerEvent], known: Decisions
    ) -> Iterator[Envelope]:
        """The decision that the session's summary is found again, where its newest one is not."""
        summaries = [e for e in events if e.envelope.event_type == SUMMARY_TYPE and not e.erased]
        newest = max(summaries, key=lambda event: event.position, default=None)
        if newest is not None and known.summary_forgotten(newest.position.sort_key):
            member = Member(newest.envelope.event_id, place_of(newest))
            yield decision_event(
                False, partition.bucket, session_id, [], [member], occurred_at=self.now_ms(),
                after=known.known[0].order, summaries_through=newest.position.sort_key,
            )  # fmt: skip

    async def _append(self, partition: Partition, envelopes: Sequence[Envelope]) -> list[Appended]:
        events = [Appendable(e.event_id, e.session_id, codec.encode(e), clear=True) for e in envelopes]
        return await self.ledger.append(partition, events)


def _runs(ordered: Sequence[LedgerEvent], known: Decisions) -> Iterator[list[LedgerEvent]]:
    """Forgotten events that stand beside each other, up to `MOST_EVENTS` together."""
    run: list[LedgerEvent] = []
    for event in ordered:
        if run and (len(run) == MOST_EVENTS or not known.forgotten(place_of(event))):
            yield run
            run = []
        if known.forgotten(place_of(event)):
            run.append(event)
    if run:
        yield run


def _batches(runs: Sequence[list[LedgerEvent]]) -> Iterator[list[list[LedgerEvent]]]:
    batch: list[list[LedgerEvent]] = []
    for run in runs:
        if batch and sum(map(len, batch)) + len(run) > MOST_EVENTS:
            yield batch
            batch = []
        batch.append(run)
    if batch:
        yield batch


def _stretch(run: Sequence[LedgerEvent]) -> Stretch:
    places = [place_of(event) for event in run]
    return Stretch(places[0], places[-1], max(place.order for place in places))
