"""Events near an event in meaning: from both ends, later ones included, nobody else's."""

from __future__ import annotations

from typing import Any

import httpx2

from context_graph.bootstrap import open_resources
from tests.events import event, post_all, settled
from tests.service import Service

TEXTS = ("A man plays the guitar", "Shares fell sharply on Monday", "Someone is playing a guitar")


async def similar(http: httpx2.AsyncClient, event_id: str, **query: Any) -> dict[str, Any]:
    answer = await http.get(f"/v1/events/{event_id}/similar", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_an_edge_is_seen_from_both_ends_and_when_the_other_came_later(http: httpx2.AsyncClient) -> None:
    first = [event(number, payload={"text": text}) for number, text in enumerate(TEXTS[:2])]
    await settled(http, await post_all(http, first))
    assert (await similar(http, "e0"))["edges"] == []
    await settled(http, await post_all(http, [event(2, payload={"text": TEXTS[2]})]))
    [forth] = (await similar(http, "e0"))["edges"]
    [back] = (await similar(http, "e2"))["edges"]
    assert (forth["source"], forth["target"], forth["type"]) == ("e0", "e2", "SIMILAR_TO")
    assert (back["source"], back["target"]) == ("e2", "e0")
    assert abs(forth["properties"]["score"] - back["properties"]["score"]) < 1e-3
    assert forth["position"] == back["position"]
    assert (await similar(http, "e0"))["nodes"]["e2"]["attributes"]["keywords"] == ["someone", "playing", "guitar"]
    everything = await similar(http, "e0", threshold=0)
    assert everything["edges"][0]["target"] == "e2"
    assert "e0" not in [edge["target"] for edge in everything["edges"]]
    assert everything["meta"] == {"root": "e0", "complete": True, "as_of": None}
    assert len((await similar(http, "e0", threshold=0, limit=1))["edges"]) == 1


async def test_what_is_not_there_and_what_is_anothers_is_unknown(http: httpx2.AsyncClient, service: Service) -> None:
    await settled(http, await post_all(http, [event(0, payload={"text": TEXTS[0]})]))
    assert (await http.get("/v1/events/nothing/similar")).status_code == 404
    assert (await http.get("/v1/events/e0/similar", params={"limit": 0})).status_code == 422
    async with open_resources(service.settings) as resources:
        other = await resources.tenants.ensure(f"{service.tenant}-other", 1)
        key = await resources.api_keys.create(other.name, name="stranger")
    async with service.client(key) as stranger:
        assert (await stranger.get("/v1/events/e0/similar")).status_code == 404
