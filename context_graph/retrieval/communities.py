"""Communities of a tenant's entities when they are asked for: what the memory is about, each with its sessions.

Nothing is stored: they are a function of what is mentioned now (or was, as of a position), so there is nothing to
rebuild, to erase or to do again (adr/0031). Bounded: the newest `_ENTITIES` of a partition by their last mention, and
the newest `_MENTIONS` events of each. Forgotten events tie nothing; those that stayed of their episodes do.

A community's summary is extractive: sentences of its sessions' summaries that name its members, each with the events
that the sentence cites, which can be read also when they are forgotten.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from context_graph.domain.entity_names import split_id
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.errors import UnknownThing
from context_graph.resolution.communities import Community, communities
from context_graph.retrieval.neighbours import Neighbours
from context_graph.retrieval.request import AsOf
from context_graph.store.graph import Graph
from context_graph.store.ledger import Ledger

_ENTITIES = 1000
_MENTIONS = 50
_EVENTS = 300  # events of a community whose sessions are counted
_SESSIONS = 20
_SENTENCES = 4
_EVERYWHERE = ("tool:", "agent:")  # they are mentioned by whatever they do


@dataclass(frozen=True, slots=True)
class Sentence:
    """Of a session's summary: verbatim, the events that hold it, and where that summary stands."""

    text: str
    event_ids: tuple[str, ...]
    session_id: str
    position: Position


@dataclass(frozen=True, slots=True)
class CommunityDetail:
    """A community, its sessions by how many of its events they hold, and what their summaries say of its members."""

    community: Community
    sessions: tuple[tuple[str, int], ...]
    sentences: tuple[Sentence, ...]


class Communities:
    """Of any tenant."""

    def __init__(self, graph: Graph, neighbours: Neighbours, ledger: Ledger) -> None:
        self._graph = graph
        self._neighbours = neighbours
        self._ledger = ledger

    async def all(self, tenant: Tenant, as_of: AsOf | None) -> tuple[Community, ...]:
        """Largest first, ties by id."""
        pages = [await self._graph.registry(partition, "entity", limit=_ENTITIES) for partition in tenant.partitions]
        names = sorted({name for page in pages for name, _ in page if not name.startswith(_EVERYWHERE)})
        if not names:
            return ()
        members = await self._neighbours.members(tenant, "entity", names, _MENTIONS, as_of)
        mentions = {name: [entry.event_id for entry in entries] for name, (entries, _) in members.items()}
        return await asyncio.to_thread(communities, mentions)

    async def detail(self, tenant: Tenant, community_id: str, as_of: AsOf | None) -> CommunityDetail:
        """Raises UnknownThing when there is none of that id (any more)."""
        found = next((one for one in await self.all(tenant, as_of) if one.id == community_id), None)
        if found is None:
            raise UnknownThing("community", community_id)
        events = await self._neighbours.events(tenant, found.event_ids[:_EVENTS], as_of)
        counts = Counter(event.session_id for event in events.values())
        sessions = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:_SESSIONS]
        sentences = await self._sentences(tenant, found, [name for name, _ in sessions], as_of)
        return CommunityDetail(found, tuple(sessions), sentences)

    async def _sentences(
        self, tenant: Tenant, community: Community, sessions: Sequence[str], as_of: AsOf | None
    ) -> tuple[Sentence, ...]:
        """Those that name most members, as many as a summary has; in the order of the ledger."""
        newest = await self._neighbours.summaries(tenant, sessions, as_of)
        names = [split_id(member.entity_id)[1] for member in community.members]
        found: list[tuple[int, Sentence]] = []
        for partition in tenant.partitions:
            ids = [one.position.stream_id for one in newest.values() if one.position.bucket == partition.bucket]
            for event in await self._ledger.at(Partition(tenant.name, partition.bucket), ids):
                for sentence in _said(event):
                    text = sentence.text.casefold()
                    found.append((sum(name in text for name in names), sentence))
        best = sorted((one for one in found if one[0]), key=lambda one: (-one[0], _order(one[1])))[:_SENTENCES]
        return tuple(sorted((sentence for _, sentence in best), key=_order))


def _said(event: LedgerEvent) -> list[Sentence]:
    payload: Any = event.envelope.payload
    sentences = [] if event.erased or not isinstance(payload, dict) else payload.get("sentences", [])
    return [
        Sentence(one["text"], tuple(one["event_ids"]), event.envelope.session_id, event.position) for one in sentences
    ]


def _order(sentence: Sentence) -> tuple[int, int, int, str]:
    position = sentence.position
    return position.ms, position.seq, position.bucket, sentence.text
