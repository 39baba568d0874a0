"""What holds for every request: its id, its methods."""

from __future__ import annotations

import httpx2
import pytest

from tests.events import event
from tests.service import Service


@pytest.mark.parametrize("given", ["abc-123", "01J.a_b:c/d+e=f@g", "x" * 128])
async def test_a_sane_request_id_comes_back(http: httpx2.AsyncClient, given: str) -> None:
    assert (await http.get("/health/live", headers={"X-Request-Id": given})).headers["x-request-id"] == given
    missing = await http.get("/v1/events/none", headers={"X-Request-Id": given})
    assert missing.headers["x-request-id"] == missing.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "with space", "x" * 129, "<script>", "a\tb", "é"])
async def test_any_other_is_replaced(http: httpx2.AsyncClient, given: str) -> None:
    answer = await http.get("/v1/events/none", headers=[(b"X-Request-Id", given.encode())])
    made = answer.headers["x-request-id"]
    assert made != given
    assert len(made) == 24
    assert answer.json()["request_id"] == made
    assert (await http.get("/v1/events/none")).headers["x-request-id"] != made


async def test_every_kind_of_answer_has_one(service: Service, http: httpx2.AsyncClient) -> None:
    async with httpx2.AsyncClient(base_url=service.url) as stranger:
        keyless = await stranger.get("/v1/events")
    answers = [
        keyless,
        await http.post("/v1/events", json=event(1)),
        await http.post("/v1/events", json={}),
        await http.post("/v1/events", content=b"{"),
        await http.get("/nowhere"),
        await http.patch("/v1/events"),
        await http.options("/v1/events"),
        await http.head("/v1/events"),
        await http.get("/v1/events?limit=0"),
    ]
    assert [answer.status_code for answer in answers] == [401, 201, 422, 400, 404, 405, 204, 200, 422]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/events", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("/v1/events/some/id", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/schemas/a.b/1", {"GET", "HEAD", "PUT", "OPTIONS"}),
        ("/v1/context", {"POST", "OPTIONS"}),
        ("/health/live", {"GET", "HEAD", "OPTIONS"}),
    ],
)
async def test_the_allowed_methods_are_all_told(http: httpx2.AsyncClient, path: str, methods: set[str]) -> None:
    refused = await http.patch(path)
    assert refused.status_code == 405
    assert refused.json()["code"] == "method-not-allowed"
    asked = await http.options(path)
    assert (asked.status_code, asked.content) == (204, b"")
    for answer in (refused, asked):
        assert {method.strip() for method in answer.headers["allow"].split(",")} == methods


async def test_head_answers_as_get_without_the_body(http: httpx2.AsyncClient) -> None:
    await http.post("/v1/events", json=event(1))
    for path in ("/v1/events/e1", "/health/live", "/v1/events/none", "/openapi.json", "/metrics"):
        head, get = await http.head(path), await http.get(path)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        assert head.headers["content-type"] == get.headers["content-type"]
    assert (await http.head("/v1/context")).status_code == 405


async def test_a_path_with_a_slash_too_many_is_not_there(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/v1/search/", json={"query": "x"})
    assert (answer.status_code, answer.json()["code"]) == (404, "no-route")
