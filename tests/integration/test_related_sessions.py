"""Sessions that belong together: by names that both mention, from both ends, as of any time, gone with an erasure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx2
import pytest

from context_graph.bootstrap import Resources
from context_graph.resolution.entities import Entities
from context_graph.retrieval.forgotten import ForgottenNodes
from context_graph.retrieval.neighbours import Neighbours
from context_graph.retrieval.related_sessions import RelatedSessions
from context_graph.store.forgotten import Forgotten
from context_graph.store.mentions import Mentions
from context_graph.store.queries import Searcher
from context_graph.store.receipts import ReceiptIndex
from context_graph.store.timelines import Timelines
from tests.events import event, post_all, settled
from tests.forgetting import append, lived
from tests.integration.test_forgetting import HERE, OLD, in_graph, said, told
from tests.integration.test_graph_api import ask

TOLD = {
    "claim": "Order #W7209932 of anna.bell@example.com arrived broken.",
    "refund": "The refund for order #W7209932 was approved.",
    "letter": "We wrote to anna.bell@example.com about spring offers.",
    "other": "Shares fell sharply on Monday.",
    "more": "Also anna.bell@example.com is on the list of people to call.",
}


@pytest.fixture
async def positions(http: httpx2.AsyncClient) -> dict[str, str]:
    events = [
        event(n, session_id=session, user_id=session, payload={"text": text})
        for n, (session, text) in enumerate(TOLD.items())
    ]
    results = await post_all(http, events)
    await settled(http, results)
    return {session: result["position"] for session, result in zip(TOLD, results, strict=True)}


async def related(http: httpx2.AsyncClient, session: str, **asked: Any) -> list[dict[str, Any]]:
    answer = await http.get(f"/v1/sessions/{session}/related", params=asked)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["related"])


async def test_what_few_sessions_mention_ties_more_and_the_evidence_is_named(
    http: httpx2.AsyncClient, positions: dict[str, str]
) -> None:
    found = await related(http, "claim")
    assert [one["session_id"] for one in found] == [
        "refund",
        "letter",
        "more",
    ]  # of two before of three
    assert found[0]["score"] > found[1]["score"] == found[2]["score"]
    [order] = found[0]["entities"]
    assert "7209932" in order["entity"]
    assert order["event_ids"] == ["e0", "e1"]
    assert order["positions"] == [positions["claim"], positions["refund"]]
    [back] = [one for one in await related(http, "refund") if one["session_id"] == "claim"]
    assert (back["score"], back["position"]) == (found[0]["score"], positions["refund"])
    assert await related(http, "other") == []
    assert [one["session_id"] for one in await related(http, "claim", limit=1)] == ["refund"]
    assert await related(http, "claim", min_score=0.99) == []
    assert [one["session_id"] for one in await related(http, "claim", as_of=positions["refund"])] == ["refund"]
    assert (await http.get("/v1/sessions/nobody/related")).status_code == 404


async def test_a_graph_query_follows_them_and_an_erasure_takes_them(
    http: httpx2.AsyncClient, positions: dict[str, str]
) -> None:
    assert positions
    start = [{"kind": "session", "id": "refund"}]
    found = await ask(http, start=start, edges=["RELATED_TO"], max_depth=1)
    [edge] = found["edges"]
    assert {edge["source"], edge["target"]} == {"session:claim", "session:refund"}
    assert edge["position"] == positions["refund"]
    assert "7209932" in edge["properties"]["entities"]
    erased = await http.delete("/v1/sessions/claim?wait_ms=30000")
    assert erased.json()["state"] == "done", erased.text
    assert await related(http, "refund") == []
    assert [one["session_id"] for one in await related(http, "letter")] == ["more"]


async def test_forgotten_sessions_stay_related_by_their_summaries(
    resources: Resources,
) -> None:
    """Two tell the same in the same words, one of something else; of none of them an event is left."""
    await told(resources, count=0)
    for session in ("one", "same", "else"):
        lines = "Ships need repair in spring." if session == "else" else "Parcels went from Lisbon to Porto by train."
        await append(
            resources, HERE, [replace(said(session, i), payload={"text": f"{lines} Round {i}."}) for i in range(8)]
        )
    await lived(resources, HERE, OLD)
    assert await in_graph(resources) == set()
    tenant = await resources.tenants.ensure("default", 1)
    cuts: list[str] = []
    found = await _of(resources).of(tenant, "one", 10, 0.0, None, cut=cuts.append)
    assert [(one.session_id, one.similarity, one.shared) for one in found] == [("same", found[0].score, ())]
    assert 0.99 < found[0].score <= 1
    [back] = await _of(resources).of(tenant, "same", 10, 0.0, None, cut=cuts.append)
    assert (back.session_id, back.score, back.position) == ("one", found[0].score, found[0].position)
    assert cuts == []


def _of(resources: Resources) -> RelatedSessions:
    redis, graph, live = resources.derived_redis, resources.graph, resources.generations.live
    memory = ForgottenNodes(resources.ledger, Forgotten(redis, graph))
    neighbours = Neighbours(graph, Timelines(redis, graph), ReceiptIndex(redis, graph), Mentions(redis, graph), memory)
    entities = Entities(resources.index.entities, resources.ledger, lambda: 0)
    return RelatedSessions(resources.index, Searcher(redis, live), neighbours, entities)
