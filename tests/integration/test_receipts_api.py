"""Receipts reproduce what was served; feedback is idempotent; what an agent knew is told from its receipts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import orjson
import pytest

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.partition import Partition
from context_graph.operations import load_verify
from context_graph.store.keys import GraphKeys
from enrichment.reconsolidation.run import consolidate
from tests.events import event, post_all, settled
from tests.graph_state import graph_state
from tests.integration.test_memory_api import STORY, context
from tests.service import Service

Body = dict[str, Any]


@pytest.fixture
async def story(http: httpx2.AsyncClient) -> httpx2.AsyncClient:
    await settled(http, await post_all(http, STORY))
    return http


@pytest.fixture
async def resources(service: Service) -> AsyncIterator[Resources]:
    async with open_resources(service.settings) as opened:
        yield opened


async def get(http: httpx2.AsyncClient, path: str, **params: Any) -> Body:
    answer = await http.get(path, params=params)
    assert answer.status_code == 200, answer.text
    body: Body = answer.json()
    return body


async def receipt_position(http: httpx2.AsyncClient, served: Body) -> str:
    return str((await get(http, f"/v1/receipts/{served['receipt_id']}"))["position"])


@pytest.mark.parametrize("shape", ["json", "markdown", "messages", "anthropic"])
async def test_the_very_bytes_come_back_from_the_ledger_alone(
    story: httpx2.AsyncClient, service: Service, resources: Resources, shape: str
) -> None:
    partition = (await resources.tenants.ensure(service.tenant, 1)).partitions[0]
    long = event(7, event_id="long", payload={"text": "The parcel log. " + "Nothing about it is known. " * 400})
    more = [event(n, event_id=f"more{n}", payload={"text": f"parcel number {n}"}) for n in range(8, 12)]
    await settled(story, await post_all(story, [long, *more]))
    await consolidate(resources, partition, "test")
    last = await resources.ledger.last(partition)
    await settled(story, [{"position": str(last)}])
    served = await context(story, query="parcel refund tent log", session_id="s1", token_budget=1200, format=shape)
    assert any(item["cut"] for item in served["items"])
    assert {item["section"] for item in served["items"]} >= {"summary", "recent"}
    async for key in resources.derived_redis.scan_iter(match=f"{GraphKeys(partition).tag}:*"):
        await resources.derived_redis.delete(key)
    again = await get(story, f"/v1/receipts/{served['receipt_id']}/content")
    assert again["state"] == "reproduced"
    assert again["sha256"]["served"] == again["sha256"]["now"]
    assert orjson.dumps(again.get("content")) == orjson.dumps(served.get("content"))
    for one, other in zip(again["items"], served["items"], strict=True):
        names = ("ref", "id", "kind", "event_ids", "position", "text", "section", "rank", "speaker", "cut")
        assert {name: one[name] for name in names} == {name: other[name] for name in names}


async def test_a_receipt_of_whom_was_erased_says_so(story: httpx2.AsyncClient) -> None:
    served = await context(story, query="blue tent", token_budget=500, format="markdown")
    both = {item["user_id"] for item in served["items"]}
    assert "nadia" in both
    assert (await story.delete("/v1/users/nadia?wait_ms=60000")).json()["state"] == "done"
    again = await get(story, f"/v1/receipts/{served['receipt_id']}/content")
    assert (again["state"], again["items"]) == ("erased", [])
    assert "content" not in again
    assert (await get(story, f"/v1/receipts/{served['receipt_id']}"))["erased"] is True
    refused = await story.post(f"/v1/receipts/{served['receipt_id']}/feedback", json={"useful": []})
    assert (refused.status_code, refused.json()["code"]) == (410, "receipt-erased")
    held = await get(story, "/v1/events/ask/receipts")
    assert [(one["receipt_id"], one["erased"]) for one in held["receipts"]] == [(served["receipt_id"], True)]


async def test_an_event_names_the_contexts_that_held_it(story: httpx2.AsyncClient) -> None:
    about = [await context(story, query="climbing ropes", filters={"session_id": {"eq": "s2"}}) for _ in range(5)]
    other = await context(story, query="parcel refund", session_id="s1")
    position = await receipt_position(story, other)
    seen: list[str] = []
    cursor: Body = {}
    while True:
        page = await get(story, "/v1/events/other/receipts", limit=2, min_position=position, **cursor)
        seen += [receipt["receipt_id"] for receipt in page["receipts"]]
        assert all(receipt["as"][0]["id"] == "other" for receipt in page["receipts"])
        await context(story, query="climbing ropes", filters={"session_id": {"eq": "s2"}})  # comes in meanwhile
        if page["page"]["next_cursor"] is None:
            break
        cursor = {"cursor": page["page"]["next_cursor"]}
    assert seen == [served["receipt_id"] for served in reversed(about)]
    then = await receipt_position(story, about[1])
    before = await get(story, "/v1/events/other/receipts", as_of=then)
    assert [one["receipt_id"] for one in before["receipts"]] == [about[1]["receipt_id"], about[0]["receipt_id"]]
    assert (await story.get("/v1/events/nothing/receipts")).status_code == 404
    wrong = await story.get("/v1/events/ask/receipts", params=cursor)
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/cursor")


async def test_what_an_agent_knew_is_what_it_was_served_before(http: httpx2.AsyncClient) -> None:
    first = [event(1, event_id="ask", payload={"text": "Where is my tent?"}), event(2, event_id="hidden", payload={})]
    await settled(http, await post_all(http, first))
    mine = await context(http, query="tent", session_id="s1", agent_id="support", token_budget=20)
    loose = await context(http, query="tent", agent_id="support", token_budget=20)
    await context(http, query="tent", session_id="s1", agent_id="billing")
    await context(http, query="tent", session_id="s9", agent_id="support")
    late = event(3, event_id="late", payload={"text": "It is red."})
    await post_all(http, [late])
    done = event(4, event_id="done", event_type="agent.decision", payload={"text": "Refund it."})
    [result] = await post_all(http, [done])
    after = await context(http, query="tent", session_id="s1", agent_id="support")
    position = await receipt_position(http, after)
    known = await get(http, "/v1/events/done/context", min_position=position)
    assert [one["receipt_id"] for one in known["receipts"]] == [loose["receipt_id"], mine["receipt_id"]]
    assert [item["id"] for item in known["receipts"][1]["items"]] == [item["id"] for item in mine["items"]]
    assert known["event"]["event_id"] == "done"
    assert [one["event_id"] for one in known["since"]] == ["late"]
    shown = {item["id"] for served in (mine, loose) for item in served["items"]}
    assert [one["event_id"] for one in known["unserved"]] == [name for name in ("hidden", "ask") if name not in shown]
    assert known["unserved"], "the budget leaves one of the two out"
    assert known["meta"]["complete"]
    first_page = await get(http, "/v1/events/done/context", limit=1)
    second = await get(http, "/v1/events/done/context", limit=1, cursor=first_page["page"]["next_cursor"])
    assert [one["receipt_id"] for one in second["receipts"]] == [mine["receipt_id"]]
    assert result["position"] > known["receipts"][0]["position"]


async def say(http: httpx2.AsyncClient, receipt_id: str, **opinion: Any) -> Body:
    answer = await http.post(f"/v1/receipts/{receipt_id}/feedback", json=opinion)
    assert answer.status_code in {200, 201}, answer.text
    body: Body = answer.json()
    return body


async def uses(resources: Resources, partition: Partition, http: httpx2.AsyncClient, recorded: Body) -> dict[str, int]:
    """What each event's feedback comes to, once the stages have passed `recorded`."""
    await settled(http, [recorded])
    state = await graph_state(resources.derived_redis, partition)
    return {key.removeprefix("feedback:"): int(v["uses"]) for key, v in state.items() if key.startswith("feedback:")}


async def test_an_opinion_counts_once_and_the_last_one_holds(
    story: httpx2.AsyncClient, service: Service, resources: Resources
) -> None:
    partition = (await resources.tenants.ensure(service.tenant, 1)).partitions[0]
    one, two = [(await context(story, query="parcel refund", session_id="s1"))["receipt_id"] for _ in range(2)]
    first = await say(story, one, useful=["ask"], not_useful=["call"], note="found it")
    again = await say(story, one, useful=["ask"], not_useful=["call"], note="found it")
    assert (first["status"], again["status"]) == ("created", "duplicate")
    assert again["position"] == first["position"]
    last = await say(story, two, useful=["ask", "answer"])
    assert await uses(resources, partition, story, last) == {"ask": 2, "call": -1, "answer": 1}
    changed = await say(story, one, not_useful=["ask"])
    assert await uses(resources, partition, story, changed) == {"ask": 0, "call": 0, "answer": 1}
    back = await say(story, one, useful=["ask"], not_useful=["call"], note="found it")
    assert back["status"] == "created"
    assert await uses(resources, partition, story, back) == {"ask": 2, "call": -1, "answer": 1}
    nothing = await say(story, one, useful=[])
    assert await uses(resources, partition, story, nothing) == {"ask": 1, "call": 0, "answer": 1}
    many = await asyncio.gather(*(say(story, two, useful=["decision"]) for _ in range(8)))
    assert sorted(answer["status"] for answer in many) == ["created", *["duplicate"] * 7]
    assert len({answer["position"] for answer in many}) == 1


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"useful": ["other"]}, ["/useful/0"]),
        ({"useful": ["ask"], "not_useful": ["ask"]}, ["/not_useful/0"]),
        ({"useful": "ask"}, ["/useful"]),
        ({"liked": ["ask"]}, ["/liked"]),
        ({}, [""]),
    ],
)
async def test_wrong_feedback_is_refused_by_field(story: httpx2.AsyncClient, body: Body, pointers: list[str]) -> None:
    served = await context(story, query="parcel", session_id="s1")
    answer = await story.post(f"/v1/receipts/{served['receipt_id']}/feedback", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers
    assert (await story.post("/v1/receipts/ask/feedback", json={"useful": []})).status_code == 404


async def test_feedback_raises_and_lowers_what_is_remembered(http: httpx2.AsyncClient) -> None:
    week_ago = (datetime.now(UTC) - timedelta(days=7)).isoformat()
    words = ("alder", "birch", "cedar")
    same = [
        event(n, event_id=name, occurred_at=week_ago, payload={"text": f"the parcel went to {name} street"})
        for n, name in enumerate(words)
    ]
    await settled(http, await post_all(http, same))

    async def ranked() -> list[str]:
        items = (await context(http, query="where did the parcel go"))["items"]
        return [item["id"] for item in sorted(items, key=lambda item: item["rank"])]

    before = await ranked()
    served = await context(http, query="where did the parcel go")
    then = await receipt_position(http, served)
    for _ in range(12):
        receipt_id = (await context(http, query="where did the parcel go"))["receipt_id"]
        last = await say(http, receipt_id, useful=[before[2]], not_useful=[before[0]])
    await settled(http, [last])
    items = {item["id"]: item for item in (await context(http, query="where did the parcel go"))["items"]}
    earlier = {item["id"]: item for item in served["items"]}
    assert items[before[2]]["score"] > earlier[before[2]]["score"]
    assert items[before[0]]["score"] < earlier[before[0]]["score"]
    as_it_was = (await context(http, query="where did the parcel go", as_of=then))["items"]
    for item in as_it_was:
        assert item["score"] == pytest.approx(earlier[item["id"]]["score"], abs=1e-4), "feedback came later"


async def test_erasure_takes_opinions_back_and_leaves_what_a_rebuild_would_make(
    story: httpx2.AsyncClient, service: Service, resources: Resources
) -> None:
    partition = (await resources.tenants.ensure(service.tenant, 1)).partitions[0]
    everybody = await context(story, query="tent ropes parcel refund", token_budget=800)
    assert {item["user_id"] for item in everybody["items"]} >= {"nadia", "omar"}
    ropes = await context(story, query="ropes", filters={"session_id": {"eq": "s2"}})
    await say(story, everybody["receipt_id"], useful=["ask", "other"], not_useful=["call"])
    last = await say(story, ropes["receipt_id"], useful=["other"])
    assert await uses(resources, partition, story, last) == {"ask": 1, "other": 2, "call": -1}
    assert (await story.delete("/v1/users/nadia?wait_ms=60000")).json()["state"] == "done"
    state = await graph_state(resources.derived_redis, partition)
    left = {key: value for key, value in state.items() if key.startswith("feedback:")}
    assert {key: value["uses"] for key, value in left.items()} == {"feedback:other": "1"}
    assert "receipts:user:nadia" not in state
    assert list(state["receipts:user:omar"]) == [
        key for key in state["receipts:user:omar"] if ropes["receipt_id"] in key
    ]
    assert "user:nadia" not in state["session:s1"]
    assert "people" not in state[f"event:{everybody['receipt_id']}"]


async def test_what_an_agent_cites_counts_as_use_until_its_event_is_erased(
    story: httpx2.AsyncClient, service: Service, resources: Resources
) -> None:
    partition = (await resources.tenants.ensure(service.tenant, 1)).partitions[0]
    receipt_id = (await context(story, query="parcel refund", session_id="s1"))["receipt_id"]
    answers = [
        event(7, event_id="told", user_id="omar", caused_by=[receipt_id, "ask", "call"]),
        event(8, event_id="again", user_id="nadia", parent_event_id=receipt_id, caused_by=["ask"]),
        event(9, event_id="own", caused_by=["ask", "receipt-12"]),
    ]
    await post_all(story, answers)
    *_, last = await post_all(story, answers)
    assert last["status"] == "duplicate"
    assert await uses(resources, partition, story, last) == {"ask": 2, "call": 1}
    disliked = await say(story, receipt_id, not_useful=["call"])
    assert await uses(resources, partition, story, disliked) == {"ask": 2, "call": 0}
    assert (await story.delete("/v1/users/omar?wait_ms=60000")).json()["state"] == "done"
    state = await graph_state(resources.derived_redis, partition)
    left = {key: value["uses"] for key, value in state.items() if key.startswith("feedback:")}
    assert left == {"feedback:ask": "1", "feedback:call": "-1"}
    report: Any = await load_verify()(resources, await resources.tenants.ensure(service.tenant, 1))
    assert report["equal"] is True, report["differences"]
