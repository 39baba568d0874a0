"""Events for tests: the smallest valid ones, and posting them."""

from __future__ import annotations

from typing import Any

import httpx2

_START = "2026-09-01T09:{minute:02d}:{second:02d}Z"


def event(number: int = 0, **fields: Any) -> dict[str, Any]:
    """A valid envelope; `number` orders it in time and names it."""
    base: dict[str, Any] = {
        "event_id": f"e{number}",
        "event_type": "user.message",
        "session_id": "s1",
        "agent_id": "support",
        "occurred_at": _START.format(minute=number // 60 % 60, second=number % 60),
        "payload": {"text": f"message number {number}"},
    }
    return base | fields


async def post_all(http: httpx2.AsyncClient, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Post a batch; every event must be taken. Returns the results."""
    answer = await http.post("/v1/events/batch", json={"events": events})
    assert answer.status_code == 207, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    refused = [result for result in results if result["status"] not in {"created", "duplicate"}]
    assert not refused, refused
    return results


async def settled(http: httpx2.AsyncClient, results: list[dict[str, Any]]) -> None:
    """Return when every stage has passed these results."""
    last = max(results, key=lambda result: [int(part) for part in result["position"].split("-")])
    body = {"query": "", "token_budget": 16, "min_position": last["position"], "wait_ms": 60_000}
    answer = await http.post("/v1/context", json=body)
    assert answer.json()["meta"]["complete"], answer.text
