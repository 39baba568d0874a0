"""What a read does not take is refused, never ignored; what it takes as of a position counts."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.events import event, post_all, settled


async def _problem(http: httpx2.AsyncClient, path: str) -> dict[str, Any]:
    answer = await http.get(path)
    assert answer.status_code == 422, answer.text
    found: dict[str, Any] = answer.json()["errors"][0]
    return found


async def test_every_read_refuses_a_parameter_that_it_does_not_have(http: httpx2.AsyncClient) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    reads = [path for path, operations in paths.items() if "get" in operations]
    assert len(reads) > 30
    for path in reads:
        answer = await http.get(path.replace("{", "").replace("}", ""), params={"no_such": "1"})
        assert answer.status_code == 422, f"{path}: {answer.status_code}"
        assert answer.json()["errors"][0]["pointer"] == "/no_such"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/entities?limt=3", "limit"),
        ("/v1/timeline?sesion_id=s1", "session_id"),
        ("/v1/events?event_types=a.b", "event_type"),
        ("/v1/events/e1/similar?treshold=0.5", "threshold"),
    ],
)
async def test_a_misspelt_parameter_is_told_what_it_was_meant_to_be(
    http: httpx2.AsyncClient, path: str, meant: str
) -> None:
    assert (await _problem(http, path))["remedy"] == f"did you mean {meant}?"


async def test_what_stands_for_one_value_comes_once(http: httpx2.AsyncClient) -> None:
    assert (await _problem(http, "/v1/entities?limit=1&limit=2"))["code"] == "repeated"
    assert (await http.get("/v1/events?event_type=a.b&event_type=a.c")).status_code == 200


async def test_where_there_is_no_as_of_the_refusal_says_what_to_ask_instead(http: httpx2.AsyncClient) -> None:
    for path in ("/v1/entities", "/v1/entities/place:rome"):
        assert "/v1/graph/query" in (await _problem(http, f"{path}?as_of=0-1-0"))["remedy"]
    answer = await http.post("/v1/search?as_of=0-1-0", json={"query": "x"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["remedy"] == "send it in the body"


async def test_a_misspelt_field_of_a_body_is_told_what_it_was_meant_to_be(http: httpx2.AsyncClient) -> None:
    for path, body, meant in (
        ("/v1/search", {"query": "x", "filter": {}}, "filters"),
        ("/v1/context", {"query": "x", "tokenbudget": 100}, "token_budget"),
        ("/v1/events", event(1, sesion_id="s"), "session_id"),
    ):
        answer = await http.post(path, json=body)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["remedy"] == f"did you mean {meant}?"


async def test_an_event_and_its_likes_are_those_of_then(http: httpx2.AsyncClient) -> None:
    text = {"payload": {"text": "the parcel for nadia is late again"}}
    old = await post_all(http, [event(1, event_id="a", **text), event(2, event_id="b", **text)])
    new = await post_all(http, [event(3, event_id="c", **text)])
    await settled(http, new)
    then = {"as_of": old[-1]["position"]}
    assert (await http.get("/v1/events/a", params=then)).json()["event_id"] == "a"
    assert (await http.get("/v1/events/c", params=then)).status_code == 404
    assert (await http.get("/v1/events/c/similar", params=then)).status_code == 404
    assert set((await http.get("/v1/events/a/similar", params=then)).json()["nodes"]) == {"a", "b"}
    assert set((await http.get("/v1/events/a/similar")).json()["nodes"]) == {"a", "b", "c"}
    first = {"as_of": old[0]["position"]}
    assert set((await http.get("/v1/events/a/similar", params=first)).json()["nodes"]) == {"a"}
    assert (await _problem(http, "/v1/events/a?as_of=yesterday"))["pointer"] == "/as_of"


async def test_a_leap_second_is_the_end_of_its_minute(http: httpx2.AsyncClient) -> None:
    times = {"z": "2016-12-31T23:59:60Z", "east": "2017-01-01T05:29:60.25+05:30"}
    await post_all(http, [event(n, event_id=name, occurred_at=at) for n, (name, at) in enumerate(times.items())])
    for name in times:
        assert (await http.get(f"/v1/events/{name}")).json()["occurred_at"] == "2016-12-31T23:59:59.999Z"
    answer = await http.get("/v1/events", params={"occurred_from": "2016-12-31T23:59:60Z"})
    assert {one["event_id"] for one in answer.json()["events"]} == {"z", "east"}
    refused = await http.post("/v1/events", json=event(9, occurred_at="2016-12-31T23:59:61Z"))
    assert refused.status_code == 422
