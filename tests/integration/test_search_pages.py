"""Pages of a search have no gap and no repeat, however many matching events come in meanwhile."""

from __future__ import annotations

import random
from typing import Any

import httpx2
import pytest

from tests.events import event, post_all, settled

WORDS = "parcel parcels refund courier office label".split()


async def _come_in(http: httpx2.AsyncClient, chance: random.Random, name: str, count: int) -> list[dict[str, Any]]:
    return await post_all(
        http,
        [
            event(n, event_id=f"{name}{n}", payload={"text": " ".join(chance.choices(WORDS, k=6)) + f" {name} {n}"})
            for n in range(count)
        ],
    )


async def _paged_while_events_come_in(
    http: httpx2.AsyncClient, body: dict[str, Any], chance: random.Random
) -> list[str]:
    """The ids on all pages of a search, with events between the first of them."""
    paged: list[str] = []
    cursor: str | None = None
    for page in range(20):
        asked = body | {"limit": 7} | ({"cursor": cursor} if cursor else {})
        answer = (await http.post("/v1/search", json=asked)).json()
        paged += [one["id"] for one in answer["results"]]
        cursor = answer["page"]["next_cursor"]
        if not cursor:
            break
        if page < 3:
            await settled(http, await _come_in(http, chance, f"new{page}-", 15))
    return paged


@pytest.mark.parametrize("mode", ["keyword", "hybrid"])
async def test_pages_as_of_a_position_have_no_gap_and_no_repeat_while_events_come_in(
    http: httpx2.AsyncClient, mode: str
) -> None:
    chance = random.Random(mode)
    old = await _come_in(http, chance, "old", 50)
    await settled(http, old)
    body: dict[str, Any] = {"query": "parcels refund", "mode": mode, "as_of": old[-1]["position"]}
    whole = (await http.post("/v1/search", json=body | {"limit": 60})).json()["results"]
    paged = await _paged_while_events_come_in(http, body, chance)
    assert len(paged) == len(set(paged))
    assert paged == [one["id"] for one in whole]
    assert len(paged) >= 30


@pytest.mark.parametrize("mode", ["keyword", "hybrid"])
async def test_pages_without_as_of_have_no_gap_and_no_repeat_while_events_come_in(
    http: httpx2.AsyncClient, mode: str
) -> None:
    chance = random.Random(mode)
    old = await _come_in(http, chance, "old", 50)
    await settled(http, old)
    body: dict[str, Any] = {"query": "parcels refund", "mode": mode}
    whole = (await http.post("/v1/search", json=body | {"limit": 60})).json()["results"]
    paged = await _paged_while_events_come_in(http, body, chance)
    assert len(paged) == len(set(paged))
    assert set(paged) == {one["id"] for one in whole}
    assert len(paged) >= 30


async def test_a_cursor_goes_on_with_its_own_search_alone(http: httpx2.AsyncClient) -> None:
    await settled(http, await _come_in(http, random.Random(1), "one", 20))
    body: dict[str, Any] = {"query": "parcels", "mode": "keyword", "limit": 2}
    cursor = (await http.post("/v1/search", json=body)).json()["page"]["next_cursor"]
    assert (await http.post("/v1/search", json=body | {"limit": 5, "cursor": cursor})).status_code == 200
    for other in ({"query": "refund"}, {"mode": "hybrid"}, {"filters": {"agent_id": {"eq": "support"}}}):
        answer = await http.post("/v1/search", json=body | other | {"cursor": cursor})
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == "/cursor"
    assert (await http.post("/v1/search", json=body | {"cursor": "2.50"})).status_code == 422
