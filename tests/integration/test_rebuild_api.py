"""Rebuilds over HTTP and by command, as an operator runs them, beside a service that goes on."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from context_graph.bootstrap import Resources
from context_graph.cli import rebuilding
from context_graph.domain.generations import Rebuild
from context_graph.domain.partition import Tenant
from context_graph.errors import ConfigurationError, NotNow, UnknownThing
from context_graph.facts import facts_of, read_rebuilds
from context_graph.local.checks import RebuildFacts, examine
from context_graph.settings import Settings
from tests.events import event
from tests.ledger_events import append, parsed
from tests.operating import operated_here, said
from tests.rebuilding import caught_up, rebuilt, tenant_of, working
from tests.service import Service
from tests.waiting import until


async def posted(http: httpx2.AsyncClient, first: int, count: int) -> None:
    events = [event(n, payload={"text": f"The parcel {n} for Mia Li is late"}) for n in range(first, first + count)]
    answer = await http.post("/v1/events/batch", json={"events": events})
    assert answer.status_code == 207, answer.text
    assert answer.json()["counts"]["created"] == count


async def over(http: httpx2.AsyncClient, address: str) -> dict[str, Any]:
    """The rebuild once it is neither built nor compared."""
    body: dict[str, Any] = {}

    async def is_over() -> bool:
        nonlocal body
        body = (await http.get(address)).raise_for_status().json()
        return body["state"] not in ("building", "comparing")

    await until(is_over, seconds=60)
    return body


async def found(http: httpx2.AsyncClient, query: str, position: str | None = None) -> list[str]:
    asked: dict[str, Any] = {"query": query, "limit": 50, "mode": "keyword"}
    if position is not None:
        asked |= {"min_position": position, "wait_ms": 30_000}
    answer = await http.post("/v1/search", json=asked)
    assert answer.status_code == 200, answer.text
    assert not answer.json().get("meta", {}).get("missing")
    return sorted(result["id"] for result in answer.json()["results"])


async def test_a_rebuild_is_begun_watched_switched_taken_back_and_removed(
    service: Service, http: httpx2.AsyncClient
) -> None:
    await posted(http, 0, 12)
    begun = await http.post("/v1/admin/projections/all/rebuild")
    assert begun.status_code == 202, begun.text
    body = begun.json()
    assert (body["state"], body["generation"], body["live_generation"]) == ("building", 2, 1)
    assert body["progress"]["of"] == 12
    address = f"/v1/admin/rebuilds/{body['id']}"

    again = await http.post("/v1/admin/projections/all/rebuild")
    assert (again.status_code, again.json()["code"]) == (409, "already-exists")
    ready = await over(http, address)
    assert (ready["state"], ready["equal"], ready["problem"]) == ("ready", True, None), ready
    assert ready["live_hash"] == ready["shadow_hash"]
    assert ready["comparison"]["live_counts"]["event"] == 12
    assert ready["model"].startswith("all-MiniLM-L6-v2/")

    early = await http.post(f"{address}/rollback")
    assert (early.status_code, early.json()["code"]) == (409, "not-now")
    promoted = (await http.post(f"{address}/promote")).raise_for_status().json()
    assert (promoted["state"], promoted["live_generation"], promoted["previous_generation"]) == ("promoted", 2, 1)
    one = await http.post("/v1/events", json=event(50, payload={"text": "a zebra crossed"}))
    assert await found(http, "zebra", one.json()["position"]) == ["e50"]  # the wait is for the new generation's stages
    assert len(await found(http, "parcel")) == 12

    soon = await http.delete(address)
    assert soon.status_code == 409, "the generation before may still be read by somebody"
    back = (await http.post(f"{address}/rollback")).raise_for_status().json()
    assert (back["state"], back["live_generation"]) == ("rolled back", 1)
    assert await found(http, "zebra", one.json()["position"]) == ["e50"]
    listed = (await http.get("/v1/admin/rebuilds")).raise_for_status().json()
    assert [(known["id"], known["state"]) for known in listed["rebuilds"]] == [(body["id"], "rolled back")]


async def test_what_is_asked_wrongly_is_told(service: Service, http: httpx2.AsyncClient, resources: Resources) -> None:
    for path, method in (("x", "GET"), ("x/promote", "POST"), ("x/rollback", "POST"), ("x", "DELETE")):
        answer = await http.request(method, f"/v1/admin/rebuilds/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found"), path
    unknown = await http.post("/v1/admin/projections/everything/rebuild")
    assert unknown.status_code == 404
    wrong = await http.post("/v1/admin/projections/all/rebuild", json={"promote": "perhaps"})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["pointer"] == "/promote"


async def test_only_an_admin_of_the_tenant_may(service: Service, http: httpx2.AsyncClient) -> None:
    made = await http.post("/v1/admin/keys", json={"name": "reader", "scopes": ["read", "ingest"]})
    assert made.status_code == 201, made.text
    async with service.client(made.json()["key"]) as reader:
        assert (await reader.post("/v1/admin/projections/all/rebuild")).status_code == 403
        assert (await reader.get("/v1/admin/rebuilds")).status_code == 403


@pytest.fixture
def on_this_machine(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    operated_here(settings, monkeypatch, tmp_path)


@pytest.mark.usefixtures("on_this_machine")
async def test_the_command_builds_compares_switches_and_goes_back(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("context_graph.delivery.rebuilds.GRACE_SECONDS", 0)
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    await append(resources.ledger, partition, parsed([event(n) for n in range(8)]))
    async with working(resources):
        await caught_up(resources, partition)
        compared = await said("rebuild", "--compare", "--tenant", "acme")
        assert compared.exit_code == 0, compared.output
        for words in (
            "ready; generation 2, live is 1",
            "8 of 8 events",
            "event 8",
            "  equal over 8 events\n",
            "rebuild promote",
        ):
            assert words in compared.stdout
        switched = await said("rebuild", "promote", "--tenant", "acme")
        assert "promoted; generation 2, live is 2" in switched.stdout
        assert (await said("verify", "--tenant", "acme")).stdout.endswith("Equal.\n")

        report = orjson.loads((await said("verify", "--tenant", "acme", "--json")).stdout)
        assert (report["generation"], report["events"], report["equal"]) == (2, 8, True)
        keys = await resources.graph.keys(partition)
        await resources.derived_redis.hset(keys.event("e5"), "agent", "nobody")
        differs = await said("verify", "--tenant", "acme")
        assert differs.exit_code == 1
        assert "event e5: differs in agent" in differs.stdout
        assert '{"agent":"support"}' in differs.stdout

        assert "rolled back; generation 2, live is 1" in (await said("rebuild", "rollback", "--tenant", "acme")).stdout
        assert (await said("verify", "--tenant", "acme")).exit_code == 0
        assert "dropped" in (await said("rebuild", "drop", "--tenant", "acme")).stdout
        with pytest.raises(NotNow, match="dropped already"):
            await said("rebuild", "drop", "--tenant", "acme")
    with pytest.raises(UnknownThing, match="tenant 'nobody'"):
        await said("rebuild", "--tenant", "nobody")
    with pytest.raises(ConfigurationError, match="is no folder"):
        await said("rebuild", "--tenant", "acme", "--model-path", "/nowhere/at/all")


@pytest.mark.usefixtures("on_this_machine")
async def test_without_workers_the_command_says_which_to_start(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("context_graph.cli.rebuilding._UNFED_AFTER", 0)
    tenant = await tenant_of(resources)
    await append(resources.ledger, tenant.partitions[0], parsed([event(1)]))
    told, unfed = threading.Event(), rebuilding._unfed

    async def looked(resources: Resources, tenant: Tenant, rebuild: Rebuild) -> list[str]:
        told.set()
        return await unfed(resources, tenant, rebuild)

    monkeypatch.setattr(rebuilding, "_unfed", looked)
    running = asyncio.create_task(said("rebuild", "--tenant", "acme"))
    await until(told.is_set)
    newest = await resources.rebuilds.newest(tenant.name)
    async with asyncio.timeout(20):
        assert "building" in (await said("rebuild", "status", "--tenant", "acme")).stdout  # once, and it returns
    facts = await read_rebuilds(resources, [tenant])
    assert facts[0].unfed == ("projection.g2", "indexing.g2", "enrichment.g2")
    assert rebuild_findings(replace(facts[0], seconds=61)) == ["wrong"]
    assert rebuild_findings(replace(facts[0], seconds=5)) == []
    assert rebuild_findings(replace(facts[0], unfed=(), state="comparing", seconds=1000)) == ["wrong"]
    assert rebuild_findings(replace(facts[0], state="failed", problem="no model")) == ["warn"]
    await resources.rebuilds.drop(tenant.name, newest.id)
    result = await running
    assert "start `context-graph worker projection`" in result.output
    assert "start `context-graph worker enrichment`" in result.output


def rebuild_findings(known: RebuildFacts) -> list[str]:
    facts = replace(facts_of(Settings()), rebuilds=(known,))
    return [found.level for found in examine(facts) if found.subject == "rebuild"]


@pytest.mark.usefixtures("on_this_machine")
async def test_the_rate_of_a_rebuild_does_not_grow_with_what_comes_after_it(resources: Resources) -> None:
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    await append(resources.ledger, partition, parsed([event(n) for n in range(4)]))
    async with working(resources):
        await caught_up(resources, partition)
        rebuild = await rebuilt(resources, tenant, "always")
        before = await resources.rebuilds.progress(tenant, rebuild)
        await append(resources.ledger, partition, parsed([event(n) for n in range(4, 30)]))
        await caught_up(resources, partition, rebuild.number)
        after = await resources.rebuilds.progress(tenant, rebuild)
    assert (before.done, after.done) == (4, 30)
    assert after.events_per_second == before.events_per_second
