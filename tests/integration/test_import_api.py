"""Imports over HTTP: any length, compressed or not, in bounded memory; broken bodies keep what was before the break."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
import zstandard

from tests.api_process import ApiProcess, api_process
from tests.events import event
from tests.service import Service
from tests.waiting import until

_PATH = "/v1/events/import"


def lines(count: int, first: int = 0, **fields: Any) -> bytes:
    """NDJSON of valid events."""
    return b"".join(orjson.dumps(event(number, **fields)) + b"\n" for number in range(first, first + count))


async def stored(http: httpx2.AsyncClient) -> list[str]:
    """Ids of all events in ledger order."""
    found: list[str] = []
    query: dict[str, str] = {"limit": "1000"}
    while True:
        page = (await http.get("/v1/events", params=query)).json()
        found += [item["event_id"] for item in page["events"]]
        if page["page"]["next_cursor"] is None:
            return found
        query["cursor"] = page["page"]["next_cursor"]


_PACKED: list[tuple[str, dict[str, str], Callable[[bytes], bytes]]] = [
    ("plain", {}, bytes),
    ("gzip encoding", {"Content-Encoding": "gzip"}, gzip.compress),
    ("gzip type", {"Content-Type": "application/gzip"}, gzip.compress),
    ("zstd encoding", {"Content-Encoding": "zstd"}, zstandard.ZstdCompressor().compress),
    ("zstd type", {"Content-Type": "application/zstd"}, zstandard.ZstdCompressor().compress),
]


@pytest.mark.parametrize(("what", "headers", "pack"), _PACKED, ids=[row[0] for row in _PACKED])
async def test_every_line_is_in_the_ledger_in_order_and_a_second_import_adds_nothing(
    http: httpx2.AsyncClient, what: str, headers: dict[str, str], pack: Callable[[bytes], bytes]
) -> None:
    body = lines(1300)
    first = (await http.post(_PATH, content=pack(body), headers=headers)).json()
    again = (await http.post(_PATH, content=pack(body), headers=headers)).json()
    assert (first["lines"], first["created"], first["bytes"]) == (1300, 1300, len(body)), what
    assert (again["lines"], again["created"], again["duplicate"]) == (1300, 0, 1300)
    assert first["complete"]
    assert first["last_position"] == again["last_position"]
    assert await stored(http) == [f"e{number}" for number in range(1300)]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress], ids=["gzip", "zstd"])
async def test_files_compressed_in_parts_and_put_together_are_read_to_their_end(
    http: httpx2.AsyncClient, pack: Callable[[bytes], bytes]
) -> None:
    encoding = "gzip" if pack is gzip.compress else "zstd"
    body = pack(lines(10)) + pack(lines(10, 10))
    answer = await http.post(_PATH, content=body, headers={"Content-Encoding": encoding})
    assert answer.json()["created"] == 20


async def test_wrong_lines_are_counted_and_shown_and_cost_no_other(http: httpx2.AsyncClient) -> None:
    await http.post("/v1/events", json=event(1))
    body = lines(3) + b"\n" + orjson.dumps(event(1, payload="other")) + b"\n" + orjson.dumps([1]) + b"\n"
    body += orjson.dumps(event(7, occurred_at="2026-09-01T09:00:00")) + b"\n" + orjson.dumps(event(8))
    summary = (await http.post(_PATH, content=body)).json()
    counts = {name: summary[name] for name in ("lines", "created", "duplicate", "conflict", "invalid")}
    assert counts == {"lines": 7, "created": 3, "duplicate": 1, "conflict": 1, "invalid": 2}
    assert [(error["line"], error["pointer"]) for error in summary["first_errors"]] == [
        (5, "/event_id"), (6, ""), (7, "/occurred_at"),
    ]  # fmt: skip
    assert all(error["detail"] and error["remedy"] for error in summary["first_errors"])
    assert not summary["complete"]
    assert await stored(http) == ["e1", "e0", "e2", "e8"]


async def test_lines_without_an_id_are_imported_once_too_and_equal_ones_each(http: httpx2.AsyncClient) -> None:
    nameless = event(1)
    del nameless["event_id"]
    body = (orjson.dumps(nameless) + b"\n") * 3
    first = (await http.post(_PATH, content=body)).json()
    again = (await http.post(_PATH, content=body)).json()
    assert (first["created"], again["created"], again["duplicate"]) == (3, 0, 3)


_GZIP, _ZSTD = {"Content-Encoding": "gzip"}, {"Content-Encoding": "zstd"}
_BROKEN: list[tuple[str, bytes, dict[str, str], int, str, int]] = [
    ("a line that is not JSON", lines(700) + b"{nope}\n" + lines(5, 700), {}, 701, "not JSON", 700),
    ("a cut-off last line", lines(700) + b'{"event_id": "e7', {}, 701, "not JSON", 700),
    ("damaged gzip", gzip.compress(lines(3)) + b"\x1f\x8b\x08garbage" * 9, _GZIP, 4, "damaged", 3),
    ("no gzip at all", lines(3), _GZIP, 1, "damaged", 0),
    ("damaged zstd", zstandard.compress(lines(3)) + b"garbage" * 9, _ZSTD, 4, "damaged", 3),
    ("cut-off zstd", zstandard.compress(lines(3))[:-9], _ZSTD, 1, "cut off", 0),
]


@pytest.mark.parametrize(("what", "body", "headers", "line", "said", "kept"), _BROKEN, ids=[row[0] for row in _BROKEN])
async def test_a_body_that_breaks_keeps_what_was_before_and_names_the_line(
    http: httpx2.AsyncClient, what: str, body: bytes, headers: dict[str, str], line: int, said: str, kept: int
) -> None:
    answer = await http.post(_PATH, content=body, headers=headers)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (400, "broken-body"), what
    assert problem["line"] == line
    assert f"line {line}" in problem["detail"]
    assert said in problem["detail"]
    assert problem["summary"]["created"] == kept
    assert len(await stored(http)) == kept


async def test_cut_off_gzip_keeps_the_whole_lines_that_came(http: httpx2.AsyncClient) -> None:
    packed = gzip.compress(lines(5000))
    answer = await http.post(_PATH, content=packed[: len(packed) // 2], headers={"Content-Encoding": "gzip"})
    problem = answer.json()
    assert (problem["code"], "cut off" in problem["detail"]) == ("broken-body", True)
    kept = await stored(http)
    assert 1000 < len(kept) == problem["summary"]["created"] == problem["line"] - 1 < 5000


async def test_a_sender_that_goes_away_leaves_the_whole_lines_it_sent(
    service: Service, http: httpx2.AsyncClient
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield lines(750) + b'{"event_id": "half'
        await until(_has(http, "e499"))  # the first batch is in: the rest is on its way
        raise ConnectionResetError("the sender's cable")

    async with service.client() as sender:
        with pytest.raises(ConnectionResetError):
            await sender.post(_PATH, content=body())
    await until(_has(http, "e749"))
    assert len(await stored(http)) == 750


def _has(http: httpx2.AsyncClient, event_id: str) -> Callable[[], Any]:
    async def there() -> bool:
        return (await http.get(f"/v1/events/{event_id}")).status_code == 200

    return there


def _zstd_of_zeros(size: int) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(bytes(size))


_BOMBS: list[tuple[str, bytes, str]] = [
    ("gzip of zeros", gzip.compress(lines(2)) + gzip.compress(bytes(200_000_000), 1), "gzip"),
    ("zstd of zeros", zstandard.compress(lines(2)) + _zstd_of_zeros(1_000_000_000), "zstd"),
    ("zstd of empty lines", zstandard.compress(lines(2)) + zstandard.compress(b"\n" * 200_000_000), "zstd"),
]


@pytest.mark.parametrize(("what", "body", "encoding"), _BOMBS, ids=[row[0] for row in _BOMBS])
async def test_a_bomb_is_refused_and_what_was_before_it_is_kept(
    http: httpx2.AsyncClient, what: str, body: bytes, encoding: str
) -> None:
    answer = await http.post(_PATH, content=body, headers={"Content-Encoding": encoding})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (413, "too-large"), what
    assert "CG_IMPORTS__" in problem["detail"]
    assert problem["summary"]["created"] == 2
    assert problem["summary"]["bytes"] < 100_000_000
    assert await stored(http) == ["e0", "e1"]


async def test_an_encoding_that_is_not_known_is_refused_before_anything_is_read(http: httpx2.AsyncClient) -> None:
    answer = await http.post(_PATH, content=lines(1), headers={"Content-Encoding": "br"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-encoding")
    assert answer.headers["accept-encoding"] == "gzip, zstd, identity"


async def test_whoever_asks_for_lines_gets_progress_and_the_summary_last(http: httpx2.AsyncClient) -> None:
    gate = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield lines(1000)
        await gate.wait()
        yield lines(1000, 1000) + b"{nope}"

    async def open_gate() -> None:
        await until(_has(http, "e499"))
        gate.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(open_gate())
        answer = await http.post(_PATH, content=body(), headers={"Accept": "application/x-ndjson"})
    told = [orjson.loads(line) for line in answer.content.splitlines()]
    assert answer.status_code == 200
    assert [line["finished"] for line in told] == [False] * (len(told) - 1) + [True]
    assert told[-1]["created"] == 2000
    assert (told[-1]["problem"]["code"], told[-1]["problem"]["line"]) == ("broken-body", 2001)


async def test_fifty_thousand_lines_need_no_more_memory_than_five_thousand(tmp_path: Path, redis_url: str) -> None:
    async with api_process(tmp_path, redis_url) as api:
        after_few = await _imported(api, 5_000)
        after_many = await _imported(api, 50_000)
    grown = after_many - after_few
    assert grown < 8 * 1024 * 1024, f"{grown:,} bytes more at the peak"


async def _imported(api: ApiProcess, count: int) -> int:
    """Import that many events, made while they are sent; the peak of the process' memory, bytes."""
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for first in range(0, count, 500):
            piece = lines(500, first)
            sent += len(piece)
            yield piece

    async with api.client() as http:
        summary = (await http.post(_PATH, content=body())).json()
    assert (summary["lines"], summary["bytes"]) == (count, sent)
    assert summary["created"] + summary["duplicate"] == count
    return api.peak_bytes()
