"""Quotas: one tenant's limits hold over all API processes, and a batch is admitted whole or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.event import TenantId
from context_graph.domain.partition import Tenant
from context_graph.domain.quota import Quotas
from context_graph.errors import QuotaExceeded
from context_graph.ingest.admission import Admission
from context_graph.ingest.pressure import Pressure
from context_graph.settings import OverloadSettings
from context_graph.store.keys import quota_tokens
from tests.events import event
from tests.ledger_events import append, envelope
from tests.serving import serving


def admission(resources: Resources, clock: Callable[[], float] = time.monotonic) -> Admission:
    pressure = Pressure(resources.ledger_redis, resources.groups, OverloadSettings())
    return Admission(resources.quotas, pressure, clock)


def limited(**limits: int) -> Tenant:
    return Tenant(TenantId("acme"), 1, Quotas(**limits))


async def admitted_of(asked: int, tenant: Tenant, *doors: Admission, size: int = 100) -> int:
    """How many of that many single events get in, asked of the doors in turn."""
    admitted = 0
    for number in range(asked):
        try:
            await doors[number % len(doors)].admit(tenant, 1, size)
        except QuotaExceeded:
            continue
        admitted += 1
    return admitted


async def test_without_quotas_nothing_is_asked_of_redis(resources: Resources) -> None:
    door = admission(resources)
    await door.admit(Tenant(TenantId("acme")), 1_000_000, 10**12)
    assert not await resources.ledger_redis.exists(quota_tokens("acme"))


async def test_a_burst_gets_in_and_what_is_over_it_is_refused_with_the_time_to_wait(resources: Resources) -> None:
    tenant, door = limited(events_per_second=1, burst_events=20), admission(resources)
    assert 20 <= await admitted_of(60, tenant, door) <= 22  # a second may pass meanwhile
    with pytest.raises(QuotaExceeded) as refused:
        await door.admit(tenant, 10, 1000)
    assert refused.value.quota == "events_per_second"
    assert 8 <= refused.value.retry_after <= 10


async def test_two_processes_share_one_quota(resources: Resources) -> None:
    tenant = limited(events_per_second=1, burst_events=50)
    assert 50 <= await admitted_of(200, tenant, admission(resources), admission(resources)) <= 53


async def test_what_a_process_drew_and_did_not_use_is_given_back(resources: Resources) -> None:
    now = [0.0]
    tenant, door = limited(events_per_second=100, burst_events=100), admission(resources, lambda: now[0])
    await door.admit(tenant, 1, 100)  # draws ten
    now[0] = 5.0  # the nine that are left are too old to be used
    await door.admit(tenant, 1, 100)
    left = float(await resources.ledger_redis.hget(quota_tokens("acme"), "events_per_second"))  # type: ignore[arg-type]
    assert left >= 100 - 11


async def test_a_batch_is_admitted_whole_or_not_at_all(resources: Resources) -> None:
    tenant, door = limited(events_per_second=1, burst_events=100), admission(resources)
    await door.admit(tenant, 60, 6000)
    with pytest.raises(QuotaExceeded):
        await door.admit(tenant, 60, 6000)
    await door.admit(tenant, 40, 4000)  # the refused batch took nothing


async def test_more_than_a_burst_at_once_is_told_to_come_in_smaller_batches(resources: Resources) -> None:
    with pytest.raises(QuotaExceeded, match="smaller batches"):
        await admission(resources).admit(limited(events_per_second=10, burst_events=10), 11, 100)


async def test_bytes_of_a_day_are_limited_and_the_events_beside_them_are_not_lost(resources: Resources) -> None:
    tenant, door = limited(events_per_second=1000, bytes_per_day=10_000), admission(resources)
    assert await admitted_of(150, tenant, door) == 100
    with pytest.raises(QuotaExceeded, match="bytes_per_day") as refused:
        await door.admit(tenant, 1, 5_000)
    assert refused.value.retry_after > 3600
    await door.admit(limited(events_per_second=1000), 900, 1)


async def test_stored_events_are_limited_by_what_the_ledger_holds(resources: Resources) -> None:
    tenant = limited(stored_events=10)
    await append(resources.ledger, tenant.partitions[0], [envelope(number) for number in range(8)])
    door = admission(resources)
    with pytest.raises(QuotaExceeded, match="2 of 10"):
        await door.admit(tenant, 3, 300)
    assert await admitted_of(5, tenant, door) == 2


async def test_new_quotas_hold_at_once(resources: Resources) -> None:
    door = admission(resources)
    await door.admit(limited(events_per_second=1, burst_events=1), 1, 100)
    await door.admit(limited(stored_events=100), 100, 100)
    with pytest.raises(QuotaExceeded, match="stored"):
        await door.admit(limited(stored_events=99), 100, 100)


async def test_two_api_processes_keep_one_tenants_quota(redis_url: str, resources: Resources, tmp_path: Path) -> None:
    made = await resources.tenants.ensure("acme", 1)
    await resources.tenants.set_quotas(made.name, Quotas(events_per_second=20, burst_events=40))
    key = await resources.api_keys.create(made.name, name="test")
    seconds = 3.0
    async with (
        serving(redis_url, tmp_path) as one,
        serving(redis_url, tmp_path) as other,
        httpx2.AsyncClient(headers={"X-Engine-API-Key": key}, timeout=30) as http,
    ):
        began = time.monotonic()

        async def post(url: str, lane: int) -> list[httpx2.Response]:
            answers: list[httpx2.Response] = []
            while time.monotonic() < began + seconds:
                body = event(len(answers), event_id=f"{lane}-{len(answers)}", session_id=f"s{lane}")
                answers.append(await http.post(f"{url}/v1/events", json=body))
            return answers

        lanes = await asyncio.gather(*(post(url, lane) for lane, url in enumerate([one, other] * 4)))
        took = time.monotonic() - began
    answers = [answer for lane in lanes for answer in lane]
    statuses = {status: sum(a.status_code == status for a in answers) for status in (201, 429)}
    assert sum(statuses.values()) == len(answers)
    # The bucket is full at the beginning and refills while it goes on; a process may hold a chunk of two.
    assert 40 + 20 * (seconds - 0.5) - 4 <= statuses[201] <= 40 + 20 * took + 1, statuses
    assert statuses[201] == await resources.ledger.length(made.partitions[0])
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["code"] == "quota-exceeded"
    assert refused.json()["quota"] == "events_per_second"
    assert int(refused.headers["Retry-After"]) >= 1
