"""Forgetting over HTTP and by command: policy, dry run, run, lineage of what is forgotten, recall, pins, erasure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from context_graph.bootstrap import Resources, open_resources
from context_graph.cli.main import build_app
from context_graph.domain.event import TenantId
from enrichment.reconsolidation.passes import Passes
from tests.events import event, post_all, settled
from tests.service import Service
from tests.waiting import until


@pytest.fixture
async def resources(service: Service) -> AsyncIterator[Resources]:
    async with open_resources(service.settings) as opened:
        yield opened


@pytest.fixture
async def told(http: httpx2.AsyncClient) -> list[dict[str, Any]]:
    """An old session with two people, consolidated by nobody yet, and a young one that nothing ties to it."""
    old = [
        event(
            n, session_id="old", user_id="lena" if n % 2 else "omar", caused_by=[f"e{n - 1}"] if n else [],
            occurred_at=f"2020-01-01T09:00:{n:02d}Z", payload={"text": f"The blue parcel {n} went to Lisbon at noon."},
        )
        for n in range(8)
    ]  # fmt: skip
    results = await post_all(http, [*old, event(20, session_id="young", occurred_at="2026-11-01T09:00:00Z")])
    await settled(http, results)
    return results


async def run_now(http: httpx2.AsyncClient, resources: Resources, service: Service, **body: Any) -> dict[str, Any]:
    """Ask, and let a worker look."""
    asked = await http.post("/v1/admin/consolidation/runs", json=body)
    assert asked.status_code == 202, asked.text
    assert asked.json()["state"] == "waiting"
    await Passes(resources).asked(asyncio.Event())
    answer = await http.get(f"/v1/admin/consolidation/runs/{asked.json()['id']}")
    assert answer.json()["state"] == "done", answer.text
    await caught_up(resources, service)
    return dict(answer.json())


async def caught_up(resources: Resources, service: Service) -> None:
    tenant = await resources.tenants.get(TenantId(service.tenant))
    assert tenant is not None
    [partition] = tenant.partitions

    async def passed() -> bool:
        last = await resources.ledger.last(partition)
        groups = await resources.groups.names(partition)
        states = [await resources.groups.state(partition, group) for group in groups]
        return last is not None and all(state.has_passed(last) for state in states)

    await until(passed, seconds=20)


async def found(http: httpx2.AsyncClient, query: str = "blue parcel Lisbon") -> set[str]:
    answer = await http.post("/v1/search", json={"query": query, "limit": 50})
    return {item["id"] for item in answer.json()["results"]}


async def test_from_a_policy_to_a_recall(
    http: httpx2.AsyncClient, service: Service, resources: Resources, told: list[dict[str, Any]]
) -> None:
    assert (await http.get("/v1/admin/forgetting")).json()["policy"]["enabled"] is False
    dry = await run_now(http, resources, service, kind="forgetting", dry_run=True)
    [plan] = dry["plan"].values()
    assert (plan["events"], plan["kept"]["no summary"]) == (0, 8)
    put = await http.put("/v1/admin/forgetting", json={"enabled": True, "keep_share": 0})
    assert put.json()["policy"]["version"] == 1
    assert (await http.put("/v1/admin/forgetting", json={"enabled": True, "keep_share": 0})).json()["policy"][
        "version"
    ] == 1
    assert {f"e{n}" for n in range(8)} <= await found(http)
    outcomes = []
    for _ in range(2):  # the first pass summarises; whether Stage 1 has seen that before it looks for what to forget …
        done = await run_now(http, resources, service)
        outcomes += done["outcome"].values()
        await caught_up(resources, service)
    assert sum("8 events of 1 sessions forgotten" in outcome for outcome in outcomes) == 1, outcomes
    left = await found(http)
    assert not {f"e{n}" for n in range(8)} & left
    assert any(name.startswith("summary") for name in left)

    lineage = (await http.get("/v1/events/e7/lineage")).json()
    assert set(lineage["nodes"]) == {f"e{n}" for n in range(8)}
    for n in range(8):
        node = lineage["nodes"][f"e{n}"]
        assert node["attributes"]["forgotten"] is True
        assert node["attributes"]["text"] == f"The blue parcel {n} went to Lisbon at noon."
        assert node["provenance"]["position"] == told[n]["position"]
        assert (await http.get(f"/v1/events/e{n}")).json()["position"] == told[n]["position"]

    asked = {"query": "blue parcel", "token_budget": 400}
    assert (await http.post("/v1/context", json=asked)).json()["meta"]["recall_available"] == ["old"]
    recalled = (await http.post("/v1/sessions/old/recall")).json()["recalled"]
    assert [(r["session_id"], r["events"]) for r in recalled] == [("old", 8)]
    body = {"query": "blue parcel", "token_budget": 400, "min_position": recalled[0]["position"], "wait_ms": 20_000}
    assert (await http.post("/v1/context", json=body)).json()["meta"]["complete"]
    assert (await http.post("/v1/context", json=asked)).json()["meta"]["recall_available"] == []
    assert {f"e{n}" for n in range(8)} <= await found(http)
    await run_now(http, resources, service, kind="forgetting")
    assert {f"e{n}" for n in range(8)} <= await found(http)  # recalled: new
    metrics = (await http.get("/metrics")).text
    assert f'cg_events_by_tier{{partition="{service.tenant}.0",tier="hot"}} 8.0' in metrics
    assert f'cg_consolidation_passes_total{{partition="{service.tenant}.0"}}' in metrics


async def test_pins_and_wrong_input(
    http: httpx2.AsyncClient, service: Service, resources: Resources, told: list[dict[str, Any]]
) -> None:
    assert told
    for path in ("/v1/events/nobody/pin", "/v1/sessions/nobody/recall"):
        assert (await http.post(path)).json()["type"].endswith("/problems/not-found")
    wrong = await http.put("/v1/admin/forgetting", json={"enabled": True, "hot_days": 100})
    assert wrong.status_code == 422
    assert "must not fall" in wrong.text
    assert (await http.post("/v1/recall", json={"event_ids": []})).status_code == 422
    pinned = await http.post("/v1/events/e3/pin")
    assert pinned.json()["pinned"] is True
    await http.put("/v1/admin/forgetting", json={"enabled": True, "keep_share": 0})
    await caught_up(resources, service)
    await run_now(http, resources, service)
    assert "e3" in await found(http)
    await http.delete("/v1/events/e3/pin")
    await caught_up(resources, service)
    dry = await run_now(http, resources, service, kind="forgetting", dry_run=True)
    assert [plan["events"] for plan in dry["plan"].values()] == [8]


async def test_erasure_finds_what_is_forgotten(
    http: httpx2.AsyncClient, service: Service, resources: Resources, told: list[dict[str, Any]]
) -> None:
    """Lena's events are out of the graph; the summary of her session, which is about two people, goes with her."""
    assert told
    await http.put("/v1/admin/forgetting", json={"enabled": True, "keep_share": 0})
    await run_now(http, resources, service)
    assert any(name.startswith("summary") for name in await found(http))
    erased = await http.delete("/v1/users/lena?wait_ms=30000")
    assert erased.json()["state"] == "done", erased.text
    assert not any(name.startswith("summary") for name in await found(http))
    assert (await http.get("/v1/events/e1")).json()["erased"] is True
    await http.post("/v1/sessions/old/recall")
    await caught_up(resources, service)
    assert {f"e{n}" for n in range(0, 8, 2)} == {name for name in await found(http) if name.startswith("e")} - {"e20"}


async def test_the_command_line_says_what_it_does(
    http: httpx2.AsyncClient, service: Service, resources: Resources, told: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert told
    stop = asyncio.Event()

    async def work() -> None:
        while not stop.is_set():
            await Passes(resources).asked(stop)
            await asyncio.sleep(0.05)

    async def command(*words: str) -> str:
        options = ["--url", service.url, "--key", service.key, "--data", str(tmp_path)]
        result = await asyncio.to_thread(CliRunner().invoke, build_app(), ["forgetting", *words, *options])
        assert result.exit_code == 0, result.output
        return result.output

    working = asyncio.create_task(work())
    try:
        assert "enabled              true" in await command("set", "--forget-after-days", "100", "--keep-share", "0")
        assert "forget_after_days    100.0" in await command("show")
        assert '"no summary":8' in await command("plan")
        await Passes(resources).patiently((await Passes(resources).partitions(TenantId(service.tenant)))[0], stop)
        await caught_up(resources, service)
        assert '"pinned":true' in (await command("pin", "e3", "--json")).replace(" ", "").replace("\n", "")
        assert "recalled" in await command("recall", "--session", "old")
    finally:
        stop.set()
        await working
    assert (await http.get("/v1/admin/forgetting")).json()["policy"]["forget_after_days"] == 100
