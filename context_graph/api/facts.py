"""Facts and preferences over HTTP: pages, and one with its history and the event that says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from context_graph.api import graph_shapes as shapes
from context_graph.api import problems
from context_graph.api.auth import AdminTenant, ReadTenant
from context_graph.api.paths import ANY_ID
from context_graph.api.problems import answers
from context_graph.api.readings import Paged, Reading, parse_time, place_position, read_cursor, write_cursor
from context_graph.api.rendering import as_of_json, event_json, json_response
from context_graph.api.services import services_of
from context_graph.domain.event import LedgerEvent, SessionId, iso
from context_graph.domain.learned import LearnedFact, Standing
from context_graph.domain.partition import Tenant
from context_graph.domain.rereading import reread_event
from context_graph.errors import FieldProblem, InvalidInput, UnknownThing
from context_graph.retrieval.fact_pages import FactQuery
from context_graph.retrieval.request import AsOf
from context_graph.store import codec
from context_graph.store.consolidation import ConsolidationStore
from context_graph.store.ledger import Appendable
from context_graph.store.runs import Run, Runs

router = APIRouter(prefix="/v1", tags=["memory"])

_Name = Annotated[str | None, Field(default=None, min_length=1, max_length=256)]


class UserFactsIn(Paged):
    """Which facts of a person. Several filters must all hold."""

    subject: _Name = None
    predicate: _Name = None
    kind: Literal["fact", "preference"] | None = None
    history: bool = Field(default=False, description="also those that hold no longer")
    held_at: str | None = Field(
        default=None,
        max_length=64,
        description="an RFC 3339 time: those that held then by when things were said, whenever that was learned",
    )

    @property
    def held(self) -> int | None:
        """`held_at`, ms UTC. Raises InvalidInput."""
        if self.held_at is not None and self.history:
            remedy = "leave out one: history lists all, held_at those that held at that time"
            raise InvalidInput([FieldProblem("/held_at", "it comes with history", remedy, "contradiction")])
        return parse_time("held_at", self.held_at)


class FactsIn(UserFactsIn):
    """Which facts. Several filters must all hold."""

    user_id: _Name = None
    session_id: _Name = None


@router.get("/facts", summary="List facts", responses={200: shapes.FACTS, **answers(problems.INVALID)})
async def list_facts(request: Request, tenant: ReadTenant, asked: Annotated[FactsIn, Query()]) -> Response:
    """Facts and preferences that hold, last learned first, each with the words that hold it.

    `held_at` asks what held at a time, `as_of` what was known by a position or time of recording; both together, what
    was known then of what held at the other. What is said in several sessions comes once, where its last saying is.
    A page with filters that few facts pass may be short or empty and still have a next one.
    """
    return await _page(request, tenant, asked, asked.user_id, asked.session_id)


@router.get(
    f"/users/{{user_id:{ANY_ID}}}/facts",
    summary="List a person's facts",
    responses={200: shapes.FACTS, **answers(problems.INVALID)},
)
async def list_facts_of_user(
    request: Request, tenant: ReadTenant, user_id: str, asked: Annotated[UserFactsIn, Query()]
) -> Response:
    """What holds of a person: facts and preferences, last learned first. Of one who is not known there are none."""
    return await _page(request, tenant, asked, user_id, None)


@router.get(
    f"/facts/{{fact_id:{ANY_ID}}}",
    summary="Read one fact",
    responses={200: shapes.FACT, **answers(problems.UNKNOWN, problems.INVALID)},
)
async def get_fact(request: Request, tenant: ReadTenant, fact_id: str, asked: Annotated[Reading, Query()]) -> Response:
    """A fact, the event that says it, and its history: what it took the place of and what took its, oldest first."""
    services = services_of(request)
    late = await asked.waited(services.waiting, tenant)
    standing, history = await services.facts.fact(tenant, fact_id, asked.moment)
    position = next(f for f in (standing.fact, *standing.also) if f.id == fact_id).event_position
    evidence = await services.resources.ledger.at(tenant.partitions[position.bucket], [position.stream_id])
    return json_response(_fact_and_history(standing, history, evidence) | {"meta": _meta(asked.moment, late)})


@router.post(
    f"/sessions/{{session_id:{ANY_ID}}}/reread",
    status_code=202,
    summary="Read a session again",
    responses={202: shapes.REREAD, **answers(problems.UNKNOWN)},
)
async def reread_session(request: Request, tenant: AdminTenant, session_id: str) -> Response:
    """Has the language model asked again, with a new count of tries, about what it was given up on: facts and summary.

    What it answered well stays and is not paid for again. A worker does it as soon as it can: look at the run.
    """
    services = services_of(request)
    resources, now = services.resources, services.recalling.now_ms()
    partition = tenant.partition_of(SessionId(session_id))
    if not await resources.ledger.of_session(partition, session_id, None, 1):
        raise UnknownThing("session", session_id)
    store = ConsolidationStore(resources.derived_redis, resources.graph, resources.ledger)
    number = await store.rereads(partition, session_id) + 1
    event = reread_event(session_id, number, now)
    said = Appendable(event.event_id, event.session_id, codec.encode(event), clear=True)
    (appended,) = await resources.ledger.append(partition, [said])
    await store.look_again(partition, session_id, number)
    run = Run(id=f"run-{uuid4().hex}", kind="summaries", dry_run=False, asked_at=now)
    await Runs(resources.ledger_redis).ask(tenant.name, run)
    position = str(appended.position)
    return json_response({"session_id": session_id, "reread": number, "position": position, "run_id": run.id}, 202)


async def _page(
    request: Request, tenant: Tenant, asked: UserFactsIn, user_id: str | None, session_id: str | None
) -> Response:
    services = services_of(request)
    late = await asked.waited(services.waiting, tenant)
    named = asked.model_dump(exclude={"limit", "cursor", "min_position", "wait_ms"})
    query = ["facts", user_id, session_id, named]
    before = place_position(tenant, read_cursor(tenant, query, asked.cursor))
    wanted = FactQuery(
        user_id=user_id,
        session_id=session_id,
        subject=asked.subject,
        predicate=asked.predicate,
        kind=asked.kind,
        ended=asked.history,
        held_at=asked.held,
        as_of=asked.moment,
    )
    page = await services.facts.page(tenant, wanted, asked.limit, before)
    place: list[str | int] | None = None if page.next is None else [str(page.next)]
    return json_response(
        {
            "facts": [fact_json(standing) for standing in page.facts],
            "page": {"next_cursor": write_cursor(tenant, query, place)},
            "meta": _meta(asked.moment, late) | {"scanned": page.scanned},
        }
    )


def _meta(as_of: AsOf | None, late: Sequence[str]) -> dict[str, Any]:
    return {"as_of": as_of_json(as_of), "truncated": list(late), "complete": not late}


def fact_json(standing: Standing) -> dict[str, Any]:
    """A fact as it stands: validity in the time of what was said, learning in positions of the ledger."""
    fact, ended = standing.fact, standing.ended
    return {
        "id": fact.id,
        "kind": fact.kind,
        "subject": fact.subject,
        "predicate": fact.predicate,
        "object": fact.object,
        "text": fact.text,
        "user_id": fact.user_id,
        "session_id": fact.session_id,
        "valid_from": iso(standing.valid_from),
        "valid_to": None if ended is None else iso(ended.valid_to),
        "learned_at": str(fact.position),
        "superseded_at": None if ended is None else str(ended.position),
        "superseded_by": None if ended is None else ended.new,
        "reason": None if ended is None else ended.reason,
        "evidence": _evidence_json(fact),
        "also": [_saying_json(saying) for saying in standing.also],
    }


def _saying_json(fact: LearnedFact) -> dict[str, Any]:
    return {
        "id": fact.id,
        "session_id": fact.session_id,
        "valid_from": iso(fact.valid_from),
        "learned_at": str(fact.position),
        "evidence": _evidence_json(fact),
    }


def _evidence_json(fact: LearnedFact) -> dict[str, Any]:
    return {"event_id": fact.event_id, "position": str(fact.event_position), "quote": fact.quote}


def _fact_and_history(
    standing: Standing, history: Sequence[Standing], evidence: Sequence[LedgerEvent]
) -> dict[str, Any]:
    return {
        **fact_json(standing),
        "event": event_json(evidence[0]) if evidence else None,
        "history": [fact_json(each) for each in history],
    }
