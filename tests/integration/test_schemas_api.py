"""The registry of payload schemas over HTTP, and what it does to ingest."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.event import Envelope, EventId, LedgerEvent, SessionId
from context_graph.domain.partition import Partition
from context_graph.domain.upcast import Upcaster, Upcasters
from context_graph.store import codec
from context_graph.store.groups import Groups
from context_graph.store.ledger import Appendable, Ledger
from tests.events import event
from tests.service import Service
from tests.waiting import until

SCHEMA = {"type": "object", "required": ["order_id"], "properties": {"order_id": {"type": "string"}}}
ORDER = "/v1/schemas/order.placed/1"


def order(number: int, **fields: Any) -> dict[str, Any]:
    return event(number, event_type="order.placed", **fields)


async def test_a_stored_version_never_changes(http: httpx2.AsyncClient) -> None:
    first = await http.put(ORDER, json=SCHEMA)
    assert (first.status_code, first.json()["owner"]) == (201, "tenant")
    reordered = dict(reversed(SCHEMA.items()))
    assert (await http.put(ORDER, json=reordered)).status_code == 200
    other = await http.put(ORDER, json={"type": "string"})
    assert (other.status_code, other.json()["code"]) == (409, "schema-conflict")
    assert (await http.get(ORDER)).json()["schema"] == SCHEMA
    assert (await http.put("/v1/schemas/order.placed/2", json={"type": "string"})).status_code == 201
    versions = (await http.get("/v1/schemas/order.placed")).json()["versions"]
    assert [(row["version"], row["schema"]) for row in versions] == [(1, SCHEMA), (2, {"type": "string"})]


async def test_the_list_has_the_services_own_types_too(http: httpx2.AsyncClient) -> None:
    await http.put(ORDER, json=SCHEMA)
    body = (await http.get("/v1/schemas")).json()
    assert body["mode"] == "lenient"
    owners = {row["event_type"]: row["versions"][0]["owner"] for row in body["schemas"]}
    assert owners["order.placed"] == "tenant"
    assert owners["user.message"] == owners["memory.summary"] == "service"


@pytest.mark.parametrize(
    ("path", "status"),
    [("order.lost", 404), ("order.lost/1", 404), ("user.message/9", 404), ("NoType", 422), ("order.placed/0", 422)],
)
async def test_what_is_not_there_is_said(http: httpx2.AsyncClient, path: str, status: int) -> None:
    assert (await http.get(f"/v1/schemas/{path}")).status_code == status


async def test_what_cannot_be_a_schema_is_refused_with_its_place(http: httpx2.AsyncClient) -> None:
    answer = await http.put(ORDER, json={"properties": {"a": {"type": "text"}}})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("/properties/a/type")
    reserved = await http.put("/v1/schemas/memory.summary/1", json={})
    assert (reserved.status_code, reserved.json()["errors"][0]["code"]) == (422, "reserved")


async def test_lenient_keeps_and_warns(http: httpx2.AsyncClient) -> None:
    await http.put(ORDER, json=SCHEMA)
    single = await http.post("/v1/events", json=order(1))
    assert single.status_code == 201
    assert [warning["pointer"] for warning in single.json()["warnings"]] == ["/payload/order_id"]
    right = await http.post("/v1/events", json=order(2, payload={"order_id": "#W1"}))
    assert "warnings" not in right.json()
    batch = await http.post("/v1/events/batch", json={"events": [order(3), event(4)]})
    assert [len(result.get("warnings", [])) for result in batch.json()["results"]] == [1, 0]
    unknown = await http.post("/v1/events", json=order(5, schema_version=7))
    assert (unknown.status_code, "warnings" in unknown.json()) == (201, False)


async def test_strict_refuses_with_pointers_and_keeps_the_good(http: httpx2.AsyncClient) -> None:
    await http.put(ORDER, json=SCHEMA)
    assert (await http.put("/v1/schemas/mode", json={"mode": "strict"})).json() == {"mode": "strict"}
    bad = [order(1), event(2, event_type="order.lost"), order(3, schema_version=2)]
    pointers = []
    for sent in bad:
        refused = await http.post("/v1/events", json=sent)
        assert refused.status_code == 422
        pointers += [error["pointer"] for error in refused.json()["errors"]]
    assert pointers == ["/payload/order_id", "/event_type", "/schema_version"]
    good = order(4, payload={"order_id": "#W1"})
    batch = (await http.post("/v1/events/batch", json={"events": [*bad, good, event(5)]})).json()
    assert [result["status"] for result in batch["results"]] == ["invalid"] * 3 + ["created"] * 2
    stored = (await http.get("/v1/events")).json()["events"]
    assert [row["event_id"] for row in stored] == ["e4", "e5"]
    await http.put("/v1/schemas/mode", json={"mode": "lenient"})
    assert (await http.post("/v1/events", json=bad[1])).status_code == 201


async def test_a_change_is_in_force_in_other_processes_within_a_second(
    service: Service, http: httpx2.AsyncClient
) -> None:
    assert (await http.post("/v1/events", json=order(1))).status_code == 201  # the API remembers the rules now
    async with open_resources(service.settings) as elsewhere:
        tenant = await elsewhere.tenants.get(service.tenant)  # type: ignore[arg-type]
        assert tenant is not None
        await elsewhere.schemas.set_mode(tenant.name, "strict")
    numbers = iter(range(2, 10_000))

    async def refused() -> bool:
        return (await http.post("/v1/events", json=order(next(numbers)))).status_code == 422

    await until(refused, seconds=3)


async def test_only_an_admin_changes_schemas_and_only_of_its_own_tenant(
    service: Service, http: httpx2.AsyncClient
) -> None:
    await http.put(ORDER, json=SCHEMA)
    async with open_resources(service.settings) as resources:
        tenant = await resources.tenants.get(service.tenant)  # type: ignore[arg-type]
        assert tenant is not None
        reader = await resources.api_keys.create(tenant.name, name="reader", scopes=["read", "ingest"])
        other = await resources.tenants.ensure(f"{service.tenant}-other", 1)
        stranger = await resources.api_keys.create(other.name, name="other")
    async with service.client(reader) as client:
        assert (await client.get(ORDER)).status_code == 200
        assert (await client.put(ORDER, json=SCHEMA)).status_code == 403
        assert (await client.put("/v1/schemas/mode", json={"mode": "strict"})).status_code == 403
    async with service.client(stranger) as client:
        assert (await client.get(ORDER)).status_code == 404
        assert (await client.put(ORDER, json={"type": "string"})).status_code == 201
        await client.put("/v1/schemas/mode", json={"mode": "strict"})
    assert (await http.get(ORDER)).json()["schema"] == SCHEMA
    assert (await http.get("/v1/schemas")).json()["mode"] == "lenient"


async def test_two_writers_of_one_version_agree_on_one(http: httpx2.AsyncClient) -> None:
    bodies = [{"title": f"writer {number}"} for number in range(8)]
    answers = await asyncio.gather(*(http.put(ORDER, json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    winner = next(body for body, answer in zip(bodies, answers, strict=True) if answer.status_code == 201)
    assert (await http.get(ORDER)).json()["schema"] == winner


async def test_events_are_read_in_the_newest_version_and_stored_as_they_came(resources: Resources) -> None:
    table = Upcasters((Upcaster("order.*", 1, lambda payload: {"order": payload}),))
    partition = Partition((await resources.tenants.ensure("t", 1)).name, 0)
    old = Envelope(
        event_id=EventId("e1"), event_type="order.placed", session_id=SessionId("s"), agent_id="shop", occurred_at=0,
        payload=7,
    )  # fmt: skip
    body = codec.encode(old)
    stored_by = Ledger(resources.ledger_redis, upcasters=table)
    assert (await stored_by.append(partition, [Appendable(old.event_id, old.session_id, body)]))[0].status == "created"

    def check(read: LedgerEvent | None) -> None:
        assert read is not None
        assert (read.envelope.payload, read.envelope.schema_version, read.stored_schema_version) == ({"order": 7}, 2, 1)

    check(await stored_by.get(partition, "e1"))
    check((await stored_by.after(partition, None, 10))[0])
    check((await stored_by.of_session(partition, "s", None, 10))[0])
    groups = Groups(resources.ledger_redis, resources.waiting_redis)
    await groups.ensure(partition, "g")
    [entry] = await groups.read([partition], "g", "c", 10)
    check(entry.event(table))
    assert entry.body == body, "stored events never change"
    again = await stored_by.append(partition, [Appendable(old.event_id, old.session_id, body)])
    assert again[0].status == "duplicate"
