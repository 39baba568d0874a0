"""Links: edges that no event says, found when a graph query asks for them. SIMILAR_TO, RELATED_TO, SAME_AS.

A link that is stored when an event comes depends on the order of arrival and on what came later; asked for, it is a
function of what the ledger holds, and there after a rebuild, a merge or an erasure as if never otherwise (adr/0028).
Each is the same from either end, has a `score` from 0 to 1 and the position of an event that shows it:

- SIMILAR_TO: two events of which some passages have this cosine; the position is that of the later one.
- RELATED_TO: two entities that `events` events mention together; the score is events / (events + 1), the position that
  of the newest of them by occurrence, which `event_id` names.
- RELATED_TO between two sessions: `related_sessions.py`.
- SAME_AS: two names that are one thing, by `tier` and `evidence`; the score is the confidence, the position that of the
  decision, or that of the later of both first mentions.

Bounded on every hop: `_MOST_ENDS` events and as many entities are asked about, of each the best few are told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from context_graph.domain.edges import Edge, EdgeType, NodeId
from context_graph.domain.filters import NO_FILTERS, Filters, TagCondition
from context_graph.domain.graph import EventNode
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.resolution.clusters import Link
from context_graph.retrieval.lineage import Walk
from context_graph.retrieval.neighbours import Neighbours
from context_graph.retrieval.related_sessions import RelatedSessions, related_edge
from context_graph.retrieval.same_things import SameThings
from context_graph.retrieval.similar import THRESHOLD
from context_graph.store.graph import TimelineEntry
from context_graph.store.index import Index
from context_graph.store.queries import Searcher
from context_graph.store.timelines import order_key

_MOST_ENDS = 16  # events, and entities, whose links are looked for on one hop
_MOST_SESSIONS = 4  # each costs some five round trips
_WIDEST = 1000  # events looked at for one vector, as of a position
_ONCE = 0.5
_NEWEST = 100  # events of an entity in which its neighbours are counted


@dataclass(frozen=True, slots=True)
class LinkBounds:
    """Links told of one node and type at most, and the least score of one; None: what fits its type."""

    per_node: int = 5
    min_score: float | None = None

    @property
    def similar(self) -> float:
        """Least score of SIMILAR_TO."""
        return THRESHOLD if self.min_score is None else self.min_score

    @property
    def least(self) -> float:
        """Least score of the others: one event that mentions both, one rare thing that two sessions share."""
        return _ONCE if self.min_score is None else self.min_score


LINK_BOUNDS = LinkBounds()


@dataclass(frozen=True, slots=True)
class LinkQuery:
    """Which links, to which events, and how many."""

    types: AbstractSet[EdgeType]
    filters: Filters = NO_FILTERS
    bounds: LinkBounds = LINK_BOUNDS


class Links:
    """Finds the links of any tenant's nodes."""

    def __init__(
        self, index: Index, searcher: Searcher, neighbours: Neighbours, same_things: SameThings,
        sessions: RelatedSessions,
    ) -> None:  # fmt: skip
        self._sessions = sessions
        self._index = index
        self._searcher = searcher
        self._neighbours = neighbours
        self._same_things = same_things

    async def around(
        self,
        events: Sequence[EventNode],
        names: Sequence[str],
        asked: LinkQuery,
        walk: Walk,
        cuts: set[str],
    ) -> list[Edge]:
        """The links of these events and entities (their ids); what was left out is added to `cuts`."""
        if len(events) > _MOST_ENDS or len(names) > _MOST_ENDS:
            wanted = {"SIMILAR_TO"} if len(events) > _MOST_ENDS else set()
            wanted |= {"RELATED_TO", "SAME_AS"} if len(names) > _MOST_ENDS else set()
            if wanted & asked.types:
                cuts.add("links")
        ends, named = events[:_MOST_ENDS], names[:_MOST_ENDS]
        found = await asyncio.gather(
            self._similar(ends if "SIMILAR_TO" in asked.types else (), asked, walk, cuts),
            self._related(named if "RELATED_TO" in asked.types else (), asked.bounds, walk, cuts),
            self._same(named if "SAME_AS" in asked.types else (), asked.bounds, walk, cuts),
        )
        return [edge for edges in found for edge in edges]

    async def beside_sessions(
        self, sessions: Sequence[str], asked: LinkQuery, walk: Walk, cuts: set[str]
    ) -> list[Edge]:
        """RELATED_TO between these sessions and others."""
        if "RELATED_TO" not in asked.types:
            return []
        if len(sessions) > _MOST_SESSIONS:
            cuts.add("links")
        edges = []
        for session_id in sessions[:_MOST_SESSIONS]:
            bounds = asked.bounds
            found = await self._sessions.of(
                walk.tenant, session_id, bounds.per_node + 1, bounds.least, walk.as_of, cut=cuts.add
            )
            if len(found) > bounds.per_node:
                cuts.add("links")
            edges += [related_edge(session_id, other) for other in found[: bounds.per_node]]
        return edges

    async def _similar(self, events: Sequence[EventNode], query: LinkQuery, walk: Walk, cuts: set[str]) -> list[Edge]:
        vectors: dict[str, list[bytes]] = {}
        for bucket in sorted({event.position.bucket for event in events}):
            ids = [event.id for event in events if event.position.bucket == bucket]
            partition = Partition(walk.tenant.name, bucket)
            vectors |= await self._index.read_vectors(partition, ids)
            waiting = [name for name in ids if not vectors.get(name)]
            if any(document is not None for document in await self._index.read_documents(partition, waiting)):
                cuts.add("vectors")  # what is near an event that has none yet is not known
        asked = [(event, vector) for event in events for vector in vectors.get(event.id, ())]
        near: dict[str, dict[str, float]] = {event.id: {} for event in events}
        positions: dict[str, Position] = {}
        for partition in walk.tenant.partitions if asked else ():
            found, there = await self._near(partition, [vector for _, vector in asked], query, walk)
            positions |= there
            for (event, _), answer in zip(asked, found, strict=True):
                scores = near[event.id]
                for name, score in answer.items():
                    scores[name] = max(score, scores.get(name, 0.0))
        edges = []
        for event in events:
            others = {name: score for name, score in near[event.id].items() if name != event.id}
            for name, score in _best(others, query.bounds.per_node, cuts):
                edges.append(_similar_edge(event, name, positions[name], score))
        return edges

    async def _near(
        self, partition: Partition, vectors: Sequence[bytes], query: LinkQuery, walk: Walk
    ) -> tuple[list[dict[str, float]], dict[str, Position]]:
        """Of each vector the events within the threshold: one more than are told, beside the event itself.

        The index knows of a position its millisecond alone: as long as events of the same one that came later fill
        the answer, more are asked for.
        """
        until = None if walk.as_of is None else walk.as_of.last(partition.bucket).ms
        only_events = query.filters.plus(TagCondition("kind", "eq", ("event",)))
        enough = wide = query.bounds.per_node + 2
        while True:
            found = await self._searcher.near_each(partition, vectors, only_events, wide, until)
            positions = await self._positions(partition, {name for one in found for name in one}, walk)
            near = [
                {name: score for name, score in one.items() if score >= query.bounds.similar and name in positions}
                for one in found
            ]
            short = any(
                len(all_) == wide and len(kept) < enough and min(all_.values()) >= query.bounds.similar
                for all_, kept in zip(found, near, strict=True)
            )
            if not short or wide >= _WIDEST:
                return near, positions
            wide = min(4 * wide, _WIDEST)

    async def _positions(self, partition: Partition, names: AbstractSet[str], walk: Walk) -> dict[str, Position]:
        """Of these events, of those that were there."""
        documents = await self._index.read_documents(partition, sorted(names))
        found = [stored.document for stored in documents if stored is not None]
        return {d.id: d.position for d in found if walk.as_of is None or walk.as_of.includes(d.position)}

    async def _related(self, names: Sequence[str], bounds: LinkBounds, walk: Walk, cuts: set[str]) -> list[Edge]:
        if not names:
            return []
        members = await self._neighbours.members(walk.tenant, "entity", names, _NEWEST, walk.as_of)
        ids = list({entry.event_id: None for entries, _ in members.values() for entry in entries})
        mentioned = await self._neighbours.mentions(walk.tenant, ids)
        edges = []
        for name, (entries, more) in members.items():
            if more:
                cuts.add("links")
            together: dict[str, list[TimelineEntry]] = {}
            for entry in entries:
                for other in {one.entity_id for one in mentioned.get(entry.event_id, ())} - {name}:
                    together.setdefault(other, []).append(entry)
            counts = {other: len(shared) / (len(shared) + 1) for other, shared in together.items()}
            enough = {other: score for other, score in counts.items() if score >= bounds.least}
            for other, score in _best(enough, bounds.per_node, cuts):
                edges.append(_related_edge(name, other, together[other], score))
        return edges

    async def _same(self, names: Sequence[str], bounds: LinkBounds, walk: Walk, cuts: set[str]) -> list[Edge]:
        if not names:
            return []
        links, firsts = await self._same_things.links(walk.tenant, names, walk.as_of, cuts.add)
        return [_same_edge(link, firsts) for link in links if link.evidence.confidence >= bounds.least]


def _best(scores: Mapping[str, float], limit: int, cuts: set[str]) -> list[tuple[str, float]]:
    """The best by score, ties by id."""
    ordered = sorted(((name, round(score, 4)) for name, score in scores.items()), key=lambda one: (-one[1], one[0]))
    if len(ordered) > limit:
        cuts.add("links")
    return ordered[:limit]


def _similar_edge(event: EventNode, name: str, position: Position, score: float) -> Edge:
    here, there = NodeId("event", event.id), NodeId("event", name)
    return _undirected(Edge(here, there, "SIMILAR_TO", _later(event.position, position), (("score", score),)))


def _related_edge(name: str, other: str, shared: Sequence[TimelineEntry], score: float) -> Edge:
    newest = max(shared, key=order_key)
    told = (("score", score), ("events", len(shared)), ("event_id", newest.event_id))
    return _undirected(Edge(NodeId("entity", name), NodeId("entity", other), "RELATED_TO", newest.position, told))


def _same_edge(link: Link, firsts: Mapping[str, TimelineEntry]) -> Edge:
    reason = link.evidence
    position = link.decided or _later(firsts[link.left].position, firsts[link.right].position)
    told = (("score", reason.confidence), ("tier", reason.tier), ("evidence", reason.why))
    return _undirected(Edge(NodeId("entity", link.left), NodeId("entity", link.right), "SAME_AS", position, told))


def _later(one: Position, other: Position) -> Position:
    return max(one, other, key=lambda position: (position.ms, position.seq, position.bucket))


def _undirected(edge: Edge) -> Edge:
    """The same from either end: the source is the first by kind and id."""
    return edge if edge.source <= edge.target else replace(edge, source=edge.target, target=edge.source)
