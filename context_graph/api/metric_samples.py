"""What `/metrics` reads: the stages, dead letters, indexes and workers, as samples of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping

from context_graph.bootstrap import Resources
from context_graph.domain.event import TenantId
from context_graph.domain.learned import FAULTS, REASONS
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.retention import TIERS
from context_graph.domain.stages import StageProgress
from context_graph.facts import facts_of, read_other_stages, with_service
from context_graph.local.checks import examine
from context_graph.observability.metrics import Sample
from context_graph.observability.stalls import Stall
from context_graph.store.model_usage import ModelUsage
from context_graph.store.retention import RetentionStore
from context_graph.store.worker_reports import KnownWorker

_COUNTED: tuple[tuple[str, str], ...] = (
    ("cg_worker_events", "events"),
    ("cg_worker_batches", "batches"),
    ("cg_worker_busy_seconds", "busy_seconds"),
    ("cg_worker_events_per_second", "rate"),
    ("cg_worker_retries", "retries"),
    ("cg_worker_dead_letters", "dead_letters"),
    ("cg_worker_took_over_events", "took_over"),
    ("cg_worker_outages", "outages"),
    ("cg_worker_recovered_events", "recovered"),
    ("cg_worker_lost_events", "lost"),
    ("cg_worker_parked_events", "parked"),
)
"""Which number of a worker's report is which metric."""


async def read_samples(resources: Resources) -> list[Sample]:
    """Everything that is read for one answer. Raises StoreUnavailable."""
    samples: list[Sample] = []
    facts = await with_service(facts_of(resources.settings), resources)
    tenants = await resources.tenants.all()
    for tenant in tenants:
        samples += await _model_use(resources, tenant.name)
        samples += await _rebuild(resources, tenant)
    for progress in (*facts.stages, *await read_other_stages(resources, tenants)):
        samples += stage_samples(progress)
    partitions = [partition for tenant in tenants for partition in tenant.partitions]
    for partition, index in zip(partitions, await resources.index.statistics_of(partitions), strict=True):
        samples.append(Sample("cg_index_documents", (str(partition),), index.documents))
        samples.append(Sample("cg_index_vectors", (str(partition),), index.vectors))
    for partition in partitions:
        samples += await _consolidation(resources, partition)
    samples.append(Sample("cg_not_ready", (), sum(finding.level == "wrong" for finding in examine(facts))))
    for worker in await resources.source.reports.known():
        samples += worker_samples(worker)
    return samples


def stall_samples(stall: Stall) -> list[Sample]:
    """What kept this process' event loop."""
    return [
        Sample("cg_event_loop_longest_stall_seconds", (), stall.late),
        Sample("cg_event_loop_longest_work_seconds", (), stall.busy),
    ]


def stage_samples(progress: StageProgress) -> list[Sample]:
    """How far a stage is in a partition."""
    labels = (progress.partition, progress.stage.name, progress.stage.group)
    values: tuple[tuple[str, float], ...] = (
        ("cg_stage_lag_events", progress.lag),
        ("cg_stage_pending_events", progress.pending),
        ("cg_stage_again_events", progress.again),
        ("cg_stage_parked_events", progress.parked),
        ("cg_stage_waiting_seconds", progress.waiting_seconds),
        ("cg_stage_oldest_pending_seconds", progress.held_seconds or 0.0),
        ("cg_stage_consumers", progress.living),
        ("cg_stage_trimmed_unread_gaps", len(progress.gaps) + len(progress.gap_problems)),
        ("cg_stage_lost_events", progress.lost),
        ("cg_dead_letters", progress.dead_letters),
    )
    return [Sample(name, labels, value) for name, value in values]


def worker_samples(worker: KnownWorker) -> list[Sample]:
    """A worker's age and, while it lives, what it has done."""
    group = worker.report.stage if worker.report is not None else worker.consumer.partition("-")[0]
    labels = (worker.consumer, group)
    samples = [Sample("cg_worker_heartbeat_age_seconds", labels, worker.age_seconds)]
    if worker.report is not None:
        samples += [Sample(name, labels, getattr(worker.report, attribute)) for name, attribute in _COUNTED]
    return samples


async def _rebuild(resources: Resources, tenant: Tenant) -> list[Sample]:
    """Of the generation that is being built or waits for its switch, if there is one."""
    rebuild = (await resources.generations.table(tenant.name)).running
    if rebuild is None:
        return []
    progress = await resources.rebuilds.progress(tenant, rebuild)
    seconds = (resources.rebuilds.now_ms() - rebuild.started_at) / 1000
    return [
        Sample("cg_rebuild_left_events", (tenant.name,), progress.total - progress.done),
        Sample("cg_rebuild_seconds", (tenant.name, rebuild.state), seconds),
    ]


async def _consolidation(resources: Resources, partition: Partition) -> list[Sample]:
    """What the passes told; of tiers nothing before a policy forgets."""
    store = RetentionStore(resources.derived_redis, resources.graph, resources.ledger_redis)
    told, name = await store.told(partition), str(partition)
    tiers = [Sample("cg_events_by_tier", (name, tier), told[tier]) for tier in TIERS if tier in told]
    counted = (
        ("cg_forgotten_events", told.get("forgotten", 0)),
        ("cg_reflection_triggers", told.get("reflections", 0)),
        ("cg_consolidation_passes", told.get("passes", 0)),
        ("cg_consolidation_seconds", told.get("pass_ms", 0) / 1000),
    )
    return tiers + _facts(told, name) + [Sample(metric, (name,), value) for metric, value in counted]


def _facts(told: Mapping[str, int], partition: str) -> list[Sample]:
    """Every reason from the start, so that a first one is seen as an increase."""
    by_reason = (("cg_facts_superseded", "facts_superseded", REASONS), ("cg_facts_refused", "facts_refused", FAULTS))
    refused = ((of, outcome) for of in ("summary", "facts") for outcome in ("again", "given_up"))
    return [
        *(
            Sample("cg_llm_answers_refused", (partition, *how), told.get("answers_refused:" + ":".join(how), 0))
            for how in refused
        ),
        Sample("cg_facts_noted", (partition,), told.get("facts_noted", 0)),
        *(
            Sample(metric, (partition, reason), told.get(f"{name}:{reason}", 0))
            for metric, name, reasons in by_reason
            for reason in reasons
        ),
    ]


async def _model_use(resources: Resources, tenant: TenantId) -> list[Sample]:
    asked = await ModelUsage(resources.ledger_redis).totals(tenant)
    calls = {"answered": asked.calls - asked.refused, "refused": asked.refused, "failed": asked.failed}
    tokens = {"input": asked.input_tokens, "output": asked.output_tokens}
    return [
        *(Sample("cg_llm_calls", (tenant, outcome), count) for outcome, count in calls.items()),
        *(Sample("cg_llm_tokens", (tenant, direction), count) for direction, count in tokens.items()),
    ]
