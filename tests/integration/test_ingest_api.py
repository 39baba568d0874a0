"""Ingest over HTTP: created, duplicate, conflict; and bad input answered with the field and the remedy."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.events import event
from tests.service import Service


async def test_an_event_is_created_once_then_a_duplicate_at_the_first_position(http: httpx2.AsyncClient) -> None:
    first = await http.post("/v1/events", json=event(1))
    again = await http.post("/v1/events", json=event(1))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["status"] == "created"
    assert again.json() == first.json() | {"status": "duplicate"}


async def test_the_same_moment_in_another_offset_is_the_same_event(http: httpx2.AsyncClient) -> None:
    first = await http.post("/v1/events", json=event(1, occurred_at="2026-09-01T09:00:01Z"))
    again = await http.post("/v1/events", json=event(1, occurred_at="2026-09-01T11:00:01.000+02:00"))
    assert again.json() == first.json() | {"status": "duplicate"}


async def test_the_same_id_with_other_content_is_a_conflict_and_writes_nothing(http: httpx2.AsyncClient) -> None:
    first = await http.post("/v1/events", json=event(1))
    other = await http.post("/v1/events", json=event(1, payload={"text": "something else"}))
    assert other.status_code == 409
    assert other.json()["code"] == "event-conflict"
    assert other.json()["position"] == first.json()["position"]
    read = await http.get("/v1/events/e1")
    assert read.json()["payload"] == {"text": "message number 1"}
    assert len((await http.get("/v1/events")).json()["events"]) == 1


async def test_an_event_without_an_id_gets_a_uuid_of_version_7(http: httpx2.AsyncClient) -> None:
    sent = event(1)
    del sent["event_id"]
    answer = await http.post("/v1/events", json=sent)
    assert answer.json()["event_id"][14] == "7"


async def test_a_batch_says_what_became_of_each_event_and_keeps_the_good_ones(http: httpx2.AsyncClient) -> None:
    await http.post("/v1/events", json=event(1))
    batch = [event(1), event(2), event(1, payload="other"), event(3, event_type="Not Valid"), event(2)]
    answer = await http.post("/v1/events/batch", json={"events": batch})
    assert answer.status_code == 207
    body = answer.json()
    assert [result["status"] for result in body["results"]] == [
        "duplicate", "created", "conflict", "invalid", "duplicate",
    ]  # fmt: skip
    assert body["counts"] == {"created": 1, "duplicate": 2, "conflict": 1, "invalid": 1, "failed": 0}
    assert body["results"][3]["problem"]["errors"][0]["pointer"] == "/event_type"
    assert [item["event_id"] for item in (await http.get("/v1/events")).json()["events"]] == ["e1", "e2"]


async def test_what_was_posted_is_read_back_with_the_same_names_and_values(http: httpx2.AsyncClient) -> None:
    sent = event(
        7,
        event_type="tool.result",
        trace_id="trace",
        user_id="nadia",
        parent_event_id="e6",
        caused_by=["e5"],
        tool_name="refund",
        ended_at="2026-09-01T10:00:00Z",
        status="failed",
        schema_version=3,
        importance_hint=8,
        origin="tool",
        payload={"amount": 12.5, "note": "ü €", "nested": {"list": [1, None, True]}},
        payload_ref="s3://bucket/key",
    )
    assert (await http.post("/v1/events", json=sent)).status_code == 201
    read = (await http.get("/v1/events/e7")).json()
    assert read | {"occurred_at": sent["occurred_at"], "ended_at": sent["ended_at"]} == read | sent
    assert read["occurred_at"] == "2026-09-01T09:00:07.000Z"
    assert read["position"]
    assert read["recorded_at"]


async def test_pages_of_a_session_have_no_gap_and_no_repeat(http: httpx2.AsyncClient) -> None:
    batch = [event(number, session_id="a" if number % 3 else "b") for number in range(50)]
    await http.post("/v1/events/batch", json={"events": batch})
    seen: list[str] = []
    cursor = None
    while True:
        query = {"session_id": "a", "limit": "7"} | ({"after": cursor} if cursor else {})
        page = (await http.get("/v1/events", params=query)).json()
        seen += [item["event_id"] for item in page["events"]]
        cursor = page["page"]["next_cursor"]
        if cursor is None:
            break
    assert seen == [item["event_id"] for item in batch if item["session_id"] == "a"]


_LONG = "x" * (256 * 1024)
BAD: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("unknown field", event(1, flavour="mint"), 422, "/flavour", "payload"),
    ("bad type", event(1, importance_hint="5"), 422, "/importance_hint", "number"),
    ("bad event type", event(1, event_type="Message"), 422, "/event_type", "user.message"),
    ("missing session", {k: v for k, v in event(1).items() if k != "session_id"}, 422, "/session_id", "add it"),
    ("naive time", event(1, occurred_at="2026-09-01T09:00:00"), 422, "/occurred_at", "offset"),
    ("a number as time", event(1, occurred_at=1788254999), 422, "/occurred_at", "RFC 3339"),
    ("time in the future", event(1, occurred_at="2100-01-01T00:00:00Z"), 422, "/occurred_at", "300 s"),
    ("impossible time", event(1, occurred_at="2026-02-30T00:00:00Z"), 422, "/occurred_at", "RFC 3339"),
    ("payload too large", event(1, payload={"text": _LONG}), 413, "/payload", "payload_ref"),
    ("its own parent", event(1, parent_event_id="e1"), 422, "/parent_event_id", "came before"),
    ("its own cause", event(1, caused_by=["e0", "e1"]), 422, "/caused_by/1", "came before"),
    ("ends before it occurs", event(1, ended_at="2026-01-01T00:00:00Z"), 422, "/ended_at", "after"),
    ("reserved origin", event(1, origin="derived"), 422, "/origin", "another"),
    ("reserved type", event(1, event_type="memory.receipt"), 422, "/event_type", "another"),
    ("empty id", event(1, event_id=""), 422, "/event_id", "longer"),
    ("a line break in an id", event(1, event_id="a\nb"), 422, "/event_id", "printable"),
    ("a NUL in a session", event(1, session_id="a\x00"), 422, "/session_id", "printable"),
    ("an id of a summary", event(1, event_id="summary:session/s1"), 422, "/event_id", "another"),
]


@pytest.mark.parametrize(("what", "sent", "status", "pointer", "remedy"), BAD, ids=[row[0] for row in BAD])
async def test_bad_input_names_the_field_and_the_remedy(
    http: httpx2.AsyncClient, what: str, sent: dict[str, Any], status: int, pointer: str, remedy: str
) -> None:
    answer = await http.post("/v1/events", json=sent)
    assert answer.status_code == status, what
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    named = {error["pointer"]: error["remedy"] for error in body["errors"]}
    assert remedy in named[pointer]
    assert (await http.get("/v1/events")).json()["events"] == []


@pytest.mark.parametrize("size", [0, 1001])
async def test_a_batch_of_another_size_is_refused_whole(http: httpx2.AsyncClient, size: int) -> None:
    answer = await http.post("/v1/events/batch", json={"events": [event(number) for number in range(size)]})
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["pointer"] == "/events"
    assert "1 to 1,000" in error["detail"]


async def test_what_is_not_json_is_told_where_it_breaks(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/v1/events", content=b'{"event_id": nope}')
    assert answer.status_code == 400
    assert answer.json()["code"] == "malformed-json"
    assert "column" in answer.json()["detail"]


async def test_a_body_over_the_limit_is_a_problem_document(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/v1/events", content=b" " * (33 * 1024 * 1024))
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert "CG_API__MAX_BODY_BYTES" in answer.text


@pytest.mark.parametrize(("key", "code"), [("", "missing-key"), ("cg_wrong", "invalid-key")])
async def test_without_a_valid_key_nothing_is_answered(service: Service, key: str, code: str) -> None:
    async with httpx2.AsyncClient(base_url=service.url, headers={"X-Engine-API-Key": key} if key else {}) as http:
        for method, path in (("POST", "/v1/events"), ("GET", "/v1/events/e1"), ("POST", "/v1/context")):
            answer = await http.request(method, path)
            assert answer.status_code == 401
            assert answer.json()["code"] == code
            assert "WWW-Authenticate" in answer.headers


async def test_a_bearer_token_works_as_well(service: Service) -> None:
    headers = {"Authorization": f"Bearer {service.key}"}
    async with httpx2.AsyncClient(base_url=service.url, headers=headers) as http:
        assert (await http.get("/v1/events")).status_code == 200


async def test_one_tenant_never_sees_anothers_events(service: Service, http: httpx2.AsyncClient) -> None:
    from context_graph.bootstrap import open_resources

    await http.post("/v1/events", json=event(1))
    async with open_resources(service.settings) as resources:
        other = await resources.tenants.ensure(f"{service.tenant}-other", 1)
        key = await resources.api_keys.create(other.name, name="other", scopes=["read"])
    async with service.client(key) as stranger:
        assert (await stranger.get("/v1/events/e1")).status_code == 404
        assert (await stranger.get("/v1/events")).json()["events"] == []
        assert (await stranger.get("/v1/events/e1/lineage")).status_code == 404
        found = await stranger.post("/v1/search", json={"query": "message number 1"})
        assert found.json()["results"] == []
        refused = await stranger.post("/v1/events", json=event(2))
        assert (refused.status_code, refused.json()["code"]) == (403, "missing-scope")
