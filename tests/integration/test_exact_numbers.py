"""Numbers come out as they went in, or are refused: none is rounded on the way."""

from __future__ import annotations

import httpx2
import pytest

TIME = "2026-09-20T10:00:00Z"


def event(event_id: str, number: str) -> bytes:
    return (
        f'{{"event_id":"{event_id}","event_type":"user.message","session_id":"s","agent_id":"a",'
        f'"occurred_at":"{TIME}","payload":{{"a/b":[1,{number}]}}}}'
    ).encode()


@pytest.mark.parametrize("number", ["18446744073709551615", "-9223372036854775808", "1.5", '"18446744073709551617"'])
async def test_what_fits_comes_out_as_it_went_in(http: httpx2.AsyncClient, number: str) -> None:
    assert (await http.post("/v1/events", content=event("fits", number))).status_code == 201
    assert f"[1,{number}]" in (await http.get("/v1/events/fits")).text


@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "9" * 300])
async def test_an_integer_beyond_64_bits_is_refused_where_it_stands(http: httpx2.AsyncClient, number: str) -> None:
    answer = await http.post("/v1/events", content=event("large", number))
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error["remedy"]) == ("/payload/a~1b/1", "send it as a string")
    assert (await http.get("/v1/events/large")).status_code == 404


async def test_the_good_events_beside_it_are_kept(http: httpx2.AsyncClient) -> None:
    batch = b'{"events":[' + event("one", "1") + b"," + event("two", "9" * 25) + b"]}"
    answer = (await http.post("/v1/events/batch", content=batch)).json()
    assert [result["status"] for result in answer["results"]] == ["created", "invalid"]
    lines = event("three", "3") + b"\n" + event("four", "9" * 25) + b"\n"
    summary = (await http.post("/v1/events/import", content=lines)).json()
    assert (summary["created"], summary["invalid"]) == (1, 1)
