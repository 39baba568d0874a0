"""On the sample, at every budget: what a tool was asked and what it answered come together or not at all."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import httpx2

from tests.events import post_all, settled
from tests.ledger_events import ndjson

QUESTIONS = ("what caused the checkout failures?", "refund flight", "stove promise", "timeout at Paylane")
BUDGETS = (100, 600, 4000)


async def test_no_half_of_a_call_and_its_result_is_served_alone(http: httpx2.AsyncClient) -> None:
    folder = files("context_graph.local").joinpath("sample")
    events = [raw for name in ("support.ndjson", "coding.ndjson") for raw in ndjson(folder.joinpath(name).read_text())]
    await settled(http, await post_all(http, events))
    result_of = {_call_of(e): e["event_id"] for e in events if e["event_type"] == "tool.result"}
    call_of = {result: call for call, result in result_of.items()}
    pairs = 0
    for query in QUESTIONS:
        for budget in BUDGETS:
            answer: Any = (await http.post("/v1/context", json={"query": query, "token_budget": budget})).json()
            served = {i for item in answer["items"] if item["kind"] == "event" for i in item["event_ids"]}
            halves = {half: other for half in served if (other := result_of.get(half) or call_of.get(half))}
            assert set(halves.values()) <= served, (query, budget, halves)
            pairs += len(halves)
    assert pairs > 50


def _call_of(result: dict[str, Any]) -> str:
    return str(result.get("parent_event_id") or result["caused_by"][0])
