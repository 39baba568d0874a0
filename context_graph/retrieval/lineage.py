"""Lineage: what led to an event and what it led to, by bounded breadth-first hops.

Every hop is one pipelined round trip. Bounds on depth, nodes, fan-out and time hold always, and what was cut is said.
A cause that is named but has not arrived is shown as a placeholder. As of a position the answer is what it was then:
what was recorded later is neither shown nor counted against a bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from context_graph.domain.graph import EventNode
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.errors import UnknownThing
from context_graph.retrieval.deadline import CUT, Deadline
from context_graph.retrieval.neighbours import Neighbours
from context_graph.retrieval.request import AsOf
from context_graph.store.index import Index

Direction = Literal["causes", "effects", "both"]


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """`source` was caused by `target`; the position is that of the event that says so."""

    source: str
    target: str
    position: Position


@dataclass(frozen=True, slots=True)
class LineageNode:
    """An event reached, at how many steps, in which direction, through which other; None while it has not arrived.

    `forgotten`: it is out of graph and index, and read from the ledger.
    """

    event_id: str
    event: EventNode | None
    depth: int
    direction: str
    via: str | None = None
    text: str = ""
    forgotten: bool = False


@dataclass(slots=True)
class Lineage:
    """The part of the causal graph around one event, and what was left out of it."""

    root: str
    nodes: dict[str, LineageNode] = field(default_factory=dict)
    edges: dict[tuple[str, str], LineageEdge] = field(default_factory=dict)
    truncated: list[str] = field(default_factory=list)

    def cut(self, reason: str) -> None:
        if reason not in self.truncated:
            self.truncated.append(reason)

    def paths(self, most: int) -> list[list[LineageNode]]:
        """From the root to each end, along the edges by which the nodes were first reached; the longest first."""
        inner = {node.via for node in self.nodes.values()}
        ends = [node for name, node in self.nodes.items() if name not in inner and name != self.root]
        ends.sort(key=lambda node: (-node.depth, node.event_id))
        return [list(self._upwards(node))[::-1] for node in ends[:most]]

    def _upwards(self, node: LineageNode) -> Iterator[LineageNode]:
        yield node
        while node.via is not None:
            node = self.nodes[node.via]
            yield node


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a walk may go: steps from the root, events in the answer, causes or effects followed from one event."""

    max_depth: int = 10
    max_nodes: int = 200
    fan_out: int = 100


@dataclass(frozen=True, slots=True)
class Walk:
    """Whose graph, how far, how long, as of when."""

    tenant: Tenant
    bounds: Bounds
    deadline: Deadline
    as_of: AsOf | None = None


@dataclass(frozen=True, slots=True)
class _Link:
    """From one event to the next: what is reached, from where, and the edge that says so."""

    reached: str
    via: str
    edge: LineageEdge


class LineageWalk:
    """Walks the causes and effects of a tenant's events."""

    def __init__(self, neighbours: Neighbours, index: Index) -> None:
        self._neighbours = neighbours
        self._index = index

    async def walk(self, event_id: str, direction: Direction, walk: Walk) -> Lineage:
        """Causes, effects or both of an event. Raises UnknownThing when the event is not in the graph."""
        root = (await self._neighbours.events(walk.tenant, [event_id], walk.as_of)).get(event_id)
        if root is None:
            raise UnknownThing("event", event_id)
        lineage = Lineage(event_id)
        lineage.nodes[event_id] = LineageNode(event_id, root, 0, "root")
        for way in ("causes", "effects"):
            if direction in (way, "both"):
                await self._go(lineage, way, walk)
        await self._texts(walk.tenant, lineage)
        return lineage

    async def _go(self, lineage: Lineage, way: str, walk: Walk) -> None:
        frontier = [lineage.nodes[lineage.root]]
        for depth in range(1, walk.bounds.max_depth + 2):
            if walk.deadline.passed:
                lineage.cut(CUT)
                return
            links = await self._links(lineage, frontier, way, walk)
            if depth > walk.bounds.max_depth:
                if any(link.reached not in lineage.nodes for link in links):
                    lineage.cut("depth")
                _join(lineage, links)
                return
            wanted = _room(lineage, [link.reached for link in links], walk.bounds)
            found = await self._neighbours.events(walk.tenant, wanted, walk.as_of)
            through = {link.reached: link.via for link in reversed(links)}
            for name in wanted:
                lineage.nodes[name] = LineageNode(name, found.get(name), depth, way, through[name])
            _join(lineage, links)
            frontier = [lineage.nodes[name] for name in wanted]
            if not frontier:
                return

    async def _links(self, lineage: Lineage, frontier: Sequence[LineageNode], way: str, walk: Walk) -> list[_Link]:
        most = walk.bounds.fan_out
        if way == "causes":
            arrived = [node.event for node in frontier if node.event is not None]
            if any(len(event.causes) > most for event in arrived):
                lineage.cut("fan_out")
            return [
                _Link(cause, event.id, LineageEdge(event.id, cause, event.position))
                for event in arrived
                for cause in event.causes[:most]
            ]
        links = []
        names = [node.event_id for node in frontier]
        found = await self._neighbours.effects(walk.tenant, names, most, walk.as_of)
        for cause, (entries, more) in found.items():
            if more:
                lineage.cut("fan_out")
            links += [_Link(e.event_id, cause, LineageEdge(e.event_id, cause, e.position)) for e in entries]
        return links

    async def _texts(self, tenant: Tenant, lineage: Lineage) -> None:
        by_bucket: dict[int, list[str]] = {}
        for node in lineage.nodes.values():
            if node.event is not None:
                by_bucket.setdefault(node.event.position.bucket, []).append(node.event_id)
        for bucket, ids in by_bucket.items():
            documents = await self._index.read_documents(Partition(tenant.name, bucket), ids)
            for event_id, stored in zip(ids, documents, strict=True):
                node = lineage.nodes[event_id]
                if stored is not None:
                    lineage.nodes[event_id] = replace(node, text=" ".join(stored.document.text.split()))
                elif node.event is not None:
                    said = await self._neighbours.forgotten.text(tenant, node.event)
                    lineage.nodes[event_id] = replace(node, text=said or "", forgotten=said is not None)


def _room(lineage: Lineage, ids: Sequence[str], bounds: Bounds) -> list[str]:
    """The new ones among `ids`, as many as the answer still has room for."""
    new = [i for i in dict.fromkeys(ids) if i not in lineage.nodes]
    room = bounds.max_nodes - len(lineage.nodes)
    if len(new) > room:
        lineage.cut("nodes")
    return new[: max(room, 0)]


def _join(lineage: Lineage, links: Sequence[_Link]) -> None:
    """Edges whose both ends are in the answer."""
    for link in links:
        if link.reached in lineage.nodes and link.via in lineage.nodes:
            lineage.edges[(link.edge.source, link.edge.target)] = link.edge
