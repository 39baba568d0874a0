"""`Idempotency-Key`: the same request again gets the first answer; another body, or another at once, is told so."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from context_graph.bootstrap import open_resources
from context_graph.store.idempotency import IdempotencyKeys, Running
from tests.events import event
from tests.service import Service
from tests.waiting import until

_BATCH = "/v1/events/batch"
KEY = {"Idempotency-Key": '"k-1"'}


def nameless(number: int) -> dict[str, Any]:
    """An event without an id: only the key can tell that it was sent before."""
    return {name: value for name, value in event(number).items() if name != "event_id"}


async def count(http: httpx2.AsyncClient) -> int:
    return len((await http.get("/v1/events", params={"limit": 1000})).json()["events"])


async def test_the_same_batch_again_gets_the_first_answer_and_adds_nothing(http: httpx2.AsyncClient) -> None:
    body = {"events": [nameless(number) for number in range(50)]}
    first = await http.post(_BATCH, json=body, headers=KEY)
    again = await http.post(_BATCH, json=body, headers=KEY)
    bare = await http.post(_BATCH, json=body, headers={"Idempotency-Key": "k-1"})
    assert first.status_code == again.status_code == bare.status_code == 207
    assert first.content == again.content == bare.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == bare.headers["idempotency-replayed"] == "true"
    assert await count(http) == 50


async def test_a_single_event_is_answered_again_as_it_was_first(http: httpx2.AsyncClient) -> None:
    first = await http.post("/v1/events", json=nameless(1), headers=KEY)
    again = await http.post("/v1/events", json=nameless(1), headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert await count(http) == 1


async def test_another_body_under_the_same_key_is_refused(http: httpx2.AsyncClient) -> None:
    await http.post("/v1/events", json=nameless(1), headers=KEY)
    other = await http.post("/v1/events", json=nameless(2), headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert await count(http) == 1


async def test_a_key_counts_within_its_route_and_its_tenant(service: Service, http: httpx2.AsyncClient) -> None:
    async with open_resources(service.settings) as resources:
        tenant = await resources.tenants.ensure(f"{service.tenant}-2", 1)
        key = await resources.api_keys.create(tenant.name, name="test")
    await http.post("/v1/events", json=nameless(1), headers=KEY)
    assert (await http.post(_BATCH, json={"events": [nameless(2)]}, headers=KEY)).status_code == 207
    async with service.client(key) as stranger:
        assert (await stranger.post("/v1/events", json=nameless(3), headers=KEY)).status_code == 201
        assert await count(stranger) == 1


async def test_of_many_at_once_one_runs_and_the_others_are_told_to_wait_or_get_its_answer(
    http: httpx2.AsyncClient,
) -> None:
    body = {"events": [nameless(number) for number in range(300)]}
    answers = await asyncio.gather(*(http.post(_BATCH, json=body, headers=KEY) for _ in range(12)))
    done = [answer for answer in answers if answer.status_code == 207]
    waiting = [answer for answer in answers if answer.status_code == 409]
    assert len(done) + len(waiting) == 12
    assert len({answer.content for answer in done}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in done) == 1
    for answer in waiting:
        assert (answer.json()["code"], answer.headers["retry-after"]) == ("idempotency-key-in-use", "1")
    assert await count(http) == 300


async def test_while_the_first_runs_the_same_is_told_to_wait_and_another_body_is_refused(
    service: Service, http: httpx2.AsyncClient
) -> None:
    import orjson

    body = orjson.dumps(nameless(1))
    async with open_resources(service.settings) as resources:
        from context_graph.domain.event import TenantId

        keys = IdempotencyKeys(resources.ledger_redis, 60, lambda: "token")
        begun = await keys.begin(TenantId(service.tenant), "POST /v1/events", "k-1", body)
        assert isinstance(begun, Running)
        same = await http.post("/v1/events", content=body, headers=KEY)
        other = await http.post("/v1/events", json=nameless(2), headers=KEY)
        assert (same.status_code, same.json()["code"]) == (409, "idempotency-key-in-use")
        assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
        # What a crash leaves behind is a mark that ends by itself; here it ends now.
        assert 0 < await resources.ledger_redis.pttl(begun.key) <= 60_000
        await resources.ledger_redis.pexpire(begun.key, 1)

        async def freed() -> bool:
            return (await http.post("/v1/events", content=body, headers=KEY)).status_code == 201

        await until(freed)
        # The request that was thought dead finishes late: the answer that was given stays.
        await keys.finish(begun, None)
    again = await http.post("/v1/events", content=body, headers=KEY)
    assert again.headers["idempotency-replayed"] == "true"
    assert await count(http) == 1


async def test_a_refused_request_leaves_its_key_free(http: httpx2.AsyncClient) -> None:
    refused: list[dict[str, Any]] = [{"events": []}, {"events": "no"}]
    for bad in refused:
        assert (await http.post(_BATCH, json=bad, headers=KEY)).status_code == 422
    assert (await http.post("/v1/events", content=b"{nope", headers=KEY)).status_code == 400
    assert (await http.post(_BATCH, json={"events": [nameless(1)]}, headers=KEY)).status_code == 207
    assert (await http.post("/v1/events", json=event(1), headers=KEY)).status_code == 201


@pytest.mark.parametrize("key", ["", '"unfinished', '"', "x" * 256, "é".encode().decode("latin-1")])
async def test_what_is_no_key_is_refused(http: httpx2.AsyncClient, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    answer = await http.post("/v1/events", json=event(1), headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/Idempotency-Key"
    assert await count(http) == 0
