"""Communities over HTTP: what the memory is about."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from context_graph.api import graph_shapes as shapes
from context_graph.api import problems
from context_graph.api.auth import ReadTenant
from context_graph.api.problems import answers
from context_graph.api.readings import Paged, Reading, read_cursor, refused, write_cursor
from context_graph.api.rendering import as_of_json, json_response
from context_graph.api.services import services_of
from context_graph.resolution.communities import Community

router = APIRouter(prefix="/v1/communities", tags=["graph"])
_SHOWN = 10  # members in a list


@router.get("", summary="List communities", responses={200: shapes.COMMUNITIES, **answers(problems.INVALID)})
async def list_communities(request: Request, tenant: ReadTenant, asked: Annotated[Paged, Query()]) -> Response:
    """Entities that are mentioned together more than with others: largest first, ties by id, their ten most central
    members each. Found anew for each page: one that changes its size between two pages may be on both or none."""
    services = services_of(request)
    late = await asked.waited(services.waiting, tenant)
    query = ["communities", asked.model_dump(exclude={"limit", "cursor", "min_position", "wait_ms"})]
    place = _place(read_cursor(tenant, query, asked.cursor))
    with services.metrics.timed("graph"):
        found = await services.retrieval.communities.all(tenant, asked.moment, late.append)
    behind = [one for one in found if place is None or _key(one) > place]
    shown = behind[: asked.limit]
    following: list[str | int] | None = list(_key(shown[-1])) if len(behind) > len(shown) else None
    return json_response(
        {
            "communities": [_json(one, _SHOWN) for one in shown],
            "page": {"next_cursor": write_cursor(tenant, query, following)},
            "meta": {"as_of": as_of_json(asked.moment), "truncated": late, "complete": not late},
        }
    )


@router.get(
    "/{community_id}",
    summary="Read a community",
    responses={200: shapes.COMMUNITY, **answers(problems.UNKNOWN, problems.INVALID)},
)
async def get_community(
    request: Request, tenant: ReadTenant, community_id: str, asked: Annotated[Reading, Query()]
) -> Response:
    """All its members (`names`: of those that have several, all that are one thing), its sessions, and the sentences of
    their summaries that name most of its members, each with the events that it cites. The id stays while its most
    central member does."""
    services = services_of(request)
    late = await asked.waited(services.waiting, tenant)
    with services.metrics.timed("graph"):
        found = await services.retrieval.communities.detail(tenant, community_id, asked.moment, late.append)
    sentences = [
        {"text": s.text, "event_ids": list(s.event_ids), "session_id": s.session_id, "position": str(s.position)}
        for s in found.sentences
    ]
    return json_response(
        {
            **_json(found.community, len(found.community.members)),
            "names": {member: list(names) for member, names in found.names.items() if len(names) > 1},
            "sessions": [{"session_id": name, "events": count} for name, count in found.sessions],
            "summary": {"method": "extractive", "sentences": sentences} if sentences else None,
            "meta": {"as_of": as_of_json(asked.moment), "truncated": late, "complete": not late},
        }
    )


def _json(one: Community, members: int) -> dict[str, Any]:
    return {
        "id": one.id,
        "size": len(one.members),
        "events": len(one.event_ids),
        "members": [
            {"entity": member.entity_id, "centrality": member.centrality, "events": member.events}
            for member in one.members[:members]
        ],
    }


def _key(one: Community) -> tuple[int, str]:
    return -len(one.members), one.id


def _place(place: list[Any] | None) -> tuple[int, str] | None:
    match place:
        case None:
            return None
        case [int(size), str(name)]:
            return size, name
        case _:
            raise refused("this is not a cursor", "send back page.next_cursor of the previous page")
