"""Lineage: what led to an event and what it led to, by bounded breadth-first hops.

Every hop is one pipelined round trip for each partition. Bounds on depth, nodes and fan-out hold always, and what was
cut is said. A cause that is named but has not arrived is shown as a placeholder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from context_graph.domain.graph import EventNode
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.errors import UnknownThing
from context_graph.retrieval.request import AsOf
from context_graph.store.graph import Graph
from context_graph.store.index import Index

Direction = Literal["causes", "effects", "both"]
_FAN_OUT = 100


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """`source` was caused by `target`; the position is that of the event that says so."""

    source: str
    target: str
    position: Position


@dataclass(frozen=True, slots=True)
class LineageNode:
    """An event reached, at how many steps, in which direction; None while it has not arrived."""

    event_id: str
    event: EventNode | None
    depth: int
    direction: str
    text: str = ""


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


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a walk may go: steps from the root, events in the answer."""

    max_depth: int = 10
    max_nodes: int = 200


class LineageWalk:
    """Walks the causes and effects of a tenant's events."""

    def __init__(self, graph: Graph, index: Index) -> None:
        self._graph = graph
        self._index = index

    async def walk(
        self, tenant: Tenant, event_id: str, direction: Direction, bounds: Bounds, as_of: AsOf | None = None
    ) -> Lineage:
        """Causes, effects or both of an event. Raises UnknownThing when the event is not in the graph."""
        root = (await self._events(tenant, [event_id], as_of)).get(event_id)
        if root is None:
            raise UnknownThing("event", event_id)
        lineage = Lineage(event_id)
        lineage.nodes[event_id] = LineageNode(event_id, root, 0, "root")
        if direction in {"causes", "both"}:
            await self._causes(tenant, lineage, root, bounds, as_of)
        if direction in {"effects", "both"}:
            await self._effects(tenant, lineage, bounds, as_of)
        await self._texts(tenant, lineage)
        return lineage

    async def _causes(
        self, tenant: Tenant, lineage: Lineage, root: EventNode, bounds: Bounds, as_of: AsOf | None
    ) -> None:
        frontier = [root]
        for depth in range(1, bounds.max_depth + 1):
            links = [(node, cause) for node in frontier for cause in node.causes[:_FAN_OUT]]
            if any(len(node.causes) > _FAN_OUT for node in frontier):
                lineage.cut("fan_out")
            wanted = self._room(lineage, [cause for _, cause in links], bounds)
            found = await self._events(tenant, wanted, as_of)
            for cause in wanted:
                lineage.nodes[cause] = LineageNode(cause, found.get(cause), depth, "causes")
            _link(lineage, [(node.id, cause, node.position) for node, cause in links])
            frontier = list(found.values())
            if not frontier:
                return
        if any(node.causes for node in frontier):
            lineage.cut("depth")

    async def _effects(self, tenant: Tenant, lineage: Lineage, bounds: Bounds, as_of: AsOf | None) -> None:
        frontier = [lineage.root]
        for depth in range(1, bounds.max_depth + 2):
            links: list[tuple[str, str, Position]] = []
            for partition in tenant.partitions:
                effects = await self._graph.effects(partition, frontier, _FAN_OUT + 1)
                for cause, entries in effects.items():
                    if len(entries) > _FAN_OUT:
                        lineage.cut("fan_out")
                    links += [(entry.event_id, cause, entry.position) for entry in entries[:_FAN_OUT]]
            if as_of is not None:
                links = [link for link in links if as_of.includes(link[2])]
            if depth > bounds.max_depth:
                if any(source not in lineage.nodes for source, _, _ in links):
                    lineage.cut("depth")
                return
            wanted = self._room(lineage, [source for source, _, _ in links], bounds)
            found = await self._events(tenant, wanted, as_of)
            for source in wanted:
                lineage.nodes[source] = LineageNode(source, found.get(source), depth, "effects")
            _link(lineage, links)
            frontier = wanted
            if not frontier:
                return

    def _room(self, lineage: Lineage, ids: Sequence[str], bounds: Bounds) -> list[str]:
        """The new ones among `ids`, as many as the answer still has room for."""
        new = [i for i in dict.fromkeys(ids) if i not in lineage.nodes]
        room = bounds.max_nodes - len(lineage.nodes)
        if len(new) > room:
            lineage.cut("nodes")
        return new[: max(room, 0)]

    async def _events(self, tenant: Tenant, ids: Sequence[str], as_of: AsOf | None) -> dict[str, EventNode]:
        found: dict[str, EventNode] = {}
        for partition in tenant.partitions:
            found |= await self._graph.events(partition, ids)
        return {i: node for i, node in found.items() if as_of is None or as_of.includes(node.position)}

    async def _texts(self, tenant: Tenant, lineage: Lineage) -> None:
        by_bucket: dict[int, list[str]] = {}
        for node in lineage.nodes.values():
            if node.event is not None:
                by_bucket.setdefault(node.event.position.bucket, []).append(node.event_id)
        for bucket, ids in by_bucket.items():
            documents = await self._index.read_documents(Partition(tenant.name, bucket), ids)
            for event_id, stored in zip(ids, documents, strict=True):
                if stored is not None:
                    node = lineage.nodes[event_id]
                    text = " ".join(stored.document.text.split())
                    lineage.nodes[event_id] = LineageNode(event_id, node.event, node.depth, node.direction, text)


def _link(lineage: Lineage, links: Sequence[tuple[str, str, Position]]) -> None:
    """Edges whose both ends are in the answer."""
    for source, target, position in links:
        if source in lineage.nodes and target in lineage.nodes:
            lineage.edges[(source, target)] = LineageEdge(source, target, position)
