"""Overload: refused before anything is written, with the reason and the time to come back; reading goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from context_graph.bootstrap import open_resources
from context_graph.domain.event import TenantId
from context_graph.domain.partition import Partition, Tenant
from context_graph.errors import Overloaded
from context_graph.ingest.pressure import Pressure
from context_graph.local.redis_server import embedded_redis
from context_graph.settings import OverloadSettings, Settings
from context_graph.store.connection import RedisClient, open_redis
from tests.events import event
from tests.ledger_events import append, envelope
from tests.serving import serving
from tests.waiting import until


@pytest.fixture(scope="module")
def keyless() -> dict[str, str]:
    return {"CG_API__AUTH": "false", "CG_TENANT": "acme"}


@asynccontextmanager
async def full_service(folder: Path, settings: dict[str, str]) -> AsyncIterator[tuple[httpx2.AsyncClient, RedisClient]]:
    """An API over a Redis of its own that holds one event."""
    async with (
        embedded_redis(folder / "redis") as server,
        serving(server.url, folder, settings) as url,
        open_redis(server.url) as redis,
        httpx2.AsyncClient(base_url=url, timeout=30) as http,
    ):
        assert (await http.post("/v1/events", json=event(0))).status_code == 201
        yield http, redis


async def limit_memory(redis: RedisClient, share: float) -> None:
    """Set `maxmemory` so that what is used now is this share of it."""
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", int(used / share))


async def test_near_maxmemory_events_are_refused_and_reads_go_on(tmp_path: Path, keyless: dict[str, str]) -> None:
    async with full_service(tmp_path, keyless | {"CG_OVERLOAD__MEMORY_SHARE": "0.8"}) as (http, redis):
        await limit_memory(redis, 0.9)

        async def refused() -> bool:
            return (await http.post("/v1/events", json=event(1))).status_code == 503

        await until(refused, seconds=5)
        length = await redis.xlen("cg:{acme.0}:ledger")
        single = await http.post("/v1/events", json=event(2))
        batch = await http.post("/v1/events/batch", json={"events": [event(3), event(4)]})
        for answer in (single, batch):
            assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
            assert answer.headers["Retry-After"] == "5"
            assert "maxmemory" in answer.json()["detail"]
        assert await redis.xlen("cg:{acme.0}:ledger") == length
        assert (await http.get("/v1/events/e0")).status_code == 200
        served = await http.post("/v1/context", json={"query": "message", "token_budget": 200})
        assert served.status_code == 200
        assert 'cg_refused_requests_total{reason="overloaded"}' in (await http.get("/metrics")).text

        await redis.config_set("maxmemory", 0)

        async def taken() -> bool:
            return (await http.post("/v1/events", json=event(5))).status_code in (200, 201)

        await until(taken, seconds=5)


async def test_out_of_memory_is_a_503_and_reads_go_on(tmp_path: Path, keyless: dict[str, str]) -> None:
    async with full_service(tmp_path, keyless | {"CG_OVERLOAD__MEMORY_SHARE": "1"}) as (http, redis):
        length = await redis.xlen("cg:{acme.0}:ledger")
        await redis.config_set("maxmemory", 1)
        answers = [await http.post("/v1/events", json=event(1)) for _ in range(2)]
        answers.append(await http.post("/v1/events/batch", json={"events": [event(2)]}))
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["code"] for answer in answers} <= {"store-unavailable", "overloaded"}
        assert all(answer.headers["Retry-After"] for answer in answers)
        assert await redis.xlen("cg:{acme.0}:ledger") == length
        assert (await http.get("/v1/events/e0")).status_code == 200
        served = await http.post("/v1/context", json={"query": "message", "token_budget": 200})
        assert served.status_code == 200
        assert served.json()["receipt_id"] is None
        await redis.config_set("maxmemory", 0)


async def test_a_stage_far_behind_stops_ingest_until_it_has_caught_up(settings: Settings) -> None:
    now = [0.0]
    tenant = Tenant(TenantId("acme"))
    partition = Partition(tenant.name, 0)
    async with open_resources(settings) as resources:
        limits = OverloadSettings(max_stage_lag=3)
        pressure = Pressure(resources.ledger_redis, resources.groups, limits, lambda: now[0])
        positions = await append(resources.ledger, partition, [envelope(number) for number in range(4)])
        with pytest.raises(Overloaded, match="4 events behind"):
            await pressure.check(tenant)
        for stage in ("projection", "indexing", "enrichment"):
            await resources.groups.ensure(partition, stage)
            await resources.groups.read([partition], stage, "w", 10)
            await resources.groups.acknowledge(partition, stage, positions)
        with pytest.raises(Overloaded):
            await pressure.check(tenant)  # what was seen holds for a second
        now[0] = 1.0
        await pressure.check(tenant)
        await pressure.check(Tenant(TenantId("other")))


async def test_lag_is_no_reason_unless_it_is_limited(settings: Settings) -> None:
    async with open_resources(settings) as resources:
        partition = Partition(TenantId("acme"), 0)
        await append(resources.ledger, partition, [envelope(number) for number in range(4)])
        await Pressure(resources.ledger_redis, resources.groups, OverloadSettings()).check(Tenant(TenantId("acme")))
