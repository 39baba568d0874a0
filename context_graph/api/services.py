"""What the routes use: opened once by the app's lifespan, read from `request.app.state`."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from context_graph.api.auth import Authenticator
from context_graph.bootstrap import Resources
from context_graph.delivery.notices import Notices
from context_graph.delivery.recalling import Recalling
from context_graph.delivery.tail import Tail
from context_graph.ingest.erasure import Forgetting
from context_graph.ingest.importing import Importer
from context_graph.ingest.ingest import Ingest
from context_graph.ingest.schemas import Schemas
from context_graph.models.embedder_pool import EmbedderPool
from context_graph.observability.metrics import Metrics
from context_graph.observability.stalls import Stalls
from context_graph.resolution.entities import Entities
from context_graph.retrieval.accounts import Accounts
from context_graph.retrieval.fact_pages import FactPages
from context_graph.retrieval.service import Retrieval
from context_graph.retrieval.sessions import Sessions
from context_graph.retrieval.timeline import TimelinePages
from context_graph.retrieval.waiting import Waiting
from context_graph.store.idempotency import IdempotencyKeys


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases behind the routes."""

    resources: Resources
    authenticator: Authenticator
    ingest: Ingest
    forgetting: Forgetting
    schemas: Schemas
    retrieval: Retrieval
    facts: FactPages
    accounts: Accounts
    sessions: Sessions
    timeline: TimelinePages
    waiting: Waiting
    entities: Entities
    metrics: Metrics
    recalling: Recalling
    importer: Importer
    idempotency: IdempotencyKeys
    notices: Notices
    tail: Tail
    stalls: Stalls
    embedders: EmbedderPool


def services_of(request: Request) -> Services:
    """The services of the app that answers this request."""
    found = request.app.state.services
    assert isinstance(found, Services)
    return found
