"""Laws of working memory over HTTP: whatever is asked, nothing outside the filters, nothing without its source, nothing
over the budget, and the receipt gives the very bytes again."""

from __future__ import annotations

from typing import Any

import httpx2
import hypothesis
import pytest
from hypothesis import strategies as st

from tests.events import event, post_all, settled
from tests.service import Service

TYPES = ("user.message", "agent.message", "tool.call", "tool.result")
QUERIES = ("where is the blue parcel?", "why was the refund late", "nadia", "", "what did omar say last week")
CONDITIONS: dict[str, tuple[str, ...]] = {
    "agent_id": ("nadia", "omar", "nobody"),
    "session_id": ("s0", "s1", "s2"),
    "user_id": ("lena", "maria"),
    "event_type": TYPES,
}
Condition = tuple[str, str, str]
"""Field, operator, value."""
ONE = st.one_of(
    *(
        st.tuples(st.just(field), st.sampled_from(["eq", "ne", "any"]), st.sampled_from(values))
        for field, values in CONDITIONS.items()
    )
)
FILTERS = st.lists(ONE, max_size=2, unique_by=lambda condition: condition[0])
REQUESTS = st.fixed_dictionaries(
    {
        "query": st.sampled_from(QUERIES),
        "format": st.sampled_from(["json", "markdown", "messages", "anthropic"]),
        "tokenizer": st.sampled_from(["o200k_base", "cl100k_base", "claude"]),
        "token_budget": st.integers(16, 900),
    },
    optional={"session_id": st.sampled_from(["s0", "s1"])},
)


@pytest.fixture
async def filled(http: httpx2.AsyncClient) -> None:
    """Sixty turns of two people in three sessions, calls with their results among them."""
    events = []
    for n in range(60):
        kind = TYPES[n % 4]
        text = f"{('The blue parcel', 'A refund', 'That tent: late', 'Nothing')[n % 4]} number {n} " + "and more " * (
            n % 9
        )
        fields: dict[str, Any] = {"event_id": f"e{n}", "event_type": kind, "payload": {"text": text}}
        fields |= {
            "session_id": f"s{n % 3}",
            "agent_id": ("nadia", "omar")[n % 2],
            "user_id": ("lena", "maria")[n // 30],
        }
        if kind.startswith("tool"):
            fields["tool_name"] = "track"
        if kind == "tool.result":
            fields["caused_by"] = [f"e{n - 1}"]
        events.append(event(n, **fields))
    await settled(http, await post_all(http, events))


def _holds(item: dict[str, Any], condition: Condition) -> bool:
    field, operator, value = condition
    return bool(item[field] != value if operator == "ne" else item[field] == value)


@pytest.mark.usefixtures("filled")
def test_a_context_keeps_its_promises_whatever_is_asked(service: Service) -> None:
    with httpx2.Client(base_url=service.url, headers={"X-Engine-API-Key": service.key}, timeout=30) as http:

        @hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)
        @hypothesis.given(REQUESTS, FILTERS)
        def check(body: dict[str, Any], conditions: list[Condition]) -> None:
            filters = {field: {op: [value] if op == "any" else value} for field, op, value in conditions}
            answer = http.post("/v1/context", json={**body, "filters": filters})
            assert answer.status_code == 200, answer.text
            served = answer.json()
            assert served["budget"]["used"] <= body["token_budget"]
            for item in served["items"]:
                assert all(_holds(item, condition) for condition in conditions), "no item outside the filters"
                assert body.get("session_id", item["session_id"]) == item["session_id"]
                assert item["event_ids"], "no item without its source"
                assert all(name.startswith("e") for name in item["event_ids"])
                assert item["position"]
            shares = served["meta"]["channels"].values()
            assert all(0 <= share <= 1 for share in shares)
            assert not shares or abs(sum(shares) - 1) < 0.01
            if body["format"] != "json":
                again = http.get(f"/v1/receipts/{served['receipt_id']}/content").json()
                assert (again["state"], again["content"]) == ("reproduced", served["content"])

        check()
