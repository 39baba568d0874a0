"""Tenants and keys over HTTP: who may do what, and when a key begins and ends to work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.event import TenantId
from tests.events import event
from tests.service import Service
from tests.serving import serving
from tests.waiting import until


@asynccontextmanager
async def client_with(service: Service, *scopes: str, name: str = "test") -> AsyncIterator[httpx2.AsyncClient]:
    """A client whose key of the test's tenant has these scopes."""
    async with open_resources(service.settings) as resources:
        key = await resources.api_keys.create(TenantId(service.tenant), name=name, scopes=scopes)
    async with service.client(key) as client:
        yield client


@pytest.fixture
async def operator(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_with(service, "operator", name="ops") as client:
        yield client


async def created(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/admin/keys", json={"name": "bff"} | body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_an_operator_makes_a_tenant_with_quotas_and_its_key_posts(
    service: Service, operator: httpx2.AsyncClient
) -> None:
    name = f"{service.tenant}-b"
    made = await operator.post(
        "/v1/admin/tenants", json={"name": name, "buckets": 2, "quotas": {"events_per_second": 1, "burst_events": 2}}
    )
    assert made.status_code == 201, made.text
    expected = {"name": name, "buckets": 2, "quotas": {"events_per_second": 1, "burst_events": 2}}
    assert made.json() == expected
    assert expected in (await operator.get("/v1/admin/tenants")).json()["tenants"]
    key = (await created(operator, tenant=name, scopes=["ingest"]))["key"]
    async with service.client(key) as http:
        statuses = [(await http.post("/v1/events", json=event(n))).status_code for n in range(6)]
        whole = await http.post("/v1/events/batch", json={"events": [event(90), event(91)]})
    assert statuses[:2] == [201, 201]
    assert 429 in statuses
    assert whole.status_code == 429
    assert whole.headers["Retry-After"].isdecimal()


async def test_quotas_change_within_a_second_and_unknown_tenants_have_none(
    service: Service, http: httpx2.AsyncClient, operator: httpx2.AsyncClient
) -> None:
    async def posts_with(status: int) -> bool:
        return (await http.post("/v1/events", json=event(1))).status_code == status

    path = f"/v1/admin/tenants/{service.tenant}/quotas"
    await until(lambda: posts_with(201))
    assert (await operator.put(path, json={"stored_events": 1})).status_code == 200
    await until(lambda: posts_with(429), seconds=5)
    assert (await operator.put(path, json={})).json()["quotas"] == {}
    await until(lambda: posts_with(200), seconds=5)
    assert (await operator.put("/v1/admin/tenants/nobody-here/quotas", json={})).status_code == 404


async def test_a_tenant_is_made_once(service: Service, operator: httpx2.AsyncClient) -> None:
    again = await operator.post("/v1/admin/tenants", json={"name": service.tenant, "buckets": 9})
    assert (again.status_code, again.json()["code"]) == (409, "already-exists")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "A"}, "/name"),
        ({"name": "a.0}:ledger"}, "/name"),
        ({"name": "ok", "buckets": 0}, "/buckets"),
        ({"name": "ok", "quotas": {"events_per_second": 0}}, "/quotas/events_per_second"),
        ({"name": "ok", "quotas": {"burst_events": 5}}, "/quotas"),
        ({"name": "ok", "color": "red"}, "/color"),
    ],
)
async def test_a_wrong_tenant_is_refused_by_field(
    operator: httpx2.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    answer = await operator.post("/v1/admin/tenants", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_an_admin_is_no_operator(
    service: Service, http: httpx2.AsyncClient, operator: httpx2.AsyncClient
) -> None:
    other = f"{service.tenant}-c"
    assert (await operator.post("/v1/admin/tenants", json={"name": other})).status_code == 201
    theirs = await created(operator, tenant=other)
    ops = [key for key in (await operator.get("/v1/admin/keys")).json()["keys"] if "operator" in key["scopes"]]
    refused = [
        await http.post("/v1/admin/tenants", json={"name": f"{other}-d"}),
        await http.put(f"/v1/admin/tenants/{service.tenant}/quotas", json={}),
        await http.post("/v1/admin/keys", json={"name": "x", "tenant": other}),
        await http.post("/v1/admin/keys", json={"name": "x", "scopes": ["operator"]}),
        await http.get("/v1/admin/keys", params={"tenant": other}),
    ]
    mine = next(key["id"] for key in ops if key["tenant"] == service.tenant)
    refused.append(await http.post(f"/v1/admin/keys/{mine}/rotate", json={}))
    refused.append(await http.delete(f"/v1/admin/keys/{mine}"))
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(403, "missing-scope")}
    assert (await http.delete(f"/v1/admin/keys/{theirs['id']}")).status_code == 404
    assert (await http.post(f"/v1/admin/keys/{theirs['id']}/rotate", json={})).status_code == 404
    assert [t["name"] for t in (await http.get("/v1/admin/tenants")).json()["tenants"]] == [service.tenant]
    listed = (await http.get("/v1/admin/keys")).json()["keys"]
    assert {key["tenant"] for key in listed} == {service.tenant}


async def test_scopes_bind_and_a_key_without_admin_manages_nothing(service: Service) -> None:
    async with client_with(service, "ingest", "read", "tasks") as http:
        assert (await http.post("/v1/events", json=event(1))).status_code == 201
        for method, path in (("GET", "keys"), ("POST", "keys"), ("GET", "tenants"), ("DELETE", "keys/0")):
            assert (await http.request(method, f"/v1/admin/{path}")).status_code == 403
    async with client_with(service, "read") as http:
        assert (await http.post("/v1/events", json=event(2))).status_code == 403


async def test_a_list_of_keys_shows_no_key(http: httpx2.AsyncClient) -> None:
    made = await created(http, scopes=["read"])
    text = (await http.get("/v1/admin/keys")).text
    assert made["id"] in text
    assert made["key"] not in text
    assert made["key"].removeprefix("cg_") not in text


async def test_a_revoked_key_ends_within_a_second_and_its_use_was_noted(
    service: Service, http: httpx2.AsyncClient
) -> None:
    made = await created(http)
    async with service.client(made["key"]) as other:
        assert (await other.get("/v1/events")).status_code == 200
        [listed] = [k for k in (await http.get("/v1/admin/keys")).json()["keys"] if k["id"] == made["id"]]
        assert listed["last_used_at"] is not None
        assert (await http.delete(f"/v1/admin/keys/{made['id']}")).status_code == 200

        async def refused() -> bool:
            return (await other.get("/v1/events")).status_code == 401

        await until(refused, seconds=1.5)  # the second, and half of one for a busy machine
    assert (await http.delete(f"/v1/admin/keys/{made['id']}")).status_code == 404


async def test_a_rotated_key_works_at_once_and_the_old_one_for_its_grace(
    service: Service, http: httpx2.AsyncClient
) -> None:
    old = await created(http, scopes=["read"])
    first = (await http.post(f"/v1/admin/keys/{old['id']}/rotate", json={"grace_seconds": 3600})).json()
    assert (first["name"], first["scopes"]) == (old["name"], old["scopes"])
    async with service.client(first["key"]) as new, service.client(old["key"]) as before:
        assert (await new.get("/v1/events")).status_code == 200
        assert (await before.get("/v1/events")).status_code == 200
    second = (await http.post(f"/v1/admin/keys/{first['id']}/rotate", json={})).json()
    async with service.client(second["key"]) as new, service.client(first["key"]) as before:
        assert (await new.get("/v1/events")).status_code == 200

        async def refused() -> bool:
            return (await before.get("/v1/events")).status_code == 401

        await until(refused, seconds=1.5)


async def test_a_key_with_an_end_ends(resources: Resources) -> None:
    tenant = (await resources.tenants.ensure("acme", 1)).name
    keys = resources.api_keys
    soon = await keys.make(tenant, name="soon", expires_at=keys.now_ms() + 300)
    assert await keys.verify(soon.key) is not None

    async def ended() -> bool:
        return await keys.verify(soon.key) is None and await keys.listed(tenant) == []

    await until(ended, seconds=5)
    rotated = await keys.rotate((await keys.make(tenant, name="x")).info.id, grace_ms=200)
    await until(lambda: _names(keys, tenant, [rotated.info.id]), seconds=5)


async def _names(keys: Any, tenant: TenantId, ids: list[str]) -> bool:
    return [info.id for info in await keys.listed(tenant)] == ids


async def test_an_end_in_the_past_or_without_an_offset_is_refused(http: httpx2.AsyncClient) -> None:
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    for end in (past, "2030-01-01T00:00:00", "soon"):
        answer = await http.post("/v1/admin/keys", json={"name": "x", "expires_at": end})
        assert answer.status_code == 422, end
        assert answer.json()["errors"][0]["pointer"] == "/expires_at"


async def test_the_keys_header_has_another_name_and_only_named_origins_may_call(
    redis_url: str, resources: Resources, tmp_path: Path
) -> None:
    key = await resources.api_keys.create((await resources.tenants.ensure("acme", 1)).name, name="test")
    settings = {"CG_API__KEY_HEADER": "X-Memory-Key", "ALLOWED_ORIGINS": "https://app.example, https://b.example"}
    async with serving(redis_url, tmp_path, settings) as url, httpx2.AsyncClient(base_url=url) as http:
        assert (await http.get("/v1/events", headers={"X-Memory-Key": key})).status_code == 200
        assert (await http.get("/v1/events", headers={"Authorization": f"Bearer {key}"})).status_code == 200
        wrong = await http.get("/v1/events", headers={"X-Engine-API-Key": key})
        assert (wrong.status_code, wrong.json()["code"]) == (401, "missing-key")
        assert "X-Memory-Key" in wrong.json()["detail"]
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-Memory-Key"}
        preflight = await http.options("/v1/events", headers={"Origin": "https://b.example", **asked})
        assert preflight.headers["Access-Control-Allow-Origin"] == "https://b.example"
        assert "x-memory-key" in preflight.headers["Access-Control-Allow-Headers"].lower()
        assert "Access-Control-Allow-Credentials" not in preflight.headers
        stranger = await http.options("/v1/events", headers={"Origin": "https://evil.example", **asked})
        assert stranger.status_code == 400
        assert "Access-Control-Allow-Origin" not in stranger.headers
        said = await http.get("/v1/events", headers={"Origin": "https://evil.example", "X-Memory-Key": key})
        assert "Access-Control-Allow-Origin" not in said.headers
