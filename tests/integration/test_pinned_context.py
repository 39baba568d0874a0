"""Pinned events in working memory: in their scope, within a small share, cited, as of a moment, and reproduced."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from context_graph.bootstrap import open_resources
from context_graph.store.keys import GraphKeys
from context_graph.store.state import StateReader
from projections.fold import fold
from tests.events import event, post_all, settled
from tests.service import Service

Body = dict[str, Any]


@pytest.fixture
async def story(http: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """Two sessions of many lines about parcels, each with a rule about something else."""
    said = [
        event(
            n, session_id=f"s{n % 2}", user_id="nadia" if n % 2 else "omar",
            payload={"text": f"The parcel number {n} to the street of the carrier was sent from the office."},
        )
        for n in range(40)
    ]  # fmt: skip
    rules = [
        event(50 + n, session_id=f"s{n}", user_id="nadia" if n else "omar", payload={"text": f"Speak {tongue} to me."})
        for n, tongue in enumerate(("Danish", "Finnish"))
    ]
    await settled(http, await post_all(http, [*said, *rules]))
    return http


async def pin(http: httpx2.AsyncClient, event_id: str, *, ended: bool = False) -> str:
    answer = await http.request("DELETE" if ended else "POST", f"/v1/events/{event_id}/pin")
    assert answer.status_code == 200, answer.text
    await settled(http, [answer.json()])
    return str(answer.json()["position"])


async def context(http: httpx2.AsyncClient, **asked: Any) -> Body:
    answer = await http.post("/v1/context", json={"query": "which parcel was sent?", "token_budget": 200} | asked)
    assert answer.status_code == 200, answer.text
    body: Body = answer.json()
    assert body["budget"]["used"] <= body["budget"]["limit"]
    return body


def pinned(body: Body) -> list[str]:
    return [item["id"] for item in body["items"] if item["section"] == "pinned"]


async def test_what_is_pinned_has_its_place_in_a_small_budget_of_its_scope(story: httpx2.AsyncClient) -> None:
    assert "e51" not in {item["id"] for item in (await context(story))["items"]}
    await pin(story, "e51")
    body = await context(story)
    assert pinned(body) == ["e51"]
    (item,) = (item for item in body["items"] if item["id"] == "e51")
    assert (item["text"], item["event_ids"]) == ("Speak Finnish to me.", ["e51"])
    assert item["reason"].startswith("pinned")
    assert len(body["items"]) > 3
    assert pinned(await context(story, session_id="s1")) == ["e51"]
    assert pinned(await context(story, user_id="nadia")) == ["e51"]
    for scope in ({"session_id": "s0"}, {"user_id": "omar"}, {"filters": {"session_id": {"eq": "s0"}}}):
        assert pinned(await context(story, **scope)) == []
    assert pinned(await context(story, filters={"kind": {"ne": "event"}})) == []


async def test_pins_are_as_of_a_moment_and_their_receipts_give_the_bytes_back(story: httpx2.AsyncClient) -> None:
    first = await pin(story, "e51")
    second = await pin(story, "e50")
    third = await pin(story, "e51", ended=True)
    assert pinned(await context(story)) == ["e50"]
    assert pinned(await context(story, as_of=third)) == ["e50"]
    assert sorted(pinned(await context(story, as_of=second, token_budget=500))) == ["e50", "e51"]
    assert pinned(await context(story, as_of=first)) == ["e51"]
    for form in ("markdown", "anthropic", "json"):
        body = await context(story, as_of=second, format=form)
        again = (await story.get(f"/v1/receipts/{body['receipt_id']}/content")).json()
        assert (again["state"], again.get("content")) == ("reproduced", body.get("content"))
    assert "## Pinned" in (await context(story, format="markdown"))["content"]
    done = await story.delete("/v1/sessions/s0", params={"wait_ms": 60_000})
    assert done.status_code == 200, done.text
    assert pinned(await context(story)) == []


async def test_many_pins_leave_the_budget_to_what_is_asked_for_and_are_replayed(
    story: httpx2.AsyncClient, service: Service
) -> None:
    for n in range(14):
        await pin(story, f"e{n}")
    body = await context(story, query="Speak Danish", token_budget=400)
    assert body["items"][0]["section"] == "pinned"
    assert body["budget"]["by_section"]["pinned"] <= 400 * 0.5
    assert "e50" in {item["id"] for item in body["items"]}
    assert len(pinned(await context(story, query="Speak Danish", token_budget=4000))) == 10
    async with open_resources(service.settings) as resources:
        tenant = await resources.tenants.ensure(service.tenant, 1)
        (partition,) = tenant.partitions
        await resources.graph.at(9).apply(partition, fold(await resources.ledger.after(partition, None, 1000)))
        found = []
        for generation in (1, 9):
            facts: set[tuple[str, str, int]] = set()
            async for page in StateReader(resources.derived_redis).facts(GraphKeys(partition, generation)):
                facts |= {(f.kind, f.name, f.digest) for f in page if f.kind in ("pinned", "pin decision")}
            found.append(facts)
        await resources.graph.at(9).remove(partition)
    assert len(found[0]) == 28
    assert found[0] == found[1]
