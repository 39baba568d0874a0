"""Graph queries: from nodes of any kind along edges of chosen types, breadth-first and bounded.

Every hop is one round of pipelined reads for the whole frontier. Bounds on depth, nodes, fan-out and time hold always,
and what was cut is said. Filters leave events out of the answer and of the walk; nodes of other kinds have no such
fields and pass. As of a position the answer is what it was then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from context_graph.domain.edges import LINKS, MEMBER_EDGE, Edge, EdgeType, Mentioned, NodeId, Way, membership
from context_graph.domain.event import FACT_TYPE, SUMMARY_TYPE, LedgerEvent
from context_graph.domain.filters import NO_FILTERS, Filters, holds
from context_graph.domain.graph import EventNode
from context_graph.domain.partition import Partition
from context_graph.domain.text import cited_events
from context_graph.errors import UnknownThing
from context_graph.retrieval.deadline import CUT
from context_graph.retrieval.fact_edges import FactEdges
from context_graph.retrieval.lineage import Walk
from context_graph.retrieval.links import LINK_BOUNDS, LinkBounds, LinkQuery, Links
from context_graph.retrieval.neighbours import Neighbours
from context_graph.store.index import Index
from context_graph.store.ledger import Ledger


@dataclass(frozen=True, slots=True)
class GraphQuery:
    """Where to start, along which edges, in which direction, and which events count."""

    start: tuple[NodeId, ...]
    edges: frozenset[EdgeType]
    way: Way = "both"
    filters: Filters = NO_FILTERS
    links: LinkBounds = LINK_BOUNDS


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node reached: of an event its fields (None: it has not arrived), of others the event that told of it."""

    id: NodeId
    event: EventNode | None
    depth: int
    via: Edge | None
    text: str = ""
    mentioned: tuple[Mentioned, ...] = ()


@dataclass(slots=True)
class Found:
    """The part of the graph around the start, and what was left out of it."""

    nodes: dict[NodeId, GraphNode] = field(default_factory=dict)
    edges: dict[tuple[NodeId, NodeId, EdgeType], Edge] = field(default_factory=dict)
    missing: list[NodeId] = field(default_factory=list)
    truncated: list[str] = field(default_factory=list)

    def cut(self, reason: str) -> None:
        if reason not in self.truncated:
            self.truncated.append(reason)

    def join(self, edges: Sequence[tuple[Edge, bool]]) -> None:
        """Take the edges whose both ends are in the answer; of one that is told from both ends, what says more."""
        for edge, _ in edges:
            if edge.source in self.nodes and edge.target in self.nodes:
                known = self.edges.get(edge.key)
                if known is None or len(edge.properties) > len(known.properties):
                    self.edges[edge.key] = edge


class GraphWalk:
    """Answers graph queries of any tenant."""

    def __init__(self, neighbours: Neighbours, index: Index, ledger: Ledger, links: Links, facts: FactEdges) -> None:
        self._links = links
        self._facts = facts
        self._neighbours = neighbours
        self._index = index
        self._ledger = ledger

    async def walk(self, query: GraphQuery, walk: Walk) -> Found:
        """The graph around the start nodes. Raises UnknownThing when none of them is there."""
        found = Found()
        await self._begin(found, query, walk)
        frontier = list(found.nodes.values())
        for depth in range(1, walk.bounds.max_depth + 1):
            if walk.deadline.passed:
                found.cut(CUT)
                return found
            edges = await self._hop(found, frontier, query, walk)
            frontier = await self._take(found, edges, depth, query, walk)
            if not frontier:
                return found
        if await self._goes_on(found, frontier, query, walk):
            found.cut("depth")
        return found

    async def _begin(self, found: Found, query: GraphQuery, walk: Walk) -> None:
        start = dict.fromkeys(query.start)
        events = [node.id for node in start if node.kind == "event"]
        nodes = await self._events(events, walk)
        others = [node for node in start if node.kind != "event"]
        tellers = await self._tellers(others, walk)
        for node in start:
            if node.kind == "event" and node.id in nodes:
                found.nodes[node] = replace(nodes[node.id], depth=0)
            elif node in tellers:
                found.nodes[node] = GraphNode(node, tellers[node], 0, None)
            else:
                found.missing.append(node)
        if not found.nodes:
            first = found.missing[0]
            raise UnknownThing(first.kind, first.id)

    async def _tellers(self, nodes: Sequence[NodeId], walk: Walk) -> dict[NodeId, EventNode]:
        """Of each node with a timeline its newest event; a node without any is not there."""
        newest: dict[NodeId, str] = {}
        for kind in sorted({node.kind for node in nodes}):
            names = [node.id for node in nodes if node.kind == kind]
            for name, (entries, _) in (await self._neighbours.members(walk.tenant, kind, names, 1, walk.as_of)).items():
                if entries:
                    newest[NodeId(kind, name)] = entries[0].event_id
        events = await self._neighbours.events(walk.tenant, list(newest.values()), walk.as_of)
        return {node: events[event_id] for node, event_id in newest.items() if event_id in events}

    async def _hop(
        self, found: Found, frontier: Sequence[GraphNode], query: GraphQuery, walk: Walk
    ) -> list[tuple[Edge, bool]]:
        """The edges at the frontier, each with whether it leads out of it; those of wanted types and directions."""
        arrived = [node for node in frontier if node.id.kind == "event" and node.event is not None]
        unknown = [node.id.id for node in frontier if node.id.kind == "event"]
        reads = await asyncio.gather(
            self._outward(arrived, walk),
            self._causing(found, unknown, query, walk),
            self._following(arrived, query, walk),
            self._held(found, unknown, query, walk),
            self._members(found, frontier, query, walk),
            self._summaries(frontier, query, walk),
            self._linked(found, arrived, frontier, query, walk),
            self._noted(found, arrived, frontier, query, walk),
        )
        return [
            (edge, out)
            for edges in reads
            for edge, out in edges
            if edge.type in query.edges and (edge.type in LINKS or query.way in ("both", "out" if out else "in"))
        ]

    async def _outward(self, arrived: Sequence[GraphNode], walk: Walk) -> list[tuple[Edge, bool]]:
        edges = [
            (edge, True)
            for node in arrived
            if node.event is not None
            for edge in membership(node.event, node.mentioned)
        ]
        summaries = [node.event for node in arrived if node.event is not None and _uncited(node.event)]
        for event in await self._at(summaries, walk):
            source = NodeId("event", event.envelope.event_id)
            targets = [NodeId("event", cited) for cited in cited_events(event.envelope)]
            edges += [
                (Edge(source, target, "DERIVED_FROM", event.position), True) for target in targets if target != source
            ]
        return edges

    async def _causing(
        self, found: Found, names: Sequence[str], query: GraphQuery, walk: Walk
    ) -> list[tuple[Edge, bool]]:
        if "CAUSED_BY" not in query.edges or query.way == "out":
            return []
        edges = []
        effects = await self._neighbours.effects(walk.tenant, names, walk.bounds.fan_out, walk.as_of)
        for name, (entries, more) in effects.items():
            if more:
                found.cut("fan_out")
            for entry in entries:
                source, target = NodeId("event", entry.event_id), NodeId("event", name)
                edges.append((Edge(source, target, "CAUSED_BY", entry.position, (("explicit", True),)), False))
        return edges

    async def _following(self, arrived: Sequence[GraphNode], query: GraphQuery, walk: Walk) -> list[tuple[Edge, bool]]:
        if "FOLLOWS" not in query.edges:
            return []
        events = [node.event for node in arrived if node.event is not None and node.event.origin != "derived"]
        edges = []
        for later in (False, True):
            if query.way == ("out" if later else "in"):
                continue
            beside = await self._neighbours.beside(events, walk.tenant, walk.as_of, later=later)
            for event in events:
                entry = beside.get(event.id)
                if entry is not None:
                    here, other = NodeId("event", event.id), NodeId("event", entry.event_id)
                    source, target = (other, here) if later else (here, other)
                    position = entry.position if later else event.position
                    edges.append((Edge(source, target, "FOLLOWS", position), not later))
        return edges

    async def _held(self, found: Found, names: Sequence[str], query: GraphQuery, walk: Walk) -> list[tuple[Edge, bool]]:
        """Receipts of the contexts that held these events."""
        if "DERIVED_FROM" not in query.edges or query.way == "out":
            return []
        edges = []
        held = await self._neighbours.receipts(walk.tenant, names, walk.bounds.fan_out, walk.as_of)
        for name, (entries, more) in held.items():
            if more:
                found.cut("fan_out")
            for entry in entries:
                source, target = NodeId("event", entry.event_id), NodeId("event", name)
                edges.append((Edge(source, target, "DERIVED_FROM", entry.position), False))
        return edges

    async def _members(
        self, found: Found, frontier: Sequence[GraphNode], query: GraphQuery, walk: Walk
    ) -> list[tuple[Edge, bool]]:
        """The newest events on the timelines of sessions, agents, users, tools and entities."""
        edges = []
        for kind, type_ in MEMBER_EDGE.items():
            names = [node.id.id for node in frontier if node.id.kind == kind]
            if not names or type_ not in query.edges or query.way == "out":
                continue
            members = await self._neighbours.members(walk.tenant, kind, names, walk.bounds.fan_out, walk.as_of)
            for name, (entries, more) in members.items():
                if more:
                    found.cut("fan_out")
                for entry in entries:
                    source, target = NodeId("event", entry.event_id), NodeId(kind, name)
                    edges.append((Edge(source, target, type_, entry.position), False))
        return edges

    async def _summaries(self, frontier: Sequence[GraphNode], query: GraphQuery, walk: Walk) -> list[tuple[Edge, bool]]:
        """The newest summary of each session."""
        sessions = [node.id.id for node in frontier if node.id.kind == "session"]
        if not sessions or "SUMMARIZES" not in query.edges or query.way == "out":
            return []
        newest = await self._neighbours.summaries(walk.tenant, sessions, walk.as_of)
        return [
            (Edge(NodeId("event", one.event_id), NodeId("session", name), "SUMMARIZES", one.position), False)
            for name, one in newest.items()
        ]

    async def _linked(
        self, found: Found, arrived: Sequence[GraphNode], frontier: Sequence[GraphNode], query: GraphQuery, walk: Walk
    ) -> list[tuple[Edge, bool]]:
        """Links: the frontier is as good an end of them as the other."""
        here = [node.id for node in frontier]
        events = [node.event for node in arrived if node.event is not None and node.event.origin != "derived"]
        names = [node.id for node in here if node.kind == "entity"]
        cuts: set[str] = set()
        asked = LinkQuery(query.edges, query.filters, query.links)
        edges = await self._links.around(events, names, asked, walk, cuts)
        sessions = [node.id for node in here if node.kind == "session"]
        edges += await self._links.beside_sessions(sessions, asked, walk, cuts)
        for cut in sorted(cuts):
            found.cut(cut)
        ends = set(here)
        return [(edge, edge.source in ends) for edge in edges]

    async def _noted(
        self, found: Found, arrived: Sequence[GraphNode], frontier: Sequence[GraphNode], query: GraphQuery, walk: Walk
    ) -> list[tuple[Edge, bool]]:
        """Facts of people and of what said them, and which took whose place."""
        facts = [node.id.id for node in arrived if node.event is not None and node.event.event_type == FACT_TYPE]
        edges, cut = await self._facts.around([node.id for node in frontier], facts, query.edges, query.way, walk)
        if cut:
            found.cut("fan_out")
        return edges

    async def _take(
        self, found: Found, edges: Sequence[tuple[Edge, bool]], depth: int, query: GraphQuery, walk: Walk
    ) -> list[GraphNode]:
        """New nodes as far as there is room, and the edges whose both ends are in the answer."""
        reached: dict[NodeId, Edge] = {}
        for edge, out in edges:
            node = edge.target if out else edge.source
            if node not in found.nodes:
                reached.setdefault(node, edge)
        events = await self._events([node.id for node in reached if node.kind == "event"], walk)
        linked = [node for node, edge in reached.items() if node.kind != "event" and edge.type in LINKS]
        tellers = await self._tellers(linked, walk)
        nodes: list[GraphNode] = []
        for node, edge in reached.items():
            known = events.get(node.id) if node.kind == "event" else None
            if known is not None and known.event is not None and not _passes(known, query.filters):
                continue
            if edge.type in LINKS and node not in tellers and known is None:
                continue  # only what is there is linked
            if node.kind == "event":
                nodes.append(replace(known or GraphNode(node, None, 0, None), depth=depth, via=edge))
            else:
                other = found.nodes.get(edge.source)
                teller = tellers.get(node) or (other.event if other is not None else None)
                nodes.append(GraphNode(node, teller, depth, edge))
        room = max(0, walk.bounds.max_nodes - len(found.nodes))
        if len(nodes) > room:
            found.cut("nodes")
        taken = nodes[:room]
        found.nodes |= {node.id: node for node in taken}
        found.join(edges)
        return taken

    async def _goes_on(self, found: Found, frontier: Sequence[GraphNode], query: GraphQuery, walk: Walk) -> bool:
        """Whether something lies behind the last hop; edges between nodes that are in the answer are added."""
        edges = await self._hop(found, frontier, query, walk)
        found.join(edges)
        return any((edge.target if out else edge.source) not in found.nodes for edge, out in edges)

    async def _events(self, ids: Sequence[str], walk: Walk) -> dict[str, GraphNode]:
        """Events with their texts and the entities that they mention, those that have arrived."""
        events, mentioned = await asyncio.gather(
            self._neighbours.events(walk.tenant, ids, walk.as_of), self._neighbours.mentions(walk.tenant, ids)
        )
        texts = await self._texts(events, walk)
        return {
            name: GraphNode(NodeId("event", name), event, 0, None, texts.get(name, ""), mentioned.get(name, ()))
            for name, event in events.items()
        }

    async def _texts(self, events: Mapping[str, EventNode], walk: Walk) -> dict[str, str]:
        texts: dict[str, str] = {}
        for partition in walk.tenant.partitions:
            ids = [name for name, event in events.items() if event.position.bucket == partition.bucket]
            for name, stored in zip(ids, await self._index.read_documents(partition, ids), strict=True):
                if stored is not None:
                    texts[name] = " ".join(stored.document.text.split())
        facts = [name for name, event in events.items() if event.event_type == FACT_TYPE]
        return texts | (await self._facts.texts(walk.tenant, facts))

    async def _at(self, events: Sequence[EventNode], walk: Walk) -> list[LedgerEvent]:
        found: list[LedgerEvent] = []
        for bucket in sorted({event.position.bucket for event in events}):
            ids = [event.position.stream_id for event in events if event.position.bucket == bucket]
            found += await self._ledger.at(Partition(walk.tenant.name, bucket), ids)
        return [event for event in found if not event.erased]


_KINDS = {SUMMARY_TYPE: "summary", FACT_TYPE: "fact"}


def _uncited(event: EventNode) -> bool:
    return event.event_type == SUMMARY_TYPE and not event.causes


def _passes(node: GraphNode, filters: Filters) -> bool:
    event = node.event
    if filters is NO_FILTERS or event is None:
        return True
    return holds(
        filters,
        {
            "event_type": [event.event_type],
            "tool_name": [event.tool_name] if event.tool_name else [],
            "agent_id": [event.agent_id],
            "user_id": [event.user_id] if event.user_id else [],
            "session_id": [event.session_id],
            "entity": [mention.entity_id for mention in node.mentioned],
            "status": [event.status] if event.status else [],
            "origin": [event.origin],
            "kind": [_KINDS.get(event.event_type, "event")],
            "occurred_at": float(event.occurred_at),
        },
    )
