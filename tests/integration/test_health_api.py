"""Health and metrics: the truth about every stage."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from context_graph.bootstrap import open_resources
from context_graph.delivery.progress import read_progress
from context_graph.domain.event import Envelope, EventId, SessionId, TenantId
from context_graph.domain.generations import FIRST
from context_graph.domain.partition import Tenant
from context_graph.domain.position import Position
from context_graph.domain.stages import stages_of
from context_graph.observability.metrics import CATALOGUE
from context_graph.store import codec
from context_graph.store.keys import PartitionKeys
from context_graph.store.model_usage import ModelTotals, ModelUsage
from context_graph.store.worker_reports import WorkerReport
from tests.events import event, post_all, settled
from tests.service import Service
from tests.waiting import until


async def test_a_service_that_works_is_ready_and_says_how_far_each_stage_is(
    service: Service, http: httpx2.AsyncClient
) -> None:
    await settled(http, await post_all(http, [event(1)]))
    answer = await http.get("/health/ready")
    assert answer.status_code == 200, answer.text
    mine = [stage for stage in answer.json()["stages"] if stage["partition"] == f"{service.tenant}.0"]
    assert {stage["stage"] for stage in mine} == {"projection", "indexing", "enrichment"}
    assert all(stage["consumers"] == 1 for stage in mine)
    assert (await http.get("/health/live")).json() == {"status": "alive"}


async def test_an_old_event_that_a_worker_holds_makes_the_service_not_ready(
    service: Service, http: httpx2.AsyncClient
) -> None:
    name = f"{service.tenant}-stalled"
    partition = Tenant(TenantId(name)).partitions[0]
    body = codec.encode(
        Envelope(
            event_id=EventId("old"), event_type="user.message", session_id=SessionId("s"), agent_id="a", occurred_at=1
        )
    )
    day_old = Position(0, 1_600_000_000_000, 0)
    async with open_resources(service.settings) as resources:
        # Before the tenant is registered no worker looks: a living but stuck one is the first to read.
        await resources.ledger_redis.xadd(PartitionKeys(partition).ledger, {"e": body}, id=day_old.stream_id)
        await resources.groups.ensure(partition, "projection")
        assert await resources.groups.read([partition], "projection", "stuck", 1)
        # Long enough to be a stall, too short for another worker to take it over.
        minutes: dict[str, Any] = {"min_idle_time": 0, "message_ids": [day_old.stream_id], "idle": 300_000}
        await resources.ledger_redis.xclaim(PartitionKeys(partition).ledger, "projection", "stuck", **minutes)
        await resources.source.reports.beat("stuck", WorkerReport("projection", 0), 60_000)
        await resources.tenants.ensure(name, 1)
        answer = await http.get("/health/ready")
        await resources.groups.acknowledge(partition, "projection", [day_old])
    assert answer.status_code == 503
    [problem] = [problem for problem in answer.json()["problems"] if "projection" in problem]
    assert f"{name}.0: projection: 1 events wait" in problem
    assert "holding one" in problem
    await until(lambda: _is_ready(http))


async def _is_ready(http: httpx2.AsyncClient) -> bool:
    return (await http.get("/health/ready")).status_code == 200


async def test_metrics_count_what_was_ingested_and_show_every_stage(service: Service, http: httpx2.AsyncClient) -> None:
    await settled(http, await post_all(http, [event(1), event(2)]))
    stages = ("projection", "indexing", "enrichment")
    lags = [
        f'cg_stage_lag_events{{group="{stage}",partition="{service.tenant}.0",stage="{stage}"}} 0.0' for stage in stages
    ]

    async def nothing_waits() -> bool:  # the context that waited for them has left a receipt of its own
        text = (await http.get("/metrics")).text
        return all(line in text for line in lags)

    await until(nothing_waits)
    text = (await http.get("/metrics")).text
    assert 'cg_ingested_events_total{status="created"}' in text
    assert 'cg_request_seconds_count{operation="context"}' in text


async def test_metrics_show_what_a_tenant_asked_of_the_language_model(
    service: Service, http: httpx2.AsyncClient
) -> None:
    async with open_resources(service.settings) as resources:
        usage = ModelUsage(resources.ledger_redis)
        await usage.settle(TenantId(service.tenant), "2026-01-01", 0, ModelTotals(3, 1, 2, 500, 60))
    text = (await http.get("/metrics")).text
    for line in (
        'cg_llm_calls{outcome="answered",',
        'cg_llm_calls{outcome="failed",',
        'cg_llm_calls{outcome="refused",',
    ):
        assert f'{line}tenant="{service.tenant}"}}' in text
    assert f'cg_llm_tokens{{direction="input",tenant="{service.tenant}"}} 500.0' in text


async def test_every_problem_type_is_explained(http: httpx2.AsyncClient) -> None:
    refused = (await http.get("/v1/events/nothing")).json()
    explained = await http.get(refused["type"])
    assert explained.status_code == 200
    assert explained.json()["title"] == refused["title"]
    assert (await http.get("/problems/unheard-of")).status_code == 404


async def test_what_workers_count_reaches_the_metrics_with_their_heartbeats(
    service: Service, http: httpx2.AsyncClient
) -> None:
    await settled(http, await post_all(http, [event(1), event(2)]))

    async def counted() -> bool:
        text = (await http.get("/metrics")).text
        done = _values(text, "cg_worker_events_total", 'stage="projection"')
        ages = _values(text, "cg_worker_heartbeat_age_seconds", 'stage="projection"')
        return max(done, default=0) >= 2 and min(ages) < 5

    await until(counted)
    async with open_resources(service.settings) as resources:
        await resources.source.reports.beat("projection-gone", WorkerReport("projection", 0, events=7), 1)

        async def mourned() -> bool:
            text = (await http.get("/metrics")).text
            [age] = _values(text, "cg_worker_heartbeat_age_seconds", 'worker="projection-gone"')
            return age > 0 and not _values(text, "cg_worker_events_total", 'worker="projection-gone"')

        await until(mourned)
        await resources.source.reports.leave("projection-gone")
    assert "projection-gone" not in (await http.get("/metrics")).text


def _values(text: str, name: str, label: str) -> list[float]:
    return [
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + "{") and label in line
    ]


async def test_every_exported_name_is_in_the_catalogue_and_the_runbooks_name_none_that_is_not(
    service: Service, http: httpx2.AsyncClient
) -> None:
    await settled(http, await post_all(http, [event(1)]))
    text = (await http.get("/metrics")).text
    exported = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE")}
    suffixes = ("_total", "_created", "_bucket", "_count", "_sum")
    known = {row.name for row in CATALOGUE}
    assert {_bare(name, suffixes) for name in exported} <= known
    assert {row.name for row in CATALOGUE if row.labels[:2] == ("partition", "stage")} <= exported
    assert {"cg_index_documents", "cg_index_vectors"} <= exported
    assert {"cg_facts_noted", "cg_facts_superseded", "cg_facts_refused", "cg_llm_calls", "cg_llm_tokens"} <= {
        _bare(name, suffixes) for name in exported
    }
    for page in (Path(__file__).parents[2] / "deploy").rglob("*.md"):
        named = set(re.findall(r"\bcg_[a-z_]+\b", page.read_text()))
        assert {_bare(name, suffixes) for name in named} <= known, page


def _bare(name: str, suffixes: tuple[str, ...]) -> str:
    return next((name.removesuffix(suffix) for suffix in suffixes if name.endswith(suffix)), name)


async def test_dead_letters_over_their_limit_make_the_service_not_ready(
    service: Service, http: httpx2.AsyncClient
) -> None:
    partition = Tenant(TenantId(service.tenant)).partitions[0]
    limit = service.settings.delivery.dead_letter_limit
    async with open_resources(service.settings) as resources:
        letters = resources.dead_letters
        for number in range(limit + 1):
            await letters.bury(
                partition, "indexing", Position(0, 1_700_000_000_000, number), event_id=f"e{number}", reason="r",
                traceback="", deliveries=1,
            )  # fmt: skip
        answer = await http.get("/health/ready")
        assert answer.status_code == 503
        [problem] = [problem for problem in answer.json()["problems"] if service.tenant in problem]
        assert f"indexing: {limit + 1} dead letters, more than {limit}" in problem
        labels = f'group="indexing",partition="{partition}",stage="indexing"'
        assert f"cg_dead_letters{{{labels}}} {limit + 1}.0" in (await http.get("/metrics")).text
        assert answer.json()["dead_letters"][str(partition)] == limit + 1
        await letters.discard(partition, await letters.listed(partition, limit=1))
        assert (await http.get("/health/ready")).status_code == 200
        await letters.discard(partition, await letters.listed(partition, limit=limit))


async def test_lost_events_make_the_service_not_ready_until_somebody_has_seen_them(
    service: Service, http: httpx2.AsyncClient
) -> None:
    partition = Tenant(TenantId(service.tenant)).partitions[0]
    place = Position(0, 1_700_000_000_000, 5)
    async with open_resources(service.settings) as resources:
        await resources.dead_letters.bury(
            partition, "projection", place, event_id="", reason="gone", traceback="", deliveries=0, lost=5,
            after=Position(0, 1_700_000_000_000, 0),
        )  # fmt: skip
        answer = await http.get("/health/ready")
        assert answer.status_code == 503
        assert any("5 events were trimmed unread" in problem for problem in answer.json()["problems"])
        labels = f'group="projection",partition="{partition}",stage="projection"'
        assert f"cg_stage_lost_events{{{labels}}} 5.0" in (await http.get("/metrics")).text
        await resources.dead_letters.discard(partition, await resources.dead_letters.listed(partition))
    assert (await http.get("/health/ready")).status_code == 200


async def test_a_rebuild_that_stands_still_makes_the_service_not_ready_until_it_is_dropped(
    service: Service, http: httpx2.AsyncClient
) -> None:
    tenant = Tenant(TenantId(service.tenant))
    async with open_resources(service.settings) as resources:
        lease = await resources.leases.acquire(tenant.partitions[0], "rebuild", "who hangs", 60_000)
        assert lease is not None
        begun = await resources.rebuilds.start(tenant, "never")
        ago = replace(begun, state="comparing", built_at=begun.started_at - 3_600_000)
        await resources.generations.change(tenant.name, lambda table: table.update(ago))

        async def told() -> bool:
            answer = await http.get("/health/ready")
            words = f"the rebuild {begun.id} of {service.tenant} is being compared for 3,6"
            return answer.status_code == 503 and any(words in problem for problem in answer.json()["problems"])

        await until(told)
        assert (await http.delete(f"/v1/admin/rebuilds/{begun.id}")).status_code == 202
        await resources.leases.release(lease)

        async def well() -> bool:
            return (await http.get("/health/ready")).status_code == 200

        await until(well)


async def test_each_of_very_many_partitions_has_its_own_numbers(service: Service) -> None:
    """More than one round trip asks about: nothing of one partition is told of another."""
    wide = Tenant(TenantId(f"{service.tenant}-wide"), 150)  # not registered, so that no worker reads it
    lengths = {0: 1, 63: 2, 64: 3, 149: 4}
    async with open_resources(service.settings) as resources:
        for bucket, length in lengths.items():
            for number in range(length):
                key = PartitionKeys(wide.partitions[bucket]).ledger
                await resources.ledger_redis.xadd(key, {"e": b"{}"}, id=f"1-{number}")
        asked = [(partition, stage) for partition in wide.partitions for stage in stages_of(FIRST)]
        told = await read_progress(resources.source, asked)
        assert [(one.partition, one.stage) for one in told] == [(str(partition), stage) for partition, stage in asked]
        behind = {one.partition: one.lag for one in told if one.lag}
        assert behind == {str(wide.partitions[bucket]): length for bucket, length in lengths.items()}
        assert await resources.ledger.length(*wide.partitions) == sum(lengths.values())
