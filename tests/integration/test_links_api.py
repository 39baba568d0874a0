"""SIMILAR_TO, RELATED_TO and SAME_AS in graph queries: from both ends, scored, bounded, as of any position."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from context_graph.domain.edges import EDGE_TYPES, LINKS
from tests.events import event, post_all, settled
from tests.integration.test_graph_api import ask

TEXTS = (
    "A man plays the guitar",
    "Shares fell sharply on Monday, wrote anna.bell@example.com",
    "Someone is playing a guitar",
    "anna.bell@example.com asked about order #W7209932",
    "order #W7209932 was sent to anna.bell@example.com",
)
ANNA, ORDER = "email:anna.bell@example.com", "id:w7209932"


@pytest.fixture
async def positions(http: httpx2.AsyncClient) -> list[str]:
    results = await post_all(http, [event(number, payload={"text": text}) for number, text in enumerate(TEXTS)])
    await settled(http, results)
    return [result["position"] for result in results]


async def links(http: httpx2.AsyncClient, start: dict[str, str], kind: str, **body: Any) -> list[dict[str, Any]]:
    found = await ask(http, start=[start], edges=[kind], max_depth=1, **body)
    assert {edge["type"] for edge in found["edges"]} <= {kind}
    names = set(found["nodes"])
    assert all({edge["source"], edge["target"]} <= names for edge in found["edges"])
    assert all(node["provenance"] for node in found["nodes"].values()), "every node names an event that tells of it"
    edges: list[dict[str, Any]] = found["edges"]
    return edges


async def test_similar_events_are_linked_from_both_ends_and_whatever_came_first(
    http: httpx2.AsyncClient, positions: list[str]
) -> None:
    forth = await links(http, {"id": "e0"}, "SIMILAR_TO")
    back = await links(http, {"id": "e2"}, "SIMILAR_TO")
    assert forth == back
    [edge] = forth
    assert {edge["source"], edge["target"]} == {"e0", "e2"}
    assert edge["position"] == positions[2], "the later one's event shows it"
    assert 0.6 < edge["properties"]["score"] <= 1
    assert await links(http, {"id": "e0"}, "SIMILAR_TO", min_score=0.99) == []
    assert await links(http, {"id": "e0"}, "SIMILAR_TO", as_of=positions[1]) == []
    bounded = await ask(http, start=[{"id": "e3"}], edges=["SIMILAR_TO"], max_depth=1, min_score=0, links=1)
    assert len(bounded["nodes"]) == 2
    assert "links" in bounded["meta"]["truncated"], "what was cut is said"


async def test_links_are_looked_for_when_they_are_asked_for(http: httpx2.AsyncClient, positions: list[str]) -> None:
    start = [{"id": "e3"}, {"kind": "entity", "id": ANNA}, {"kind": "session", "id": "s1"}]
    plainly = await ask(http, start=start)
    assert {edge["type"] for edge in plainly["edges"]} & LINKS == set()
    assert {edge["type"] for edge in plainly["edges"]} >= {"IN_SESSION", "REFERENCES", "FOLLOWS"}
    named = await ask(http, start=start, edges=list(EDGE_TYPES))
    assert {edge["type"] for edge in named["edges"]} >= {"SIMILAR_TO", "RELATED_TO"}
    assert {"nodes": named["nodes"], "edges": named["edges"]}.items() <= (await ask(http, start=start, links=5)).items()
    scores = [
        edge["properties"]["score"]
        for edge in (await ask(http, start=start, min_score=0.66))["edges"]
        if edge["type"] in LINKS
    ]
    assert scores and min(scores) >= 0.66
    only = await ask(http, start=start, edges=["REFERENCES"], links=5)
    assert {edge["type"] for edge in only["edges"]} == {"REFERENCES"}, "what is named is meant"


async def test_entities_mentioned_together_are_related_from_both_ends(
    http: httpx2.AsyncClient, positions: list[str]
) -> None:
    listed = (await http.get("/v1/entities")).json()["entities"]
    names = {name["id"] for entity in listed for name in entity["names"]}
    order = next(name for name in names if "7209932" in name)
    forth = await links(http, {"kind": "entity", "id": ANNA}, "RELATED_TO", links=50)
    back = await links(http, {"kind": "entity", "id": order}, "RELATED_TO", links=50)
    [edge] = [one for one in forth if f"entity:{order}" in (one["source"], one["target"])]
    assert edge in back
    assert edge["properties"] == {"score": 0.6667, "events": 2, "event_id": "e4"}
    assert edge["position"] == positions[4]
    [before] = await links(http, {"kind": "entity", "id": order}, "RELATED_TO", as_of=positions[3], min_score=0.5)
    assert (before["properties"]["events"], before["position"]) == (1, positions[3])


async def test_names_that_are_one_thing_are_linked_and_a_decision_is_as_old_as_its_event(
    http: httpx2.AsyncClient, positions: list[str]
) -> None:
    listed = (await http.get("/v1/entities")).json()["entities"]
    order = next(entity["id"] for entity in listed if "7209932" in entity["id"])
    assert await links(http, {"kind": "entity", "id": ANNA}, "SAME_AS") == []
    said = await http.post("/v1/entities/merge", json={"entities": [ANNA, order], "note": "a test"})
    merged = said.json()
    await settled(http, [merged])
    forth = await links(http, {"kind": "entity", "id": ANNA}, "SAME_AS")
    assert forth == await links(http, {"kind": "entity", "id": order}, "SAME_AS")
    [edge] = forth
    assert edge["position"] == merged["position"]
    assert (edge["properties"]["tier"], edge["properties"]["score"]) == ("decided", 1.0)
    assert await links(http, {"kind": "entity", "id": ANNA}, "SAME_AS", as_of=positions[4]) == []
    split = await http.post("/v1/entities/split", json={"entities": [ANNA, order]})
    await settled(http, [split.json()])
    assert await links(http, {"kind": "entity", "id": ANNA}, "SAME_AS") == []
    [again] = await links(http, {"kind": "entity", "id": ANNA}, "SAME_AS", as_of=merged["position"])
    assert again == edge


async def test_names_alike_are_linked_by_their_evidence_since_both_are_known(http: httpx2.AsyncClient) -> None:
    texts = ("we fly to New York tomorrow", "nothing to see", "a hotel in NYC please", "New York is far")
    results = await post_all(http, [event(number, payload={"text": text}) for number, text in enumerate(texts)])
    await settled(http, results)
    [edge] = await links(http, {"kind": "entity", "id": "place:new york"}, "SAME_AS")
    assert edge["position"] == results[2]["position"], "the later of both first mentions"
    assert edge["properties"]["evidence"]
    start = {"kind": "entity", "id": "place:new york"}
    assert await links(http, start, "SAME_AS", as_of=results[1]["position"]) == []


async def test_a_filter_by_entity_means_all_names_that_are_one_thing(
    http: httpx2.AsyncClient, positions: list[str]
) -> None:
    listed = (await http.get("/v1/entities")).json()["entities"]
    order = next(entity["id"] for entity in listed if "7209932" in entity["id"])
    said = await http.post("/v1/entities/merge", json={"entities": [ANNA, order]})
    await settled(http, [said.json()])

    async def found(mode: str, operator: str = "eq", **body: Any) -> set[str]:
        value = order if operator in {"eq", "ne"} else [order]
        asked = {"query": "who asked, and what fell?", "mode": mode, "filters": {"entity": {operator: value}}, **body}
        answer = await http.post("/v1/search", json=asked)
        assert answer.status_code == 200, answer.text
        return {result["id"] for result in answer.json()["results"]}

    assert await found("semantic") == {"e1", "e3", "e4"}, "e1 mentions the other name alone"
    assert {"e1"} <= await found("keyword") <= {"e1", "e3", "e4"}
    assert await found("semantic", "all") == {"e1", "e3", "e4"}
    assert await found("semantic", "ne") == {"e0", "e2"}
    assert await found("semantic", as_of=positions[4]) == {"e3", "e4"}, "before anybody said so"
    body = {"query": "who asked?", "filters": {"entity": {"any": [order]}}}
    items = (await http.post("/v1/context", json=body)).json()["items"]
    assert {item["id"] for item in items} == {"e1", "e3", "e4"}
    start = [{"kind": "session", "id": "s1"}]
    walked = await ask(http, start=start, edges=["IN_SESSION"], filters={"entity": {"eq": order}}, max_depth=1)
    assert {name for name, node in walked["nodes"].items() if node["kind"] == "event"} == {"e1", "e3", "e4"}
