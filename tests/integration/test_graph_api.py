"""Graph queries, impact, sessions and timelines over HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.events import event, post_all, settled
from tests.integration.test_event_pages_api import tenant_of
from tests.integration.test_memory_api import STORY, context
from tests.service import Service

Body = dict[str, Any]


@pytest.fixture
async def story(http: httpx2.AsyncClient) -> httpx2.AsyncClient:
    await settled(http, await post_all(http, STORY))
    return http


async def ask(http: httpx2.AsyncClient, **body: Any) -> Body:
    answer = await http.post("/v1/graph/query", json=body)
    assert answer.status_code == 200, answer.text
    found: Body = answer.json()
    return found


async def get(http: httpx2.AsyncClient, path: str, **params: Any) -> Body:
    answer = await http.get(path, params=params)
    assert answer.status_code == 200, answer.text
    found: Body = answer.json()
    return found


def edges(found: Body, kind: str) -> set[tuple[str, str]]:
    return {(edge["source"], edge["target"]) for edge in found["edges"] if edge["type"] == kind}


async def test_every_edge_at_an_event_is_there_in_its_direction(story: httpx2.AsyncClient) -> None:
    found = await ask(story, start=[{"id": "call"}], max_depth=1)
    assert edges(found, "CAUSED_BY") == {("call", "ask"), ("result", "call")}
    assert edges(found, "FOLLOWS") == {("call", "ask"), ("result", "call")}
    assert edges(found, "IN_SESSION") >= {("call", "session:s1")}
    assert edges(found, "BY_AGENT") >= {("call", "agent:support")}
    assert edges(found, "USED_TOOL") >= {("call", "tool:track_parcel")}
    assert any(source == "call" and target.startswith("entity:") for source, target in edges(found, "REFERENCES"))
    user = await ask(story, start=[{"id": "ask"}], max_depth=1, edges=["ABOUT"])
    assert edges(user, "ABOUT") == {("ask", "user:nadia")}
    for way, expected in (("out", {("call", "ask")}), ("in", {("result", "call")})):
        one = await ask(story, start=[{"id": "call"}], max_depth=1, edges=["CAUSED_BY"], direction=way)
        assert edges(one, "CAUSED_BY") == expected
    for node in found["nodes"].values():
        assert node["provenance"]["event_id"], "every node names an event that tells of it"
        assert "vector" not in str(node)
    assert all(edge["position"] for edge in found["edges"])


async def test_a_walk_starts_from_nodes_of_any_kind(story: httpx2.AsyncClient) -> None:
    members = await ask(story, start=[{"kind": "session", "id": "s1"}], edges=["IN_SESSION"], max_depth=1)
    assert edges(members, "IN_SESSION") == {(e["event_id"], "session:s1") for e in STORY if e["session_id"] == "s1"}
    tool = await ask(story, start=[{"kind": "tool", "id": "track_parcel"}], edges=["USED_TOOL", "CAUSED_BY"])
    assert {"call", "result", "ask", "decision"} <= set(tool["nodes"])
    both = await ask(story, start=[{"kind": "user", "id": "omar"}, {"kind": "agent", "id": "nobody"}], max_depth=1)
    assert edges(both, "ABOUT") == {("other", "user:omar")}
    assert both["meta"]["missing"] == [{"kind": "agent", "id": "nobody"}]
    refused = await story.post("/v1/graph/query", json={"start": [{"kind": "user", "id": "nobody"}]})
    assert refused.status_code == 404


async def test_an_entity_leads_to_the_events_that_mention_it(story: httpx2.AsyncClient) -> None:
    around = await ask(story, start=[{"id": "ask"}], edges=["REFERENCES"], max_depth=1)
    entity = next(target for _, target in edges(around, "REFERENCES") if "7209932" in target)
    start = [{"kind": "entity", "id": entity.removeprefix("entity:")}]
    back = await ask(story, start=start, edges=["REFERENCES"], max_depth=1)
    assert {("ask", entity), ("call", entity)} <= edges(back, "REFERENCES")
    told = next(edge for edge in around["edges"] if edge["target"] == entity)
    assert told["properties"]["count"] >= 1


async def test_bounds_and_filters_hold_and_what_was_cut_is_said(story: httpx2.AsyncClient) -> None:
    shallow = await ask(story, start=[{"id": "answer"}], edges=["CAUSED_BY"], direction="out", max_depth=2)
    assert (set(shallow["nodes"]), shallow["meta"]["truncated"]) == ({"answer", "decision", "result"}, ["depth"])
    whole = await ask(story, start=[{"id": "answer"}], edges=["CAUSED_BY"], direction="out", max_depth=4)
    assert (len(whole["nodes"]), whole["meta"]["truncated"]) == (5, [])
    few = await ask(story, start=[{"kind": "session", "id": "s1"}], edges=["IN_SESSION"], max_nodes=3)
    assert len(few["nodes"]) == 3
    assert "nodes" in few["meta"]["truncated"]
    narrow = await ask(story, start=[{"kind": "session", "id": "s1"}], edges=["IN_SESSION"], fan_out=2, max_depth=1)
    assert set(narrow["nodes"]) == {"session:s1", "answer", "decision"}, "the newest"
    assert narrow["meta"]["truncated"] == ["fan_out"]
    failed = await ask(
        story, start=[{"kind": "session", "id": "s1"}], edges=["IN_SESSION"], max_depth=1,
        filters={"status": {"eq": "failed"}},
    )  # fmt: skip
    assert set(failed["nodes"]) == {"session:s1", "result"}
    for body, pointer in (
        ({"start": []}, "/start"),
        ({"start": [{"kind": "planet", "id": "x"}]}, "/start/0/kind"),
        ({"start": [{"id": "ask"}], "edges": ["LIKES"]}, "/edges/0"),
        ({"start": [{"id": "ask"}], "filters": {"importance": {"gt": 5}}}, "/filters/importance"),
    ):
        refused = await story.post("/v1/graph/query", json=body)
        assert refused.status_code == 422
        assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]


async def test_receipts_are_derived_from_what_they_served(story: httpx2.AsyncClient) -> None:
    served = await context(story, query="parcel refund", session_id="s1")
    receipt_id = served["receipt_id"]
    position = (await get(story, f"/v1/receipts/{receipt_id}"))["position"]
    found = await ask(
        story, start=[{"id": receipt_id}], edges=["DERIVED_FROM"], max_depth=1, min_position=position, wait_ms=10000
    )
    items = {event_id for item in served["items"] for event_id in item["event_ids"]}
    assert edges(found, "DERIVED_FROM") == {(receipt_id, event_id) for event_id in items}
    assert found["nodes"][receipt_id]["kind"] == "receipt"
    back = await ask(story, start=[{"id": "ask"}], edges=["DERIVED_FROM"], direction="in", max_depth=1)
    assert (receipt_id, "ask") in edges(back, "DERIVED_FROM")


async def test_impact_is_what_an_event_led_to(story: httpx2.AsyncClient) -> None:
    found = await get(story, "/v1/events/ask/impact")
    assert found["meta"]["impact"] == {
        "events": 4, "deepest": 4, "sessions": ["s1"], "agents": ["support"], "failed": ["result"],
        "by_type": {"agent.decision": 1, "agent.message": 1, "tool.call": 1, "tool.result": 1},
        "last_occurred_at": "2026-09-01T09:00:05.000Z",
    }  # fmt: skip
    [path] = found["meta"]["paths"]
    assert [step["event_id"] for step in path] == ["ask", "call", "result", "decision", "answer"]
    assert all(step["position"] for step in path)
    assert (await get(story, "/v1/events/answer/impact"))["meta"]["impact"]["events"] == 0
    assert (await story.get("/v1/events/none/impact")).status_code == 404


async def test_a_hub_is_cut_at_its_fan_out_whatever_was_recorded_later(http: httpx2.AsyncClient) -> None:
    early = [event(n + 10, event_id=f"early{n}", caused_by=["hub"]) for n in range(5)]
    first = await post_all(http, [event(1, event_id="hub"), *early])
    late = [event(n, event_id=f"late{n}", caused_by=["hub"], occurred_at="2026-09-01T09:00:02Z") for n in range(40)]
    await settled(http, await post_all(http, late))
    now = await get(http, "/v1/events/hub/lineage", direction="effects", fan_out=5)
    assert set(now["nodes"]) == {"hub", *(f"late{n}" for n in range(5))}
    assert now["meta"]["truncated"] == ["fan_out"]
    then = await get(http, "/v1/events/hub/lineage", direction="effects", fan_out=5, as_of=first[-1]["position"])
    assert set(then["nodes"]) == {"hub", *(f"early{n}" for n in range(5))}
    assert then["meta"]["truncated"] == []


async def test_a_session_says_who_was_in_it_from_when_to_when(story: httpx2.AsyncClient) -> None:
    found = await get(story, "/v1/sessions/s1")
    assert (found["events"], found["agents"], found["users"]) == (5, ["support"], ["nadia"])
    assert (found["tools"], found["event_types"][:2]) == (["track_parcel"], ["user.message", "tool.call"])
    assert (found["first_occurred_at"], found["last_occurred_at"]) == (
        "2026-09-01T09:00:01.000Z", "2026-09-01T09:00:05.000Z",
    )  # fmt: skip
    assert found["summary"] is None
    assert (await story.get("/v1/sessions/nothing")).status_code == 404
    assert [s["session_id"] for s in (await get(story, "/v1/sessions", user_id="omar"))["sessions"]] == ["s2"]
    assert (await get(story, "/v1/sessions", tool_name="refund"))["sessions"] == []
    later = await get(story, "/v1/sessions", active_from="2026-09-01T09:00:06Z")
    assert [s["session_id"] for s in later["sessions"]] == ["s2"]


@pytest.mark.parametrize("buckets", [1, 3])
async def test_session_pages_neither_skip_nor_repeat_while_events_come_in(service: Service, buckets: int) -> None:
    async with tenant_of(service, buckets) as http:
        # Many begin within one millisecond: a batch is recorded at once.
        results = await post_all(http, [event(n, session_id=f"s{n}") for n in range(40)])
        await settled_everywhere(http, results)
        seen: list[str] = []
        cursor: Body = {}
        number = 100
        while True:
            page = await get(http, "/v1/sessions", limit=6, **cursor)
            seen += [session["session_id"] for session in page["sessions"]]
            if page["page"]["next_cursor"] is None:
                break
            cursor = {"cursor": page["page"]["next_cursor"]}
            more = [event(number, session_id=f"s{number % 40}"), event(number + 1, session_id=f"new{number}")]
            await settled_everywhere(http, await post_all(http, more))
            number += 2
        assert sorted(seen) == sorted(f"s{n}" for n in range(40))


async def settled_everywhere(http: httpx2.AsyncClient, results: list[Body]) -> None:
    for bucket in sorted({result["position"].split("-")[0] for result in results}):
        await settled(http, [result for result in results if result["position"].startswith(f"{bucket}-")])


@pytest.mark.parametrize("buckets", [1, 3])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_timeline_pages_neither_skip_nor_repeat_while_events_come_in(
    service: Service, buckets: int, order: str
) -> None:
    async with tenant_of(service, buckets) as http:
        # Times repeat, and do not follow the ledger.
        sent = [event(n * 7 % 20, event_id=f"e{n}", session_id=f"s{n % 5}") for n in range(60)]
        results = await post_all(http, sent)
        await settled_everywhere(http, results)
        whole = (await get(http, "/v1/timeline", agent_id="support", limit=200))["events"]
        keys = [(e["occurred_at"], [int(p) for p in e["position"].split("-")]) for e in whole]
        assert keys == sorted(keys, key=lambda k: (k[0], k[1][1], k[1][2], k[1][0]))
        seen: list[str] = []
        cursor: Body = {}
        number = 100
        while True:
            page = await get(http, "/v1/timeline", agent_id="support", order=order, limit=7, **cursor)
            seen += [e["event_id"] for e in page["events"]]
            if page["page"]["next_cursor"] is None:
                break
            cursor = {"cursor": page["page"]["next_cursor"]}
            more = [event(number % 20, event_id=f"e{number + k}", session_id=f"s{k}") for k in range(3)]
            await settled_everywhere(http, await post_all(http, more))
            number += 3
        assert len(seen) == len(set(seen))
        expected = [e["event_id"] for e in (whole if order == "asc" else whole[::-1])]
        assert [name for name in seen if int(name[1:]) < 100] == expected


async def test_a_timeline_is_bounded_by_times_and_belongs_to_one_thing(story: httpx2.AsyncClient) -> None:
    times = {"occurred_from": "2026-09-01T09:00:02Z", "occurred_to": "2026-09-01T09:00:05Z"}
    for order in ("asc", "desc"):
        seen: list[str] = []
        cursor: Body = {}
        while True:
            page = await get(story, "/v1/timeline", session_id="s1", order=order, limit=2, **times, **cursor)
            seen += [e["event_id"] for e in page["events"]]
            if page["page"]["next_cursor"] is None:
                break
            cursor = {"cursor": page["page"]["next_cursor"]}
        assert seen == (["call", "result", "decision"] if order == "asc" else ["decision", "result", "call"])
    for params in ({}, {"session_id": "s1", "agent_id": "support"}, {"session_id": "s1", "occurred_to": "noon"}):
        assert (await story.get("/v1/timeline", params=params)).status_code == 422
    tool = await get(story, "/v1/timeline", tool_name="track_parcel")
    assert [e["event_id"] for e in tool["events"]] == ["call", "result"]
