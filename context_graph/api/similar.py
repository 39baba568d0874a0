"""Events near an event in meaning, over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from context_graph.api import graph_shapes as shapes
from context_graph.api import problems
from context_graph.api.auth import ReadTenant
from context_graph.api.moments import AsOfText, parse_as_of
from context_graph.api.paths import ANY_ID
from context_graph.api.problems import answers
from context_graph.api.rendering import as_of_json, json_response
from context_graph.api.services import services_of
from context_graph.domain.document import Document
from context_graph.domain.event import iso
from context_graph.domain.keywords import keywords_of
from context_graph.retrieval.request import AsOf
from context_graph.retrieval.similar import THRESHOLD, SimilarEvents, similar_events
from context_graph.store.queries import Searcher

router = APIRouter(prefix="/v1", tags=["graph"])
_EXCERPT = 240  # characters of an event's text


@router.get(
    f"/events/{{event_id:{ANY_ID}}}/similar",
    summary="Similar events",
    responses={200: shapes.SIMILAR, **answers(problems.UNKNOWN, problems.INVALID)},
)
async def get_similar(
    request: Request,
    tenant: ReadTenant,
    event_id: str,
    *,
    limit: Annotated[int, Query(ge=1, le=50, description="events in the answer beside this one")] = 10,
    threshold: Annotated[float, Query(ge=0, le=1, description="least cosine similarity")] = THRESHOLD,
    as_of: AsOfText = None,
) -> Response:
    """SIMILAR_TO edges from an event to those nearest in meaning, later ones included; nearest first.

    `meta.complete` is false while the event has no vector yet.
    """
    moment = parse_as_of(as_of)
    services = services_of(request)
    resources = services.resources
    searcher = Searcher(resources.derived_redis, resources.generations.live)
    with services.metrics.timed("similar"):
        found = await similar_events(
            resources.index, searcher, tenant, event_id, limit=limit, threshold=threshold, as_of=moment
        )
    return json_response(_similar(found, moment))


def _similar(found: SimilarEvents, as_of: AsOf | None) -> dict[str, Any]:
    nodes = {found.event.id: _node(found.event, "asked for", 0, {})}
    for one in found.near:
        nodes[one.document.id] = _node(one.document, "similar in meaning", 1, {"similarity": round(one.score, 4)})
    edges = [
        {
            "source": found.event.id,
            "target": one.document.id,
            "type": "SIMILAR_TO",
            "properties": {"score": round(one.score, 4)},
            "position": str(max(found.event.position, one.document.position)),
        }
        for one in found.near
    ]
    meta = {"root": found.event.id, "complete": found.ready, "as_of": as_of_json(as_of)}
    return {"nodes": nodes, "edges": edges, "page": {"next_cursor": None}, "meta": meta}


def _node(document: Document, reason: str, depth: int, scores: dict[str, float]) -> dict[str, Any]:
    attributes = {
        "event_type": document.event_type,
        "origin": document.origin,
        "tool_name": document.tool_name,
        "user_id": document.user_id,
        "status": document.status,
        "text": document.text[:_EXCERPT],
        "keywords": list(keywords_of(document.text)) or None,
    }
    return {
        "kind": "event",
        "attributes": {name: value for name, value in attributes.items() if value is not None},
        "provenance": {
            "event_id": document.id,
            "position": str(document.position),
            "occurred_at": iso(document.occurred_at),
            "session_id": document.session_id,
            "agent_id": document.agent_id,
            "trace_id": None,
        },
        "scores": scores,
        "reason": reason,
        "depth": depth,
        "via": None,
    }
