"""Accounts: what was served, to whom, of what, and whether it helped.

Receipts are read from the ledger; the graph's index only says which. So a receipt is found and reproduced by its id
before any stage has seen it, after the graph was rebuilt and after events were forgotten from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from context_graph.domain.event import RECEIPT_TYPE, SERVICE_AGENT, EventId, LedgerEvent, opinion_id
from context_graph.domain.graph import ReceiptsOf
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.places import moment_key
from context_graph.domain.position import Position
from context_graph.errors import Erased, Overloaded, UnknownThing
from context_graph.retrieval.opinions import Feedback, check, opinion_of, same_opinion
from context_graph.retrieval.receipts import Receipt, Reproduced, read_receipt, reproduce
from context_graph.retrieval.request import AsOf
from context_graph.store import codec
from context_graph.store.ledger import Appendable, Ledger
from context_graph.store.receipts import Listed, ReceiptIndex

_MOST_TRIES = 20  # of writing an opinion while others write theirs on the same receipt
_MOST_ROUNDS = 10  # of reading receipts of which few were served to the agent asked about
_LOOKED_AT = 200  # events of a session that are looked at for what was not served


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where an opinion stands. `status`: created, or duplicate when it is what was said last."""

    status: str
    event_id: EventId
    position: Position


@dataclass(frozen=True, slots=True)
class ReceiptPage:
    """Receipts newest first; `next`: behind which the next page begins, None at the end."""

    receipts: tuple[Receipt, ...]
    next: Position | None


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What an agent had been served before an event.

    `receipts` newest first. Of the session's last events before this one, newest first: `unserved` were in the ledger
    when the newest of the receipts' contexts was asked for and are in none of them; `since` came between it and the
    event. `truncated`: the session has more events than were looked at.
    """

    event: LedgerEvent
    receipts: tuple[Receipt, ...]
    next: Position | None
    unserved: tuple[LedgerEvent, ...]
    since: tuple[LedgerEvent, ...]
    truncated: bool


class Accounts:
    """Receipts and feedback of any tenant."""

    def __init__(self, ledger: Ledger, index: ReceiptIndex, now_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._index = index
        self._now_ms = now_ms

    async def receipt(self, tenant: Tenant, receipt_id: str) -> Receipt:
        """The receipt of that id. Raises UnknownThing."""
        return read_receipt((await self._find(tenant, receipt_id, RECEIPT_TYPE, "receipt"))[1])

    async def content(self, tenant: Tenant, receipt_id: str) -> tuple[Receipt, Reproduced]:
        """The bytes that a receipt accounts for, rendered again from the ledger. Raises UnknownThing."""
        receipt = await self.receipt(tenant, receipt_id)
        events = await self._served_events(tenant, receipt)
        return receipt, reproduce(receipt, events)

    async def containing(
        self, tenant: Tenant, event_id: str, limit: int, before: Position | None, as_of: AsOf | None
    ) -> ReceiptPage:
        """Receipts of the contexts that held an event, newest first. Raises UnknownThing."""
        await self._event(tenant, event_id, as_of)
        return await self._page(tenant, ("event", event_id), limit, before, as_of)

    async def known_before(
        self, tenant: Tenant, event_id: str, limit: int, before: Position | None, as_of: AsOf | None
    ) -> Knowledge:
        """What the agent of an event had been served before it did that. Raises UnknownThing.

        Counted are contexts of the event's session, and those that its agent asked for without a session.
        """
        event = await self._event(tenant, event_id, as_of)
        page = await self._served_to(tenant, event, limit, before or event.position)
        if before is not None:  # a later page: what was not served is said on the first
            return Knowledge(event, page.receipts, page.next, (), (), truncated=False)
        partition = tenant.partition_of(event.envelope.session_id)
        earlier = await self._ledger.of_session_before(partition, event.envelope.session_id, event.position, _LOOKED_AT)
        asked = moment_key((page.receipts[0].event if page.receipts else event).position)
        shown = frozenset[str]().union(*(receipt.known_ids for receipt in page.receipts))
        happened = [e for e in earlier if not e.envelope.is_derived]
        since = tuple(e for e in happened if moment_key(e.position) > asked)
        unserved = tuple(e for e in happened if moment_key(e.position) < asked and e.envelope.event_id not in shown)
        return Knowledge(event, page.receipts, page.next, unserved, since, len(earlier) == _LOOKED_AT)

    async def _served_to(self, tenant: Tenant, event: LedgerEvent, limit: int, before: Position) -> ReceiptPage:
        """Of the session's receipts those of other agents are left out: what these were told it did not know."""
        mine: list[Receipt] = []
        for _ in range(_MOST_ROUNDS):
            listed = await self._listed(tenant, event, limit + 1, before)
            read = await self._read(tenant, listed[:limit])
            known_to = (event.envelope.agent_id, SERVICE_AGENT)
            for receipt in read:
                before = receipt.event.position
                if receipt.event.envelope.agent_id in known_to:
                    mine.append(receipt)
                    if len(mine) == limit:
                        break
            if len(mine) == limit or len(listed) <= limit:
                more = bool(read) and (len(listed) > limit or before != read[-1].event.position)
                return ReceiptPage(tuple(mine), before if more else None)
        return ReceiptPage(tuple(mine), before)

    async def _listed(self, tenant: Tenant, event: LedgerEvent, limit: int, before: Position) -> list[Listed]:
        """Contexts of the event's session, and those that its agent asked for without one; newest first."""
        envelope = event.envelope
        home = [tenant.partition_of(envelope.session_id)]
        found = await self._index.before(home, [("session", envelope.session_id)], limit, before=before)
        found += await self._index.before(tenant.partitions, [("agent", envelope.agent_id)], limit, before=before)
        return sorted(found, key=lambda one: moment_key(one.position), reverse=True)[:limit]

    async def feedback(self, tenant: Tenant, receipt_id: str, said: Feedback) -> Recorded:
        """Append an opinion on a served context; the same as the last one again is a duplicate.

        Raises UnknownThing, InvalidInput for ids that the receipt does not name, Erased when it was.
        """
        partition, event = await self._find(tenant, receipt_id, RECEIPT_TYPE, "receipt")
        receipt = read_receipt(event)
        if event.erased:
            raise Erased("receipt", receipt_id)
        check(receipt, said)
        for _ in range(_MOST_TRIES):
            number, last = await self._last_opinion(partition, receipt_id)
            opinion = opinion_of(receipt, said, last, number + 1, self._now_ms())
            if last is not None and same_opinion(last.envelope.payload, opinion.payload):
                return Recorded("duplicate", last.envelope.event_id, last.position)
            appendable = Appendable(opinion.event_id, opinion.session_id, codec.encode(opinion), people=receipt.people)
            (appended,) = await self._ledger.append(partition, [appendable])
            if appended.status == "erased":
                raise Erased("receipt", receipt_id)
            if appended.status == "created":
                return Recorded("created", opinion.event_id, appended.position)
        raise Overloaded(f"too many opinions on {receipt_id!r} at once", retry_after=1)

    async def _last_opinion(self, partition: Partition, receipt_id: str) -> tuple[int, LedgerEvent | None]:
        """The number of the newest opinion (0: none) and its event. They are numbered without gaps: bisection."""
        low, high = 0, 1
        while await self._ledger.position_of(partition, opinion_id(receipt_id, high)) is not None:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            known = await self._ledger.position_of(partition, opinion_id(receipt_id, middle))
            low, high = (low, middle) if known is None else (middle, high)
        return low, await self._ledger.get(partition, opinion_id(receipt_id, low)) if low else None

    async def _page(
        self,
        tenant: Tenant,
        of: tuple[ReceiptsOf, str],
        limit: int,
        before: Position | None,
        as_of: AsOf | None,
    ) -> ReceiptPage:
        until = None if as_of is None else as_of.last
        listed = await self._index.before(tenant.partitions, [of], limit + 1, before=before, until=until)
        receipts = await self._read(tenant, listed[:limit])
        return ReceiptPage(tuple(receipts), listed[limit - 1].position if len(listed) > limit else None)

    async def _read(self, tenant: Tenant, listed: Sequence[Listed]) -> list[Receipt]:
        events = await self._at(tenant, [one.position for one in listed])
        return [read_receipt(events[one.position]) for one in listed if one.position in events]

    async def _served_events(self, tenant: Tenant, receipt: Receipt) -> dict[Position, LedgerEvent]:
        return await self._at(tenant, [item.position for item in receipt.items])

    async def _at(self, tenant: Tenant, positions: Sequence[Position]) -> dict[Position, LedgerEvent]:
        events: dict[Position, LedgerEvent] = {}
        for partition in tenant.partitions:
            ids = [position.stream_id for position in positions if position.bucket == partition.bucket]
            events |= {event.position: event for event in await self._ledger.at(partition, ids)}
        return events

    async def _event(self, tenant: Tenant, event_id: str, as_of: AsOf | None) -> LedgerEvent:
        _, event = await self._find(tenant, event_id, None, "event")
        if as_of is not None and not as_of.includes(event.position):
            raise UnknownThing("event", event_id)
        return event

    async def _find(
        self, tenant: Tenant, event_id: str, event_type: str | None, kind: str
    ) -> tuple[Partition, LedgerEvent]:
        for partition in tenant.partitions:
            event = await self._ledger.get(partition, event_id)
            if event is not None and event_type in (None, event.envelope.event_type):
                return partition, event
        raise UnknownThing(kind, event_id)
