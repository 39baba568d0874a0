"""The graph's edges as they are asked for and told: kinds of nodes, types of edges, and which event says so.

Most edges are not stored one by one (adr/0003): they follow from an event's own fields, from timelines and from the
sets of effects and receipts. `membership` is the table of those that an event's fields say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

from context_graph.domain.event import FACT_SUPERSEDED_TYPE, FACT_TYPE, SUMMARY_TYPE
from context_graph.domain.graph import EventNode
from context_graph.domain.position import Position

NodeKind = Literal["event", "session", "agent", "user", "tool", "entity"]
EdgeType = Literal[
    "CAUSED_BY", "FOLLOWS", "IN_SESSION", "BY_AGENT", "USED_TOOL", "ABOUT", "REFERENCES", "DERIVED_FROM", "SUMMARIZES",
    "SIMILAR_TO", "RELATED_TO", "SAME_AS",
    "SUPERSEDES",
]  # fmt: skip
Way = Literal["out", "in", "both"]
NODE_KINDS: tuple[NodeKind, ...] = get_args(NodeKind)
EDGE_TYPES: tuple[EdgeType, ...] = get_args(EdgeType)
LINKS: frozenset[EdgeType] = frozenset(("SIMILAR_TO", "RELATED_TO", "SAME_AS"))
"""Edges that no event says: found when they are asked for (adr/0028). They have no direction and a score."""
SAID: tuple[EdgeType, ...] = tuple(name for name in EDGE_TYPES if name not in LINKS)
"""Edges that an event says, in its fields or by its place: what a graph query follows unless it asks for more."""

MEMBER_EDGE: dict[NodeKind, EdgeType] = {
    "session": "IN_SESSION",
    "agent": "BY_AGENT",
    "user": "ABOUT",
    "tool": "USED_TOOL",
    "entity": "REFERENCES",
}
"""From an event to what has a timeline."""


@dataclass(frozen=True, slots=True, order=True)
class NodeId:
    """A node: its kind, and its id among those of that kind."""

    kind: NodeKind
    id: str

    def __str__(self) -> str:
        """An event by its own id; others as `kind:id`, and so an event whose id looks like one of those."""
        if self.kind == "event" and self.id.partition(":")[0] not in NODE_KINDS:
            return self.id
        return f"{self.kind}:{self.id}"


@dataclass(frozen=True, slots=True)
class Mentioned:
    """An entity that an event mentions: as first written, in which role, and how often."""

    entity_id: str
    name: str
    role: str
    count: int


@dataclass(frozen=True, slots=True)
class Edge:
    """`source` to `target`; the position is that of the event that says so."""

    source: NodeId
    target: NodeId
    type: EdgeType
    position: Position
    properties: tuple[tuple[str, str | float | bool], ...] = field(default=())

    @property
    def key(self) -> tuple[NodeId, NodeId, EdgeType]:
        return self.source, self.target, self.type


def _told_of(event: EventNode) -> Iterator[Edge]:
    """What a derived event is about: a summary about its session or those it was made from, a fact about a person."""
    here = NodeId("event", event.id)
    if event.event_type == SUMMARY_TYPE:
        for session_id in event.sessions or (event.session_id,):
            yield Edge(here, NodeId("session", session_id), "SUMMARIZES", event.position)
    if event.event_type == FACT_TYPE and event.user_id is not None:
        yield Edge(here, NodeId("user", event.user_id), "ABOUT", event.position)


def membership(event: EventNode, mentioned: tuple[Mentioned, ...]) -> Iterator[Edge]:
    """The edges that an event's own fields say, its causes among them."""
    here = NodeId("event", event.id)
    derived = event.origin == "derived"
    if event.event_type == FACT_SUPERSEDED_TYPE:
        newer, older = (NodeId("event", name) for name in event.causes)
        yield Edge(newer, older, "SUPERSEDES", event.position)
        return
    for cause in event.causes:
        known = () if derived else (("explicit", True),)
        yield Edge(here, NodeId("event", cause), "DERIVED_FROM" if derived else "CAUSED_BY", event.position, known)
    if derived:
        yield from _told_of(event)
        return
    names: tuple[tuple[NodeKind, str | None], ...] = (
        ("session", event.session_id), ("agent", event.agent_id), ("user", event.user_id), ("tool", event.tool_name),
    )  # fmt: skip
    for kind, name in names:
        if name is not None:
            yield Edge(here, NodeId(kind, name), MEMBER_EDGE[kind], event.position)
    for mention in mentioned:
        told = (("name", mention.name), ("role", mention.role), ("count", mention.count))
        yield Edge(here, NodeId("entity", mention.entity_id), "REFERENCES", event.position, told)
