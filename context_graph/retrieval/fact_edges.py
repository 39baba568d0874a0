"""Edges of facts, found from the end that does not say them: a person's, an event's, and what took whose place.

A fact's own node says whom it is about and what it rests on (`domain/edges.py`). From the other ends they are found by
the lists that erasure goes by too, the newest first, one pipelined round of reads a hop. What cannot be read any more
is no end of an edge: a fact that was erased neither took a place nor lost it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from context_graph.domain.edges import Edge, EdgeType, NodeId, Way
from context_graph.domain.event import iso
from context_graph.domain.learned import LearnedFact, Supersession
from context_graph.domain.partition import Tenant
from context_graph.domain.position import Position
from context_graph.retrieval.lineage import Walk
from context_graph.retrieval.request import AsOf
from context_graph.store.learned import LearnedFacts
from context_graph.store.learned_records import SUPERSEDED_BY

Ends = list[tuple[Edge, bool]]
"""Edges, each with whether it leads out of the frontier."""


class FactEdges:
    """Of any tenant."""

    def __init__(self, learned: LearnedFacts) -> None:
        self._learned = learned

    async def around(
        self, frontier: Sequence[NodeId], facts: Sequence[str], wanted: frozenset[EdgeType], way: Way, walk: Walk
    ) -> tuple[Ends, bool]:
        """The edges at these nodes, and whether `fan_out` cut any. `facts`: those of the nodes that are facts."""
        people = [node for node in frontier if node.kind == "user"] if "ABOUT" in wanted else []
        events = [node for node in frontier if node.kind == "event"] if "DERIVED_FROM" in wanted else []
        told, (followed, more) = await asyncio.gather(
            self._told_of([*people, *events] if way != "out" else [], walk),
            self._places(facts if "SUPERSEDES" in wanted else [], walk),
        )
        return [*told[0], *followed], told[1] or more

    async def texts(self, tenant: Tenant, ids: Sequence[str]) -> dict[str, str]:
        """What facts say; they have no documents."""
        return {name: fact.text for name, fact in (await self._learned.facts(tenant.partitions, ids)).items()}

    async def _told_of(self, nodes: Sequence[NodeId], walk: Walk) -> tuple[Ends, bool]:
        """The facts about these people, and those that rest on these events."""
        until = None if walk.as_of is None else walk.as_of.last
        fan_out = walk.bounds.fan_out
        lists = {(node.kind, node.id): node for node in nodes}
        found = await self._learned.members(walk.tenant.partitions, list(lists), fan_out + 1, until=until)
        edges: Ends = [
            (Edge(NodeId("event", one.event_id), node, _TOLD[node.kind], one.position), False)
            for of, node in lists.items()
            for one in found[of][:fan_out]
        ]
        return edges, any(len(members) > fan_out for members in found.values())

    async def _places(self, names: Sequence[str], walk: Walk) -> tuple[Ends, bool]:
        """What took the place of these facts, and whose place they took."""
        until = None if walk.as_of is None else walk.as_of.last
        fan_out, partitions = walk.bounds.fan_out, walk.tenant.partitions
        lists = [(SUPERSEDED_BY, name) for name in names]
        listed = await self._learned.members(partitions, lists, fan_out + 1, until=until)
        older = {one.event_id for members in listed.values() for one in members[:fan_out]}
        ended = await self._learned.ended(partitions, list(dict.fromkeys([*names, *sorted(older)])))
        rows = [row for said in ended.values() for row in said if _was_there(row.position, walk.as_of)]
        there = await self._learned.facts(partitions, {name for row in rows for name in (row.old, row.new)})
        here = set(names)
        edges = [
            (_superseding(row), row.new in here)
            for row in sorted(rows, key=lambda row: row.position, reverse=True)
            if (row.old in here or row.new in here) and _readable(row, there, walk.as_of)
        ]
        return edges, any(len(members) > fan_out for members in listed.values())


_TOLD: Mapping[str, EdgeType] = {"user": "ABOUT", "event": "DERIVED_FROM"}


def _superseding(row: Supersession) -> Edge:
    told = (("reason", row.reason), ("valid_to", iso(row.valid_to)))
    return Edge(NodeId("event", row.new), NodeId("event", row.old), "SUPERSEDES", row.position, told)


def _readable(row: Supersession, there: Mapping[str, LearnedFact], as_of: AsOf | None) -> bool:
    facts = [there.get(row.old), there.get(row.new)]
    return all(fact is not None and _was_there(fact.position, as_of) for fact in facts)


def _was_there(position: Position, as_of: AsOf | None) -> bool:
    return as_of is None or as_of.includes(position)
