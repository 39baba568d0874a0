"""Lineage, impact and graph queries over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from context_graph.api import graph_shapes as shapes
from context_graph.api import problems
from context_graph.api.auth import ReadTenant
from context_graph.api.bodies import described, read_model
from context_graph.api.graph_rendering import graph_json, impact_json, lineage_json
from context_graph.api.paths import ANY_ID
from context_graph.api.problems import answers
from context_graph.api.readings import Reading, named_filters
from context_graph.api.rendering import json_response
from context_graph.api.services import services_of
from context_graph.domain.edges import EDGE_TYPES, SAID, EdgeType, NodeId, NodeKind, Way
from context_graph.errors import FieldProblem, InvalidInput
from context_graph.retrieval.graph_query import GraphQuery
from context_graph.retrieval.lineage import Bounds
from context_graph.retrieval.links import LINK_BOUNDS, LinkBounds

router = APIRouter(prefix="/v1", tags=["graph"])


class ImpactIn(Reading):
    """How far to follow."""

    max_depth: int = Field(default=10, ge=1, le=100, description="steps from the event")
    max_nodes: int = Field(default=200, ge=1, le=5000, description="events in the answer")
    fan_out: int = Field(default=100, ge=1, le=1000, description="causes or effects followed from one event")

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.max_depth, self.max_nodes, self.fan_out)


class LineageIn(ImpactIn):
    """How far to follow, and which way."""

    direction: Literal["causes", "effects", "both"] = "both"


class StartIn(BaseModel):
    """A node to start from."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: NodeKind = "event"
    id: str = Field(min_length=1, max_length=512)


class GraphIn(Reading):
    """Where to start, along which edges, how far. `direction`: along the edges (out), against them (in), or both."""

    model_config = ConfigDict(extra="forbid", strict=True, title="GraphRequest")

    start: Annotated[list[StartIn], Field(min_length=1, max_length=100)]
    edges: list[EdgeType] = Field(
        default_factory=lambda: list(SAID),
        min_length=1,
        description="types of edges to follow; absent: those that events say, and with links or min_score in the "
        "request SIMILAR_TO, RELATED_TO and SAME_AS too, which take several times as long",
    )
    direction: Way = "both"
    filters: dict[str, dict[str, Any]] | None = Field(
        default=None, description="which events count: {field: {op: value}}, and-ed", examples=[{}]
    )
    max_depth: int = Field(default=2, ge=1, le=10, description="steps from the start")
    max_nodes: int = Field(default=200, ge=1, le=2000)
    fan_out: int = Field(default=50, ge=1, le=1000, description="nodes reached from one node along one kind of edge")
    links: int = Field(
        default=LINK_BOUNDS.per_node,
        ge=1,
        le=50,
        description="of one node the best so many SIMILAR_TO and RELATED_TO edges, which no event says",
    )
    min_score: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="least `score` of such an edge; absent: 0.6 for SIMILAR_TO, 0.5 for RELATED_TO and SAME_AS",
    )

    @property
    def types(self) -> frozenset[EdgeType]:
        """The types of edges to follow: those named, else what is meant by naming none."""
        given = self.model_fields_set
        asks_for_links = "edges" not in given and not given.isdisjoint(("links", "min_score"))
        return frozenset(EDGE_TYPES if asks_for_links else self.edges)


_GRAPH_EXAMPLE = {
    "start": [{"kind": "session", "id": "support-1041"}], "edges": ["IN_SESSION", "CAUSED_BY"], "max_depth": 2,
    "filters": {"event_type": {"any": ["tool.call", "tool.result"]}},
}  # fmt: skip


@router.get(
    f"/events/{{event_id:{ANY_ID}}}/lineage",
    summary="Lineage",
    responses={200: shapes.LINEAGE, **answers(problems.UNKNOWN, problems.INVALID)},
)
async def get_lineage(
    request: Request, tenant: ReadTenant, event_id: str, asked: Annotated[LineageIn, Query()]
) -> Response:
    """What led to an event, and what it led to: nodes, edges and paths with their positions; what was cut is said."""
    services = services_of(request)
    late = await asked.waited(services.waiting, tenant)
    with services.metrics.timed("lineage"):
        lineage = await services.retrieval.lineage(tenant, event_id, asked.direction, asked.bounds, asked.moment)
    return json_response(lineage_json(lineage, asked.moment, late))


@router.get(
    f"/events/{{event_id:{ANY_ID}}}/impact",
    summary="What an event led to",
    responses={200: shapes.IMPACT, **answers(problems.UNKNOWN, problems.INVALID)},
)
async def get_impact(
    request: Request, tenant: ReadTenant, event_id: str, asked: Annotated[ImpactIn, Query()]
) -> Response:
    """The event's effects and theirs, and in `meta.impact` what they come to: how many, where, which of them failed."""
    services = services_of(request)
    late = await asked.waited(services.waiting, tenant)
    with services.metrics.timed("lineage"):
        lineage = await services.retrieval.lineage(tenant, event_id, "effects", asked.bounds, asked.moment)
    return json_response(impact_json(lineage, asked.moment, late))


@router.post(
    "/graph/query",
    summary="Query the graph",
    openapi_extra=described(GraphIn.model_json_schema(), _GRAPH_EXAMPLE),
    responses={
        200: shapes.GRAPH,
        **answers(problems.UNKNOWN, problems.INVALID, *problems.BODY),
    },
)
async def post_graph_query(request: Request, tenant: ReadTenant) -> Response:
    """Nodes and edges around the start, breadth-first within the bounds; `meta.truncated` says what was cut.

    Events are named by their id, other nodes by `kind:id`. The events of a session, an agent, a user, a tool or an
    entity are its newest `fan_out`. Start nodes that are not there are in `meta.missing`. SIMILAR_TO, RELATED_TO and
    SAME_AS have no direction: they are found from both ends, each with its `score`, when `edges`, `links` or
    `min_score` asks for them.
    """
    asked = await read_model(request, GraphIn)
    services = services_of(request)
    filters = named_filters(asked.filters)
    if any(condition.field == "importance" for condition in filters.conditions):
        remedy = "filter by another field, or search by importance with /v1/search"
        raise InvalidInput([FieldProblem("/filters/importance", "nodes have no importance", remedy, "field")])
    start = tuple(NodeId(node.kind, node.id) for node in asked.start)
    links = LinkBounds(asked.links, asked.min_score)
    query = GraphQuery(start, asked.types, asked.direction, filters, links)
    bounds = Bounds(asked.max_depth, asked.max_nodes, asked.fan_out)
    late = await asked.waited(services.waiting, tenant)
    with services.metrics.timed("graph"):
        found = await services.retrieval.graph(tenant, query, bounds, asked.moment)
    return json_response(graph_json(found, asked.moment, late))
