"""One deadline for a context, its receipt included; and the event loop's stalls are seen."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx2

from context_graph.api.app import services_from
from context_graph.bootstrap import Resources
from context_graph.models.embedder_pool import open_embedders
from context_graph.observability.stalls import Stalls
from context_graph.retrieval.request import ContextQuery, SearchQuery
from tests.waiting import until

_DEADLINE_MS, _PAUSE_MS = 300, 5000


async def test_a_store_that_takes_no_writes_for_a_while_costs_no_more_than_the_deadline(
    resources: Resources, tmp_path: Path
) -> None:
    resources.settings.retrieval.deadline_ms = _DEADLINE_MS
    tenant = await resources.tenants.ensure(resources.settings.tenant, 1)
    async with open_embedders(resources.settings.embedding, tmp_path) as embedders:
        retrieval = services_from(resources, embedders).retrieval
        assert (await retrieval.context(tenant, ContextQuery())).receipt_id is not None
        await resources.ledger_redis.client_pause(_PAUSE_MS, all=False)
        began = time.monotonic()
        try:
            served = await retrieval.context(tenant, ContextQuery())
        finally:
            await resources.ledger_redis.client_unpause()
    assert time.monotonic() - began < _PAUSE_MS / 1000 / 2
    assert served.receipt_id is None
    assert "deadline: receipt" in served.truncated


async def test_a_search_is_over_with_its_deadline_also_when_nothing_is_known_of_who_speaks(
    resources: Resources, tmp_path: Path
) -> None:
    resources.settings.retrieval.deadline_ms = _DEADLINE_MS
    tenant = await resources.tenants.ensure(resources.settings.tenant, 1)
    queries = [SearchQuery(query="what did nadia say", mode=mode) for mode in ("keyword", "hybrid")]
    async with open_embedders(resources.settings.embedding, tmp_path) as embedders:
        retrieval = services_from(resources, embedders).retrieval
        assert (await retrieval.search(tenant, queries[0])).truncated == []
        await resources.ledger_redis.client_pause(_PAUSE_MS, all=True)
        began = time.monotonic()
        try:
            found = [await retrieval.search(tenant, query) for query in queries]
            taken = time.monotonic() - began
        finally:
            await resources.ledger_redis.client_unpause()
    assert taken < _PAUSE_MS / 1000 / 2
    assert all("deadline: understand" in each.truncated for each in found)


async def test_what_keeps_the_event_loop_is_measured() -> None:
    stalls = Stalls()
    looking = asyncio.create_task(stalls.run(), name="stalls")
    try:
        await asyncio.sleep(0)  # it has begun to look
        until_then = time.thread_time() + 0.1
        while time.thread_time() < until_then:
            pass
        await until(lambda: stalls.longest.busy > 0.08)
        assert stalls.longest.late > 0.08
    finally:
        looking.cancel()


async def test_metrics_tell_the_longest_stall(http: httpx2.AsyncClient) -> None:
    text = (await http.get("/metrics")).text
    stall, work = (
        float(
            next(
                line for line in text.splitlines() if line.startswith(f"cg_event_loop_longest_{name}_seconds ")
            ).split()[1]
        )
        for name in ("stall", "work")
    )
    assert 0 <= work <= stall
