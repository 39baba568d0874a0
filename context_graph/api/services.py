"""What the routes use: opened once by the app's lifespan, read from `request.app.state`."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from context_graph.api.auth import Authenticator
from context_graph.bootstrap import Resources
from context_graph.ingest.ingest import Ingest
from context_graph.observability.metrics import Metrics
from context_graph.retrieval.service import Retrieval


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases behind the routes."""

    resources: Resources
    authenticator: Authenticator
    ingest: Ingest
    retrieval: Retrieval
    metrics: Metrics


def services_of(request: Request) -> Services:
    """The services of the app that answers this request."""
    found = request.app.state.services
    assert isinstance(found, Services)
    return found
