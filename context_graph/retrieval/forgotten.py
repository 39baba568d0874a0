"""Forgotten events as nodes: what graph and index do not hold any more is read from the ledger, stream or archive.

So lineage goes through them, and a summary's sources can be followed whatever was forgotten. Effects of a forgotten
event that are forgotten too are not found from it, only from their own side: who asks from the effect sees the cause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from context_graph.domain.event import LedgerEvent, SessionId
from context_graph.domain.forgetting import Decisions, Place
from context_graph.domain.graph import EventNode, node_of
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.text import searchable
from context_graph.retrieval.request import AsOf
from context_graph.store.forgotten import Forgotten
from context_graph.store.ledger import Ledger

_NONE = Decisions()


class ForgottenNodes:
    """Of any tenant."""

    def __init__(self, ledger: Ledger, forgotten: Forgotten) -> None:
        self._ledger = ledger
        self._forgotten = forgotten

    async def nodes(self, tenant: Tenant, ids: Sequence[str]) -> dict[str, EventNode]:
        """Those of these events that are forgotten. Raises StoreUnavailable."""
        asked = [self._forgotten_event(partition, event_id) for event_id in ids for partition in tenant.partitions]
        found = await asyncio.gather(*asked)
        return {event.envelope.event_id: node_of(event) for event in found if event is not None}

    async def text(self, tenant: Tenant, node: EventNode) -> str | None:
        """What a forgotten event says, in one line; None of one that is not forgotten."""
        event = await self._forgotten_event(Partition(tenant.name, node.position.bucket), node.id)
        if event is None:
            return None
        return "" if event.erased else " ".join(searchable(event.envelope).text.split())

    async def sessions(self, tenant: Tenant, sessions: Sequence[str]) -> list[str]:
        """Those of these sessions of which a stretch is forgotten, by the newest decision about it."""
        places = [(name, tenant.partition_of(SessionId(name))) for name in sessions]
        known: dict[str, Decisions] = {}
        for partition in {where for _, where in places}:
            known |= await self._forgotten.of(partition, [name for name, where in places if where == partition])
        return [name for name in sessions if known.get(name, _NONE).any_forgotten]

    async def pinned(self, tenant: Tenant, limit: int, as_of: AsOf | None) -> list[tuple[Partition, list[str]]]:
        """The events that are pinned (were, as of a position), the newest pin first, of each partition that has any.

        Among the `limit` newest decisions about pins of a partition.
        """
        untils = [None if as_of is None else as_of.last(partition.bucket) for partition in tenant.partitions]
        found = await asyncio.gather(
            *(
                self._forgotten.newest_pins(partition, limit, until)
                for partition, until in zip(tenant.partitions, untils, strict=True)
            )
        )
        return [(partition, ids) for partition, ids in zip(tenant.partitions, found, strict=True) if ids]

    async def _forgotten_event(self, partition: Partition, event_id: str) -> LedgerEvent | None:
        event = await self._ledger.get(partition, event_id)
        if event is None or event.envelope.is_derived:
            return None
        session = event.envelope.session_id
        known = (await self._forgotten.of(partition, [session])).get(session, _NONE)
        return event if known.forgotten(Place(event.envelope.occurred_at, event.position.sort_key)) else None
