"""What stands one hop from events: read for many at once, in one pipelined round trip, as of any position."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from context_graph.domain.edges import Mentioned
from context_graph.domain.event import SessionId
from context_graph.domain.graph import EventNode
from context_graph.domain.partition import Tenant
from context_graph.domain.text import session_scope
from context_graph.retrieval.forgotten import ForgottenNodes
from context_graph.retrieval.request import AsOf
from context_graph.store.graph import Graph, TimelineEntry
from context_graph.store.keys import GraphKeys
from context_graph.store.mentions import Mentions
from context_graph.store.receipts import Listed, ReceiptIndex
from context_graph.store.sorted_pages import Place, Stretch
from context_graph.store.timelines import Timelines, order_key

Entries = tuple[list[TimelineEntry], bool]
"""Entries, and whether there are more than were asked for."""
_OLDEST_FIRST = ("effects", "mentions")


class Neighbours:
    """Reads around events of any tenant."""

    def __init__(
        self, graph: Graph, timelines: Timelines, index: ReceiptIndex, mentions: Mentions, forgotten: ForgottenNodes
    ) -> None:
        self.forgotten = forgotten
        self._graph = graph
        self.timelines = timelines
        self._index = index
        self._mentions = mentions

    async def events(self, tenant: Tenant, ids: Sequence[str], as_of: AsOf | None) -> dict[str, EventNode]:
        """The events of these ids that were there; forgotten ones as the ledger has them."""
        found = await asyncio.gather(*(self._graph.events(partition, ids) for partition in tenant.partitions))
        known = {name: node for nodes in found for name, node in nodes.items()}
        missing = [name for name in ids if name not in known]
        if missing:
            known |= await self.forgotten.nodes(tenant, missing)
        return {name: node for name, node in known.items() if as_of is None or as_of.includes(node.position)}

    async def effects(self, tenant: Tenant, ids: Sequence[str], limit: int, as_of: AsOf | None) -> dict[str, Entries]:
        """Of each the first `limit` events by occurrence that name it as a cause."""
        return await self._first(tenant, ids, "effects", limit, as_of)

    async def beside(
        self, events: Sequence[EventNode], tenant: Tenant, as_of: AsOf | None, *, later: bool
    ) -> dict[str, TimelineEntry]:
        """Of each event the next one in its session, or the one before."""
        until = None if as_of is None else as_of.last
        order = "asc" if later else "desc"
        stretches = []
        for event in events:
            partition = tenant.partitions[event.position.bucket]
            place = Place(event.occurred_at, (event.position.sort_key + event.id).encode())
            key = (await self._graph.keys(partition)).timeline("session", event.session_id)
            stretches.append((partition, Stretch(key, "asc" if order == "asc" else "desc", place)))
        found = await self.timelines.first(stretches, 1, until)
        return {event.id: entries[0] for event, (entries, _) in zip(events, found, strict=True) if entries}

    async def members(
        self, tenant: Tenant, kind: str, names: Sequence[str], limit: int, as_of: AsOf | None
    ) -> dict[str, Entries]:
        """Of each session, agent, user, tool or entity the `limit` newest events on its timeline."""
        return await self._first(tenant, names, kind, limit, as_of)

    async def first_mentions(
        self, tenant: Tenant, names: Sequence[str], as_of: AsOf | None
    ) -> dict[str, TimelineEntry]:
        """Of each entity that was known the first event by occurrence that mentions it."""
        found = await self._first(tenant, names, "mentions", 1, as_of) if names else {}
        return {name: entries[0] for name, (entries, _) in found.items() if entries}

    async def receipts(self, tenant: Tenant, ids: Sequence[str], limit: int, as_of: AsOf | None) -> dict[str, Entries]:
        """Of each event the `limit` newest receipts of contexts that held it."""
        return await self._first(tenant, ids, "receipts", limit, as_of)

    async def summaries(self, tenant: Tenant, sessions: Sequence[str], as_of: AsOf | None) -> dict[str, Listed]:
        """Of each session its newest summary, of those that have one."""
        until = None if as_of is None else as_of.last
        found: dict[str, Listed] = {}
        for partition in tenant.partitions:
            mine = [name for name in sessions if tenant.partition_of(SessionId(name)) == partition]
            newest = await self._index.newest_versions(partition, [session_scope(name) for name in mine], until)
            found |= {name: newest[session_scope(name)] for name in mine if session_scope(name) in newest}
        return found

    async def mentions(self, tenant: Tenant, ids: Sequence[str]) -> dict[str, tuple[Mentioned, ...]]:
        """The entities that these events mention."""
        found = await asyncio.gather(*(self._mentions.of(partition, ids) for partition in tenant.partitions))
        return {name: mentioned for one in found for name, mentioned in one.items()}

    async def _first(
        self, tenant: Tenant, names: Sequence[str], kind: str, limit: int, as_of: AsOf | None
    ) -> dict[str, Entries]:
        until = None if as_of is None else as_of.last
        stretches = []
        for partition in tenant.partitions:
            keys = await self._graph.keys(partition)
            stretches += [(partition, _stretch(keys, kind, name)) for name in names]
        found = await self.timelines.first(stretches, limit, until)
        merged: dict[str, Entries] = {}
        for place, (entries, more) in enumerate(found):
            name = names[place % len(names)]
            before, already = merged.get(name, ([], False))
            both = sorted([*before, *entries], key=order_key, reverse=kind not in _OLDEST_FIRST)
            merged[name] = (both[:limit], more or already or len(both) > limit)
        return merged


def _stretch(keys: GraphKeys, kind: str, name: str) -> Stretch:
    """Effects oldest first, as they unfolded, and first mentions; everything else newest first."""
    if kind == "mentions":
        return Stretch(keys.timeline("entity", name), "asc")
    if kind == "effects":
        return Stretch(keys.effects(name), "asc")
    if kind == "receipts":
        return Stretch(keys.receipts("event", name), "desc")
    return Stretch(keys.timeline(kind, name), "desc")
