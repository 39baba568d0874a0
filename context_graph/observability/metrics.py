"""The closed catalogue of metrics: every name the service exports, with its labels and unit.

Counters and histograms are kept by the process that answers; what is known to Redis (lag, pending, dead letters) is
read when it is asked for. The registry belongs to the process that opens it; nothing is global.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True)
class StageReading:
    """How far a stage is in a partition, for the gauges. `waiting_seconds`: age of its oldest unhandled event."""

    partition: str
    stage: str
    lag: int
    pending: int
    waiting_seconds: float
    consumers: int


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.ingested = Counter("cg_ingested_events", "Events by outcome", ["status"], registry=registry)
        self.refused = Counter(
            "cg_refused_requests", "Requests refused before anything was written", ["reason"], registry=registry
        )
        self.schema_warnings = Counter(
            "cg_schema_warnings", "Events kept although they differ from their schema", registry=registry
        )
        self._seconds = Histogram(
            "cg_request_seconds", "Time of a use case", ["operation"], buckets=_SECONDS, registry=registry
        )
        labels = ["partition", "stage"]
        self._lag = Gauge("cg_stage_lag_events", "Events not yet delivered to a stage", labels, registry=registry)
        self._pending = Gauge("cg_stage_pending_events", "Delivered, not acknowledged", labels, registry=registry)
        self._waiting = Gauge("cg_stage_waiting_seconds", "Age of the oldest unhandled", labels, registry=registry)
        self._consumers = Gauge("cg_stage_consumers", "Members of a stage's group", labels, registry=registry)
        self._dead = Gauge("cg_dead_letters", "Dead letters", ["partition"], registry=registry)
        self._documents = Gauge("cg_index_documents", "Documents in the text index", ["partition"], registry=registry)
        self._model_calls = Gauge(
            "cg_llm_calls", "Calls of the language model so far", ["tenant", "outcome"], registry=registry
        )
        self._model_tokens = Gauge(
            "cg_llm_tokens", "Tokens of the language model so far", ["tenant", "direction"], registry=registry
        )
        self._vectors = Gauge("cg_index_vectors", "Vectors in the vector index", ["partition"], registry=registry)

    @contextmanager
    def timed(self, operation: str) -> Iterator[None]:
        """Observe how long a use case takes, failures included."""
        began = perf_counter()
        try:
            yield
        finally:
            self._seconds.labels(operation).observe(perf_counter() - began)

    def set_stage(self, reading: StageReading) -> None:
        """What a look at Redis has found of a stage."""
        names = (reading.partition, reading.stage)
        self._lag.labels(*names).set(reading.lag)
        self._pending.labels(*names).set(reading.pending)
        self._waiting.labels(*names).set(reading.waiting_seconds)
        self._consumers.labels(*names).set(reading.consumers)

    def set_partition(self, partition: str, *, dead_letters: int, documents: int, vectors: int) -> None:
        """What a look at Redis has found of a partition."""
        self._dead.labels(partition).set(dead_letters)
        self._documents.labels(partition).set(documents)
        self._vectors.labels(partition).set(vectors)

    def set_model_use(self, tenant: str, calls: Mapping[str, int], tokens: Mapping[str, int]) -> None:
        """What a tenant has asked of the language model: calls by outcome, tokens by direction."""
        for outcome, count in calls.items():
            self._model_calls.labels(tenant, outcome).set(count)
        for direction, count in tokens.items():
            self._model_tokens.labels(tenant, direction).set(count)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)
