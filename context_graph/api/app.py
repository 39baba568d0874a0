"""The HTTP application: routes, errors, CORS, and the lifespan that opens and closes what they use."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import structlog
from fastapi import Depends, FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from context_graph import __version__
from context_graph.api import (
    access,
    communities,
    dead_letters,
    entities,
    erasure,
    event_import,
    event_pages,
    events,
    facts,
    forgetting,
    graph,
    health,
    idempotency,
    memory,
    openapi,
    problems,
    query_names,
    rebuilds,
    receipts,
    request_ids,
    schemas,
    sessions,
    similar,
    tail,
)
from context_graph.api import answer_shapes as shapes
from context_graph.api.auth import Authenticator
from context_graph.api.problems import KINDS
from context_graph.api.rendering import json_response
from context_graph.api.services import Services
from context_graph.api.steady import SteadyReads
from context_graph.bootstrap import Resources, open_resources
from context_graph.delivery.notices import Notices
from context_graph.delivery.recalling import Recalling
from context_graph.delivery.tail import Tail
from context_graph.domain.event import TenantId
from context_graph.errors import ConfigurationError, ModelUnavailable, UnknownThing
from context_graph.ingest.admission import Admission
from context_graph.ingest.erasure import Forgetting
from context_graph.ingest.importing import Importer
from context_graph.ingest.ingest import Ingest
from context_graph.ingest.pressure import Pressure
from context_graph.ingest.schemas import Schemas
from context_graph.ingest.validation import Validator
from context_graph.models.embedder import Embedder
from context_graph.models.embedder_pool import EmbedderPool, open_embedders
from context_graph.models.tokens import open_counters
from context_graph.observability.metrics import Metrics
from context_graph.observability.stalls import Stalls
from context_graph.resolution.entities import Entities
from context_graph.retrieval.accounts import Accounts
from context_graph.retrieval.fact_pages import FactPages
from context_graph.retrieval.forgotten import ForgottenNodes
from context_graph.retrieval.neighbours import Neighbours
from context_graph.retrieval.service import Retrieval, RetrievalParts
from context_graph.retrieval.sessions import Sessions
from context_graph.retrieval.timeline import TimelinePages
from context_graph.retrieval.waiting import Waiting
from context_graph.settings import Settings
from context_graph.store.forgotten import Forgotten
from context_graph.store.learned import LearnedFacts
from context_graph.store.mentions import Mentions
from context_graph.store.notifications import Notifications
from context_graph.store.queries import Searcher
from context_graph.store.receipts import ReceiptIndex
from context_graph.store.sessions import SessionStore
from context_graph.store.timelines import Timelines

log = structlog.get_logger(__name__)

_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID")
"""What a browser may send beside the key's own header."""
_WARM_SECONDS = 3.0
"""Longest that the start waits for the embedding model."""
_DESCRIPTION = """Post what your agents do; get back the few hundred tokens they need now, every line traceable to its
events. Errors are RFC 9457 problem documents that name the field and the remedy."""


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings; it connects when it starts, not now."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            resources = await stack.enter_async_context(open_resources(settings))
            # One short query at a time: more threads would only wait for each other, and for the workers' own.
            embedding = settings.embedding.model_copy(update={"threads": settings.embedding.threads or 1})
            embedders = await stack.enter_async_context(open_embedders(embedding, settings.data_dir / "models"))
            warming = asyncio.create_task(_warm(embedders), name="embedder warming up")
            stack.push_async_callback(_ended, warming)
            await asyncio.wait({warming}, timeout=_WARM_SECONDS)  # the first query need not wait for a model to load
            await _first_start(resources)
            services = app.state.services = services_from(resources, embedders)
            listening = asyncio.create_task(services.notices.run(), name="ledger notices")
            stack.push_async_callback(_ended, listening)
            stack.push_async_callback(_ended, asyncio.create_task(services.stalls.run(), name="event loop's stalls"))
            log.info("api_started", version=__version__)
            yield

    app = FastAPIOffline(  # as FastAPI, with the assets of /docs from the package
        title="Context Graph",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        dependencies=[Depends(query_names.known_names)],
    )
    problems.install(app)
    app.router.redirect_slashes = False  # a path is what it is: a redirect would lose the body of a POST
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=[settings.api.key_header, *_HEADERS],
            expose_headers=["Retry-After", idempotency.REPLAYED, request_ids.HEADER],
            max_age=600,
        )
    app.include_router(events.posting)  # first: routers are asked in order, and most requests are for these
    app.include_router(memory.router)
    app.include_router(graph.router)  # before events: /v1/events/{id}/lineage is the longer path
    app.include_router(communities.router)
    app.include_router(similar.router)  # so is …/similar
    app.include_router(receipts.router)  # and so are /v1/events/{id}/receipts and …/context
    app.include_router(forgetting.router)  # and …/pin
    app.include_router(facts.router)
    app.include_router(sessions.router)
    app.include_router(tail.router)  # before events: /v1/events/tail is not an event's id
    app.include_router(event_import.router)
    app.include_router(event_pages.router)
    app.include_router(events.router)
    app.include_router(entities.router)
    app.include_router(schemas.router)
    app.include_router(access.router)
    app.include_router(dead_letters.router)
    app.include_router(erasure.router)
    app.include_router(rebuilds.router)
    app.include_router(health.router)
    app.include_router(health.metrics_router)
    app.add_api_route(
        "/problems/{code}", _explain_problem, methods=["GET"], tags=["health"], summary="Explain an error",
        responses={200: shapes.PROBLEM_KIND, **problems.documented(problems.UNKNOWN)}, openapi_extra={"security": []},
    )  # fmt: skip
    app.add_middleware(SteadyReads)
    # Added last: it stands outermost.
    app.add_middleware(request_ids.RequestIds, make_id=request_ids.numbered_ids(secrets.token_hex(8)))
    openapi.complete(app, settings.api.key_header)
    return app


async def _warm(embedders: EmbedderPool) -> None:
    """Use the embedder once, again until it answers: events are taken and found by their words without it."""
    pause = 1.0
    while True:
        try:
            await (await embedders.of(None)).embed(["warm up"])
            return
        except (ModelUnavailable, ConfigurationError) as error:
            log.warning("embedder_unavailable", retry_in_seconds=pause, reason=str(error))
        await asyncio.sleep(pause)
        pause = min(pause * 2, 30.0)


async def _explain_problem(code: str) -> Response:
    """What a problem's `type` means and what to do about it."""
    for kind in KINDS:
        if kind.code == code:
            return json_response({"code": kind.code, "status": kind.status, "title": kind.title, "remedy": kind.advice})
    raise UnknownThing("problem", code)


async def _first_start(resources: Resources) -> None:
    """Make the tenant, and at the very first start a key that is printed once."""
    settings = resources.settings
    tenant = await resources.tenants.ensure(settings.tenant, settings.buckets)
    if settings.api.auth and not await resources.api_keys.any():
        key = await resources.api_keys.create(tenant.name, name="first")
        sys.stderr.write(f"service key of tenant {tenant.name!r}, shown only now: {key}\n")


def _now_ms() -> int:
    return int(time.time() * 1000)


def services_from(resources: Resources, embedders: EmbedderPool, now_ms: Callable[[], int] = _now_ms) -> Services:
    """The use cases over opened resources. `now_ms`: the clock, ms UTC."""
    settings = resources.settings

    async def embedder_of(tenant: TenantId) -> Embedder:
        table = await resources.generations.table(tenant)
        return await embedders.of(table.recipes.get(await resources.generations.live(tenant)))

    live = resources.generations.live
    receipt_index = ReceiptIndex(resources.derived_redis, resources.graph)
    timelines = Timelines(resources.derived_redis, resources.graph)
    mentions = Mentions(resources.derived_redis, resources.graph)
    forgotten = Forgotten(resources.derived_redis, resources.graph)
    memory = ForgottenNodes(resources.ledger, forgotten)
    neighbours = Neighbours(resources.graph, timelines, receipt_index, mentions, memory)
    entities = Entities(resources.index.entities, resources.ledger, now_ms, embedder_of)
    learned = LearnedFacts(resources.derived_redis, resources.graph)
    metrics = Metrics()
    parts = RetrievalParts(
        searcher=Searcher(resources.derived_redis, live),
        index=resources.index,
        graph=resources.graph,
        groups=resources.groups,
        generations=resources.generations,
        ledger=resources.ledger,
        receipts=receipt_index,
        learned=learned,
        neighbours=neighbours,
        entities=entities,
        embedder_of=embedder_of,
        counters=open_counters(),
        settings=settings.retrieval,
        now_ms=now_ms,
        metrics=metrics,
    )
    pressure = Pressure(resources.ledger_redis, resources.groups, settings.overload, generation=live)
    admission = Admission(resources.quotas, pressure)
    registry = Schemas(resources.schemas, time.monotonic)
    ingest = Ingest(resources.ledger, Validator(settings.ledger, now_ms), admission, registry)
    notices = Notices(Notifications(resources.waiting_redis))
    return Services(
        resources=resources,
        authenticator=Authenticator(resources.api_keys, resources.tenants, settings.api, TenantId(settings.tenant)),
        ingest=ingest,
        forgetting=Forgetting(resources.erasures, resources.vault, resources.hiding, now_ms),
        schemas=registry,
        retrieval=Retrieval(parts),
        facts=FactPages(learned),
        accounts=Accounts(resources.ledger, receipt_index, now_ms),
        sessions=Sessions(
            SessionStore(resources.derived_redis, resources.graph),
            receipt_index,
            resources.ledger,
            settings.reads.max_scanned_events,
        ),
        timeline=TimelinePages(timelines, resources.ledger, settings.reads.max_scanned_events),
        entities=entities,
        waiting=Waiting(resources.groups, resources.generations),
        metrics=metrics,
        recalling=Recalling(resources.ledger, forgotten, now_ms),
        importer=Importer(ingest, settings.imports),
        idempotency=resources.idempotency,
        notices=notices,
        tail=Tail(resources.ledger, notices, settings.reads.tail_poll_seconds),
        stalls=Stalls(),
        embedders=embedders,
    )


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task that has no end of its own and wait for it; raises what made it fail before."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
