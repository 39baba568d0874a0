"""The closed catalogue of metrics: every name the service exports, with its labels and unit.

Three kinds. A process counts its own (requests, latencies). What Redis knows of the stages, dead letters and indexes is
read when it is asked for, so a partition that is gone is gone from the answer. What worker processes count comes with
their heartbeats: a worker's series begin at 0 when it starts and end when it dies, as those of any process that is
scraped; what it counted between its last heartbeat and its death is not seen.

The registry belongs to the process that opens it; nothing is global.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_STAGE = ("partition", "stage", "group")
_WORKER = ("worker", "stage")


@dataclass(frozen=True, slots=True)
class Row:
    """A metric: its name (counters get `_total` when exported), kind, what it says, and its labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


CATALOGUE: tuple[Row, ...] = (
    # counted by the process that answers
    Row("cg_ingested_events", "counter", "Events by outcome", ("status",)),
    Row("cg_refused_requests", "counter", "Requests refused before anything was written", ("reason",)),
    Row("cg_schema_warnings", "counter", "Events kept although they differ from their schema"),
    Row("cg_queries_not_embedded", "counter", "Queries without a vector: away, late, resting after that", ("reason",)),
    Row("cg_request_seconds", "histogram", "Time of a use case", ("operation",)),
    Row(
        "cg_event_loop_longest_stall_seconds", "gauge", "Longest that the loop was kept from its next task, last minute"
    ),
    Row("cg_event_loop_longest_work_seconds", "gauge", "Longest that one of its tasks computed without a break"),
    # read from Redis
    Row("cg_stage_lag_events", "gauge", "Events not yet delivered to a stage", _STAGE),
    Row("cg_stage_pending_events", "gauge", "Delivered, not acknowledged", _STAGE),
    Row("cg_stage_again_events", "gauge", "To be delivered once more: re-driven, or found in the archive", _STAGE),
    Row("cg_stage_parked_events", "gauge", "Waiting behind a failed event of their session", _STAGE),
    Row("cg_stage_waiting_seconds", "gauge", "Age of the oldest unfinished event", _STAGE),
    Row("cg_stage_oldest_pending_seconds", "gauge", "Time that a worker has held the oldest event it took", _STAGE),
    Row("cg_stage_consumers", "gauge", "Living members of a stage's group", _STAGE),
    Row("cg_stage_trimmed_unread_gaps", "gauge", "Stretches trimmed unread that are being looked for", _STAGE),
    Row("cg_stage_lost_events", "gauge", "Events trimmed unread that no archive holds", _STAGE),
    Row("cg_dead_letters", "gauge", "Dead letters", _STAGE),
    Row("cg_not_ready", "gauge", "Reasons for which readiness fails"),
    Row("cg_rebuild_left_events", "gauge", "Events that a rebuild has before it", ("tenant",)),
    Row("cg_rebuild_seconds", "gauge", "Since a rebuild began that is neither live nor dropped", ("tenant", "state")),
    Row("cg_index_documents", "gauge", "Documents in the text index", ("partition",)),
    Row("cg_index_vectors", "gauge", "Vectors in the vector index", ("partition",)),
    Row("cg_llm_calls", "gauge", "Calls of the language model so far", ("tenant", "outcome")),
    Row("cg_llm_tokens", "gauge", "Tokens of the language model so far", ("tenant", "direction")),
    Row("cg_facts_noted", "counter", "Facts and preferences noted", ("partition",)),
    Row("cg_facts_superseded", "counter", "Facts whose place another took", ("partition", "reason")),
    Row("cg_facts_refused", "counter", "Facts of the model's answers that did not stand", ("partition", "reason")),
    Row("cg_llm_answers_refused", "counter", "Answers refused: to ask again, given up", ("partition", "of", "outcome")),
    Row("cg_events_by_tier", "gauge", "Events as the last pass of forgetting found them", ("partition", "tier")),
    Row(
        "cg_forgotten_events",
        "gauge",
        "Events out of graph and index, of sessions still listed, at the last pass",
        ("partition",),
    ),
    Row("cg_reflection_triggers", "counter", "Passes begun because enough was new", ("partition",)),
    Row("cg_consolidation_passes", "counter", "Passes over a partition, slices of long ones each", ("partition",)),
    Row("cg_consolidation_seconds", "counter", "Time spent in them", ("partition",)),
    # told by workers with their heartbeats
    Row("cg_worker_heartbeat_age_seconds", "gauge", "Since the last heartbeat; of the dead for an hour", _WORKER),
    Row("cg_worker_events", "counter", "Events handled", _WORKER),
    Row("cg_worker_batches", "counter", "Batches given to the handler, failed ones included", _WORKER),
    Row("cg_worker_busy_seconds", "counter", "Time in the handler", _WORKER),
    Row("cg_worker_events_per_second", "gauge", "Rate between the last two heartbeats", _WORKER),
    Row("cg_worker_retries", "counter", "Events to be tried again after a failure", _WORKER),
    Row("cg_worker_dead_letters", "counter", "Events given up", _WORKER),
    Row("cg_worker_took_over_events", "counter", "Events taken over from other workers", _WORKER),
    Row("cg_worker_outages", "counter", "Failed tries because a store or a model was away", _WORKER),
    Row("cg_worker_recovered_events", "counter", "Events trimmed unread and found in the archive", _WORKER),
    Row("cg_worker_lost_events", "counter", "Events trimmed unread and found nowhere", _WORKER),
    Row("cg_worker_parked_events", "counter", "Events parked behind a failed one of their session", _WORKER),
)
_ROWS = {row.name: row for row in CATALOGUE}


@dataclass(frozen=True, slots=True)
class Sample:
    """A value that was read, for a row of the catalogue; labels in the row's order."""

    name: str
    labels: tuple[str, ...]
    value: float


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.ingested = self._counter("cg_ingested_events")
        self.refused = self._counter("cg_refused_requests")
        self.not_embedded = self._counter("cg_queries_not_embedded")
        self.schema_warnings = self._counter("cg_schema_warnings")
        row = _ROWS["cg_request_seconds"]
        self._seconds = Histogram(row.name, row.help, row.labels, buckets=_SECONDS, registry=self._registry)

    @contextmanager
    def timed(self, operation: str) -> Iterator[None]:
        """Observe how long a use case takes, failures included."""
        began = perf_counter()
        try:
            yield
        finally:
            self._seconds.labels(operation).observe(perf_counter() - began)

    def exposition(self, samples: Iterable[Sample]) -> bytes:
        """What this process counts and what was read, in Prometheus' text format. KeyError: no row of that name."""
        read = CollectorRegistry()
        read.register(_Read(samples))
        return generate_latest(self._registry) + generate_latest(read)

    def _counter(self, name: str) -> Counter:
        row = _ROWS[name]
        return Counter(row.name, row.help, row.labels, registry=self._registry)


class _Read(Collector):
    """Samples as families, in the order of the catalogue."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for sample in samples:
            family = self._families.get(sample.name)
            if family is None:
                row = _ROWS[sample.name]
                kind = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
                family = self._families[sample.name] = kind(row.name, row.help, labels=row.labels)
            family.add_metric(sample.labels, sample.value)

    def collect(self) -> Iterable[Metric]:
        return [self._families[row.name] for row in CATALOGUE if row.name in self._families]
