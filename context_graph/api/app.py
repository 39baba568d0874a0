"""The HTTP application: routes, errors, CORS, and the lifespan that opens and closes what they use."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from context_graph import __version__
from context_graph.api import events, health, memory, problems
from context_graph.api.auth import Authenticator
from context_graph.api.problems import KINDS
from context_graph.api.rendering import json_response
from context_graph.api.services import Services
from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.event import TenantId
from context_graph.errors import UnknownThing
from context_graph.ingest.ingest import Ingest
from context_graph.ingest.validation import Validator
from context_graph.models.embedder import Embedder, open_embedder
from context_graph.models.tokens import TOKENIZERS, open_counter
from context_graph.observability.metrics import Metrics
from context_graph.retrieval.service import Retrieval, RetrievalParts
from context_graph.settings import Settings
from context_graph.store.queries import Searcher

log = structlog.get_logger(__name__)

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
            embedder = await stack.enter_async_context(open_embedder(embedding, settings.data_dir / "models"))
            await embedder.embed(["warm up"])  # the first query must not wait for the model to load
            await _first_start(resources)
            app.state.services = _services(resources, embedder)
            log.info("api_started", version=__version__)
            yield

    app = FastAPIOffline(  # as FastAPI, with the assets of /docs from the package
        title="Context Graph",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
    )
    problems.install(app)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=[settings.api.key_header, "Authorization", "Content-Type", "Last-Event-ID"],
            max_age=600,
        )
    app.include_router(memory.router)  # before events: /v1/events/{id}/lineage is the longer path
    app.include_router(events.router)
    app.include_router(health.router)
    app.include_router(health.metrics_router)
    app.add_api_route(
        "/problems/{code}", _explain_problem, methods=["GET"], tags=["health"], summary="Explain an error"
    )
    _describe_security(app, settings.api.key_header)
    return app


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


def _services(resources: Resources, embedder: Embedder) -> Services:
    settings = resources.settings

    def now_ms() -> int:
        return int(time.time() * 1000)

    parts = RetrievalParts(
        searcher=Searcher(resources.derived_redis),
        index=resources.index,
        graph=resources.graph,
        groups=resources.groups,
        ledger=resources.ledger,
        embedder=embedder,
        counters={name: open_counter(name) for name in TOKENIZERS},
        settings=settings.retrieval,
        now_ms=now_ms,
    )
    return Services(
        resources=resources,
        authenticator=Authenticator(resources.api_keys, resources.tenants, settings.api, TenantId(settings.tenant)),
        ingest=Ingest(resources.ledger, Validator(settings.ledger, now_ms)),
        retrieval=Retrieval(parts),
        metrics=Metrics(),
    )


def _describe_security(app: FastAPI, header: str) -> None:
    """Name the two ways to send a key in the OpenAPI document."""
    build = app.openapi

    def described() -> dict[str, Any]:
        document = build()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["serviceKey"] = {"type": "apiKey", "in": "header", "name": header}
        schemes["bearer"] = {"type": "http", "scheme": "bearer"}
        document["security"] = [{"serviceKey": []}, {"bearer": []}]
        return document

    app.openapi = described  # type: ignore[method-assign]
