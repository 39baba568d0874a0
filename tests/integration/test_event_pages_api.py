"""Reading the ledger in pages: filters, both directions, cursors that hold while events come in, bounded reading."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from context_graph.bootstrap import open_resources
from tests.events import event, post_all
from tests.service import Service

Query = dict[str, Any]


async def read(http: httpx2.AsyncClient, query: Query) -> dict[str, Any]:
    answer = await http.get("/v1/events", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def all_ids(http: httpx2.AsyncClient, query: Query) -> list[str]:
    """Ids of every page."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await read(http, query | cursor)
        found += [item["event_id"] for item in page["events"]]
        if page["page"]["next_cursor"] is None:
            return found
        cursor = {"cursor": page["page"]["next_cursor"]}


@asynccontextmanager
async def tenant_of(service: Service, buckets: int) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_resources(service.settings) as resources:
        tenant = await resources.tenants.ensure(f"t{secrets.token_hex(6)}", buckets)
        key = await resources.api_keys.create(tenant.name, name="test")
    async with service.client(key) as http:
        yield http


def varied(number: int) -> dict[str, Any]:
    return event(
        number,
        session_id=f"s{number % 4}",
        agent_id=f"a{number % 3}",
        event_type=("user.message", "tool.call", "agent.message")[number % 3],
        **({"user_id": f"u{number % 5}"} if number % 2 else {}),
        **({"tool_name": "refund", "status": "failed" if number % 6 == 1 else "completed"} if number % 3 == 1 else {}),
        **({"trace_id": "t1"} if number < 30 else {}),
    )


_FILTERS: list[tuple[str, Query, Any]] = [
    ("type", {"event_type": "tool.call"}, lambda e: e["event_type"] == "tool.call"),
    ("two types", {"event_type": ["tool.call", "user.message"]}, lambda e: e["event_type"] != "agent.message"),
    ("agent", {"agent_id": "a2"}, lambda e: e["agent_id"] == "a2"),
    ("user", {"user_id": "u3"}, lambda e: e.get("user_id") == "u3"),
    ("tool and status", {"tool_name": "refund", "status": "failed"}, lambda e: e.get("status") == "failed"),
    ("origin, told by the type", {"origin": "tool"}, lambda e: e["event_type"] == "tool.call"),
    ("trace", {"trace_id": "t1"}, lambda e: e.get("trace_id") == "t1"),
    ("session and type", {"session_id": "s1", "event_type": "tool.call"},
     lambda e: e["session_id"] == "s1" and e["event_type"] == "tool.call"),
    ("time", {"occurred_from": "2026-09-01T09:00:10Z", "occurred_to": "2026-09-01T11:00:50+02:00"},
     lambda e: "2026-09-01T09:00:10Z" <= e["occurred_at"] < "2026-09-01T09:00:50Z"),
]  # fmt: skip


@pytest.mark.parametrize("buckets", [1, 3])
async def test_filters_leave_what_fits_in_either_direction(service: Service, buckets: int) -> None:
    async with tenant_of(service, buckets) as http:
        sent = [varied(number) for number in range(120)]
        for one in range(0, 120, 10):
            await post_all(http, sent[one : one + 10])
        order = {e["event_id"]: e["position"] for e in (await read(http, {"limit": 1000}))["events"]}
        assert len(order) == 120
        for what, query, fits in _FILTERS:
            expected = sorted((e["event_id"] for e in sent if fits(e)), key=list(order).index)
            assert expected, what
            assert await all_ids(http, query | {"limit": 7}) == expected, what
            assert await all_ids(http, query | {"limit": 7, "order": "desc"}) == expected[::-1], what


@pytest.mark.parametrize("buckets", [1, 3])
async def test_positions_bound_a_page_on_both_sides(service: Service, buckets: int) -> None:
    async with tenant_of(service, buckets) as http:
        await post_all(http, [event(number, session_id=f"s{number % 7}") for number in range(60)])
        everything = (await read(http, {"limit": 1000}))["events"]
        ids = [one["event_id"] for one in everything]
        bounds = {"after": everything[10]["position"], "before": everything[50]["position"], "limit": 9}
        assert await all_ids(http, bounds) == ids[11:50]
        assert await all_ids(http, bounds | {"order": "desc"}) == ids[11:50][::-1]


@pytest.mark.parametrize("buckets", [1, 3])
async def test_pages_neither_skip_nor_repeat_while_events_come_in(service: Service, buckets: int) -> None:
    async with tenant_of(service, buckets) as http:
        await post_all(http, [event(number, session_id=f"s{number % 7}") for number in range(50)])
        before = {f"e{number}" for number in range(50)}
        for order in ("asc", "desc"):
            seen: list[str] = []
            cursor: Query = {}
            arriving = 1000 if order == "asc" else 2000
            while True:
                page = await read(http, {"order": order, "limit": 10} | cursor)
                seen += [one["event_id"] for one in page["events"]]
                if page["page"]["next_cursor"] is None:
                    break
                cursor = {"cursor": page["page"]["next_cursor"]}
                if len(seen) < 60:
                    await post_all(http, [event(arriving + n, session_id=f"s{n}") for n in range(3)])
                    arriving += 3
            assert len(seen) == len(set(seen))
            if order == "asc":
                assert len(seen) > 60
                before |= set(seen)
            else:
                assert set(seen) == before


async def test_a_cursor_belongs_to_its_query_and_its_tenant(service: Service, http: httpx2.AsyncClient) -> None:
    await post_all(http, [event(number) for number in range(20)])
    query: Query = {"event_type": "user.message", "limit": 5}
    cursor = (await read(http, query))["page"]["next_cursor"]
    for same in ({"cursor": cursor, "limit": 3}, {"after": cursor, "limit": 3}):
        assert [e["event_id"] for e in (await read(http, query | same))["events"]] == ["e5", "e6", "e7"]
    late = {"occurred_to": "2027-01-01T00:00:00Z"}
    others: list[Query] = [{"event_type": "tool.call"}, {"order": "desc"}, {"session_id": "s1"}, late]
    for other in others:
        refused = await http.get("/v1/events", params=query | other | {"cursor": cursor})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/cursor")
    for broken in (cursor[:-3], "W10", "x" * 50, cursor + "é"):
        refused = await http.get("/v1/events", params=query | {"cursor": broken})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/cursor"), broken
    async with tenant_of(service, 1) as stranger:
        refused = await stranger.get("/v1/events", params=query | {"cursor": cursor})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/cursor")


async def test_a_filter_that_nothing_passes_reads_a_bounded_part_and_says_where_to_go_on(
    service: Service, http: httpx2.AsyncClient
) -> None:
    most = service.settings.reads.max_scanned_events
    count = most + 1500
    for first in range(0, count, 1000):
        await post_all(http, [event(number) for number in range(first, min(count, first + 1000))])
    await post_all(http, [event(count, event_type="rare.event")])
    page = await read(http, {"event_type": "rare.event"})
    assert (page["events"], page["meta"]["scanned"]) == ([], most)
    rest = await read(http, {"event_type": "rare.event", "cursor": page["page"]["next_cursor"]})
    assert [one["event_id"] for one in rest["events"]] == [f"e{count}"]
    assert rest["page"]["next_cursor"] is None


@pytest.mark.parametrize(("query", "pointer"), [
    ({"after": "nowhere"}, "/cursor"),
    ({"after": "1-2"}, "/after"),
    ({"after": "5-1-1"}, "/after"),
    ({"before": "soon"}, "/before"),
    ({"occurred_from": "2026-09-01T09:00:00"}, "/occurred_from"),
    ({"status": "done"}, "/status/0"),
    ({"order": "up"}, "/order"),
    ({"limit": "0"}, "/limit"),
    ({"flavour": "mint"}, "/flavour"),
])  # fmt: skip
async def test_a_wrong_query_names_the_parameter(http: httpx2.AsyncClient, query: Query, pointer: str) -> None:
    answer = await http.get("/v1/events", params=query)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
