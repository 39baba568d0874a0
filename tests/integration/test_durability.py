"""Durability profiles: what a 2xx is worth, checked against the server and with a real replica."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.event import TenantId
from context_graph.domain.partition import Partition
from context_graph.errors import NotReplicated
from context_graph.ingest.gathering import GatheredAppends
from context_graph.local.redis_server import EmbeddedRedis, embedded_redis
from context_graph.settings import LedgerSettings, Settings
from context_graph.store.connection import RedisClient, open_redis
from context_graph.store.ledger import Appended, Ledger
from context_graph.store.replication import Replication
from tests.events import event
from tests.ledger_events import appendable, envelope
from tests.serving import serving
from tests.waiting import until

_PARTITION = Partition(TenantId("acme"), 0)


@asynccontextmanager
async def primary_and_replica(folder: Path) -> AsyncIterator[tuple[EmbeddedRedis, RedisClient]]:
    """A primary with fsync on every write, and a client of its connected replica."""
    async with (
        embedded_redis(folder / "primary", durability="durable") as primary,
        embedded_redis(folder / "replica", durability="durable") as replica,
        open_redis(primary.url) as one,
        open_redis(replica.url) as other,
    ):
        await other.config_set("masterauth", urlsplit(primary.url).password or "")
        await other.config_set("repl-diskless-sync-delay", "0")
        await one.config_set("repl-diskless-sync-delay", "0")
        await other.replicaof("127.0.0.1", primary.port)

        async def follows() -> bool:
            if (await one.info("replication")).get("slave0", {}).get("state") != "online":
                return False
            log = await other.info("persistence")  # a replica writes its log anew, and does not stop meanwhile
            return not log["aof_rewrite_in_progress"] and not log["aof_rewrite_scheduled"]

        await until(follows)
        yield primary, other


@asynccontextmanager
async def replicated(url: str, replicas: int = 1, timeout_ms: int = 2000) -> AsyncIterator[Resources]:
    ledger = LedgerSettings(durability="replicated", replicas=replicas, replication_timeout_ms=timeout_ms)
    async with open_resources(Settings(redis_url=SecretStr(url), ledger=ledger)) as resources:
        yield resources


async def put(ledger: Ledger, number: int) -> Appended:
    [answer] = await ledger.append(_PARTITION, [appendable(envelope(number))])
    return answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replication")


async def test_replicated_is_answered_when_the_replica_has_it_and_not_before(folder: Path) -> None:
    async with primary_and_replica(folder) as (primary, replica):
        async with replicated(primary.url) as resources:
            for number in range(20):
                assert (await put(resources.ledger, number)).status == "created"
                assert await replica.hlen(f"cg:{_PARTITION.tag}:ids") == number + 1
            await resources.ledger_redis.script_flush()
            assert (await put(resources.ledger, 20)).status == "created"

        async with replicated(primary.url, replicas=2, timeout_ms=200) as resources:
            with pytest.raises(NotReplicated, match="1 of 2"):
                await put(resources.ledger, 30)

        # The replica goes away: new events and repeated ones are refused alike, and both are safe to send again.
        async with replicated(primary.url, timeout_ms=200) as resources:
            await replica.replicaof("NO", "ONE")
            for _ in range(2):
                with pytest.raises(NotReplicated, match="0 of 1"):
                    await put(resources.ledger, 31)
            with pytest.raises(NotReplicated):
                await put(resources.ledger, 0)
            await replica.replicaof("127.0.0.1", primary.port)

            async def again() -> bool:
                try:
                    return (await put(resources.ledger, 31)).status == "duplicate"
                except NotReplicated:
                    return False

            await until(again)
        assert await replica.hexists(f"cg:{_PARTITION.tag}:ids", "e31")


async def test_a_server_without_waitaof_is_waited_for_with_wait(tmp_path: Path) -> None:
    async with primary_and_replica(tmp_path) as (primary, replica), open_redis(primary.url) as client:
        ledger = Ledger(client, Replication(1, 2000))
        assert ledger._replicated is not None
        ledger._replicated._has_waitaof = False  # as after the first "unknown command"
        assert (await put(ledger, 1)).status == "created"
        assert await replica.hlen(f"cg:{_PARTITION.tag}:ids") == 1


async def test_over_http_too_few_replicas_are_a_503_and_readiness_says_the_profile(
    redis_url: str, resources: Resources, tmp_path: Path
) -> None:
    tenant = await resources.tenants.ensure("acme", 1)
    key = await resources.api_keys.create(tenant.name, name="test")
    profile = {"CG_LEDGER__DURABILITY": "replicated", "CG_LEDGER__REPLICATION_TIMEOUT_MS": "50"}
    async with (
        serving(redis_url, tmp_path, profile) as url,
        httpx2.AsyncClient(base_url=url, headers={"X-Engine-API-Key": key}) as http,
    ):
        single = await http.post("/v1/events", json=event(1))
        batch = await http.post("/v1/events/batch", json={"events": [event(2), event(3)]})
        ready = await http.get("/health/ready")
        served = await http.post("/v1/context", json={"query": "message", "token_budget": 100})
    for answer in (single, batch):
        assert (answer.status_code, answer.json()["code"]) == (503, "not-replicated")
        assert answer.headers["Retry-After"] == "2"
        assert "may be in the ledger" in answer.json()["detail"]
    assert ready.status_code == 503
    assert ready.json()["durability"] == {
        "profile": "replicated", "fsync": "everysec", "append_only": True, "replicas_connected": 0, "replicas_needed": 1
    }  # fmt: skip
    assert any("replica" in problem for problem in ready.json()["problems"])
    assert any("appendfsync" in problem for problem in ready.json()["problems"])
    assert served.status_code == 200, "reading goes on"
    assert served.json()["receipt_id"] is None


async def test_concurrent_durable_writers_share_the_fsync(tmp_path: Path) -> None:
    """One writer pays an fsync for each event; 32 writers together pay far fewer than one each."""
    async with embedded_redis(tmp_path, durability="durable") as server, open_redis(server.url) as client:
        gathered = GatheredAppends(Ledger(client))

        async def writer(lane: int, count: int) -> None:
            for number in range(count):
                event = envelope(number, event_id=f"{lane}-{number}", session_id=f"s{lane}")
                await gathered.append(_PARTITION, appendable(event))

        await writer(99, 20)
        before = await client.info("commandstats")
        began = time.perf_counter()
        await asyncio.gather(*(writer(lane, 30) for lane in range(32)))
        took = time.perf_counter() - began
        after = await client.info("commandstats")
    calls = after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"]
    assert calls <= 32 * 30 / 8, f"{calls} appends for {32 * 30} events in {took:.2f} s"
