"""Communities of a tenant's entities when they are asked for: what the memory is about, each with its sessions.

Nothing is stored: they are a function of what is mentioned now (or was, as of a position), so there is nothing to
rebuild, to erase or to do again (adr/0031). What is mentioned is read each time, bounded (`resolution/mentioned.py`);
what the bounds leave out is said. Forgotten events tie nothing; those that stayed of their episodes do. Names that are
one thing are one member. Names are joined and communities cut again, in a thread, only when what is mentioned changed.

A community's summary is extractive: sentences of its sessions' summaries that name its members, each with the events
that the sentence cites, which can be read also when they are forgotten.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from context_graph.domain.entity_names import split_id
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.errors import UnknownThing
from context_graph.resolution.communities import Community, communities
from context_graph.resolution.mentioned import COUNTED_EVENTS, mentions_of, sessions_by_events
from context_graph.retrieval.deadline import Cut
from context_graph.retrieval.neighbours import Neighbours
from context_graph.retrieval.request import AsOf
from context_graph.retrieval.same_things import SameThings
from context_graph.store.graph import Graph
from context_graph.store.ledger import Ledger
from context_graph.store.timelines import Timelines

_SENTENCES = 4
_REMEMBERED = 32  # answers


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
    names: Mapping[str, tuple[str, ...]]
    """Member to the names that are one thing with it, of those that are mentioned."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """Communities, the names of each member, what was left out, and a digest of what they follow from."""

    digest: bytes
    communities: tuple[Community, ...]
    names: Mapping[str, tuple[str, ...]]
    left_out: tuple[str, ...]


class Communities:
    """Of any tenant."""

    def __init__(
        self, graph: Graph, timelines: Timelines, neighbours: Neighbours, ledger: Ledger, same: SameThings
    ) -> None:
        self._same = same
        self._known: OrderedDict[tuple[str, AsOf | None], _Answer] = OrderedDict()
        self._graph = graph
        self._timelines = timelines
        self._neighbours = neighbours
        self._ledger = ledger

    async def all(self, tenant: Tenant, as_of: AsOf | None, cut: Cut) -> tuple[Community, ...]:
        """Largest first, ties by id. Names that only their meaning joins are told apart while the embedder is away,
        which is noted as cut and not remembered."""
        return (await self._answer(tenant, as_of, cut)).communities

    async def _answer(self, tenant: Tenant, as_of: AsOf | None, cut: Cut) -> _Answer:
        until = None if as_of is None else as_of.last
        mentions, most = await mentions_of(self._graph, self._timelines, tenant.partitions, until)
        if most is not None:
            cut(f"communities: only of the {most} entities mentioned last")
        state = await self._same.state(tenant)
        digest = await asyncio.to_thread(_digest, state, mentions)
        known = self._known.get((tenant.name, as_of))
        if known is None or known.digest != digest or known.left_out:
            left_out: list[str] = []
            same = await self._same.names(tenant, sorted(mentions), as_of, left_out.append)
            joined, names = _joined(mentions, same)
            known = _Answer(digest, await asyncio.to_thread(communities, joined), names, tuple(left_out))
            self._known[tenant.name, as_of] = known
        self._known.move_to_end((tenant.name, as_of))
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        for reason in known.left_out:
            cut(reason)
        return known

    async def detail(self, tenant: Tenant, community_id: str, as_of: AsOf | None, cut: Cut) -> CommunityDetail:
        """Raises UnknownThing when there is none of that id (any more)."""
        answer = await self._answer(tenant, as_of, cut)
        found = next((one for one in answer.communities if one.id == community_id), None)
        if found is None:
            raise UnknownThing("community", community_id)
        names = {member.entity_id: answer.names[member.entity_id] for member in found.members}
        events = await self._neighbours.events(tenant, found.event_ids[:COUNTED_EVENTS], as_of)
        sessions = sessions_by_events(events.values())
        forms = [[split_id(name)[1] for name in every] for every in names.values()]
        sentences = await self._sentences(tenant, forms, [name for name, _ in sessions], as_of)
        return CommunityDetail(found, tuple(sessions), sentences, names)

    async def _sentences(
        self, tenant: Tenant, members: Sequence[Sequence[str]], sessions: Sequence[str], as_of: AsOf | None
    ) -> tuple[Sentence, ...]:
        """Those that name most members (each by any of its names), as many as a summary has; in ledger order."""
        newest = await self._neighbours.summaries(tenant, sessions, as_of)
        found: list[tuple[int, Sentence]] = []
        for partition in tenant.partitions:
            ids = [one.position.stream_id for one in newest.values() if one.position.bucket == partition.bucket]
            for event in await self._ledger.at(Partition(tenant.name, partition.bucket), ids):
                for sentence in _said(event):
                    text = sentence.text.casefold()
                    found.append((sum(any(name in text for name in names) for names in members), sentence))
        best = sorted((one for one in found if one[0]), key=lambda one: (-one[0], _order(one[1])))[:_SENTENCES]
        return tuple(sorted((sentence for _, sentence in best), key=_order))


def _digest(state: tuple[int, ...], mentions: Mapping[str, Sequence[str]]) -> bytes:
    return blake2b(repr((state, sorted(mentions.items()))).encode(), digest_size=16).digest()


def _joined(
    mentions: Mapping[str, Sequence[str]], same: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, list[str]], dict[str, tuple[str, ...]]]:
    """The mentions of names that are one thing under the one of them that is mentioned most, and these names."""
    joined: dict[str, list[str]] = {}
    names: dict[str, tuple[str, ...]] = {}
    for name in mentions:
        together = tuple(sorted({name, *same.get(name, ())} & mentions.keys()))
        shown = min(together, key=lambda one: (-len(mentions[one]), one))
        names[shown] = together
        joined[shown] = list(dict.fromkeys(event_id for one in together for event_id in mentions[one]))
    return joined, names


def _said(event: LedgerEvent) -> list[Sentence]:
    payload: Any = event.envelope.payload
    sentences = [] if event.erased or not isinstance(payload, dict) else payload.get("sentences", [])
    return [
        Sentence(one["text"], tuple(one["event_ids"]), event.envelope.session_id, event.position) for one in sentences
    ]


def _order(sentence: Sentence) -> tuple[int, int, int, str]:
    position = sentence.position
    return position.ms, position.seq, position.bucket, sentence.text
