"""Working memory, search and lineage over HTTP, by the contract."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
import tiktoken

from context_graph.models.tokens import open_counter
from tests.events import event, post_all, settled

STORY: list[dict[str, Any]] = [
    event(1, event_id="ask", user_id="nadia", payload={"text": "My blue tent has not arrived, order #W7209932."}),
    event(
        2, event_id="call", event_type="tool.call", tool_name="track_parcel", caused_by=["ask"],
        payload={"arguments": {"order_id": "#W7209932"}},
    ),
    event(
        3, event_id="result", event_type="tool.result", tool_name="track_parcel", caused_by=["call"], status="failed",
        payload={"error": "the carrier's interface timed out after 30 s"},
    ),
    event(
        4, event_id="decision", event_type="agent.decision", caused_by=["result"],
        payload={"text": "Refund the shipping cost of 4.90 EUR because tracking is down."},
    ),
    event(5, event_id="answer", event_type="agent.message", caused_by=["decision"],
          payload={"text": "I refunded your shipping cost, Nadia, and will write when the parcel is found."}),
    event(6, event_id="other", session_id="s2", user_id="omar", payload={"text": "Do you sell climbing ropes?"}),
]  # fmt: skip


@pytest.fixture
async def story(http: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """A client of a tenant in which the story is known to every stage."""
    await settled(http, await post_all(http, STORY))
    return http


async def context(http: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await http.post("/v1/context", json=body)
    assert answer.status_code == 200, answer.text
    served: dict[str, Any] = answer.json()
    return served


async def test_a_question_brings_its_events_with_citations_in_reading_order(story: httpx2.AsyncClient) -> None:
    served = await context(story, query="why was the shipping cost refunded?", token_budget=400, format="markdown")
    ids = [item["id"] for item in served["items"]]
    assert {"decision", "result", "call"} <= set(ids)
    relevant = [item for item in served["items"] if item["section"] == "relevant"]
    assert [item["occurred_at"] for item in relevant] == sorted(item["occurred_at"] for item in relevant)
    for place, item in enumerate(served["items"], 1):
        assert item["ref"] == place
        assert f"[{place}]" in served["content"]
        assert item["event_ids"]
        assert item["position"]
    assert served["meta"]["intents"]["why"] > 0
    assert set(served["meta"]["timings_ms"]) >= {"embed", "candidates", "pack", "total"}


@pytest.mark.parametrize("shape", ["json", "markdown", "messages", "anthropic"])
@pytest.mark.parametrize("budget", [16, 40, 90, 400])
async def test_what_is_served_never_exceeds_the_budget(story: httpx2.AsyncClient, shape: str, budget: int) -> None:
    import orjson

    served = await context(story, query="tent parcel refund", token_budget=budget, format=shape, session_id="s1")
    count = open_counter("o200k_base").count
    if shape == "json":
        # Within it, the same items must fit as markdown would show them.
        twin = await context(story, query="tent parcel refund", token_budget=budget, format="markdown", session_id="s1")
        assert [item["id"] for item in twin["items"]] == [item["id"] for item in served["items"]]
        seen = twin["content"]
    else:
        seen = served["content"] if shape == "markdown" else orjson.dumps(served["content"]).decode()
    used = count(seen) if served["items"] else 0
    assert used == served["budget"]["used"] <= budget
    left_out = served["budget"]["dropped_total"]
    assert left_out == len(served["budget"]["dropped"]) or left_out > 50
    assert all(entry["reason"] for entry in served["budget"]["dropped"])


def test_tokens_are_counted_as_tiktoken_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("litellm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "litellm_core_utils/tokenizers"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    text = "Refund #W7209932: 4.90 € – naïve café, 山, \n\n\tdef f(x): return x  # <|endoftext|>" * 3
    for name in ("o200k_base", "cl100k_base"):
        assert open_counter(name).count(text) == len(tiktoken.get_encoding(name).encode_ordinary(text))


async def test_a_tool_call_is_never_parted_from_its_result(story: httpx2.AsyncClient) -> None:
    for budget in range(16, 200, 12):
        served = await context(story, query="track_parcel carrier timed out", token_budget=budget)
        ids = {item["id"] for item in served["items"]}
        assert ("call" in ids) == ("result" in ids), budget


async def test_a_session_alone_is_the_whole_scope(story: httpx2.AsyncClient) -> None:
    served = await context(story, query="ropes tent", session_id="s1")
    assert {item["session_id"] for item in served["items"]} == {"s1"}
    assert any(item["section"] == "recent" for item in served["items"])


async def test_with_a_user_memory_crosses_sessions_but_not_users(story: httpx2.AsyncClient) -> None:
    served = await context(story, query="tent or ropes", session_id="s3", user_id="nadia")
    assert {item["id"] for item in served["items"]} == {"ask"}


async def test_without_a_query_the_latest_events_are_served(story: httpx2.AsyncClient) -> None:
    served = await context(story, token_budget=60)
    assert served["items"][-1]["id"] == "other"


async def test_an_unknown_session_has_an_empty_memory(story: httpx2.AsyncClient) -> None:
    served = await context(story, query="tent", session_id="nowhere", format="markdown")
    assert served["items"] == []
    assert served["content"] == ""
    assert served["budget"]["used"] == 0


async def test_a_receipt_says_what_was_served(story: httpx2.AsyncClient) -> None:
    served = await context(story, query="refund", token_budget=300, format="markdown")
    receipt = (await story.get(f"/v1/receipts/{served['receipt_id']}")).json()
    assert receipt["origin"] == "derived"
    assert [item["id"] for item in receipt["payload"]["items"]] == [item["id"] for item in served["items"]]
    assert receipt["payload"]["used"] == served["budget"]["used"]
    assert (await story.get("/v1/receipts/ask")).status_code == 404


async def test_receipts_are_not_themselves_remembered(story: httpx2.AsyncClient) -> None:
    first = await context(story, query="an unusual word: zwitterion", token_budget=300)
    receipt = (await story.get(f"/v1/receipts/{first['receipt_id']}")).json()
    served = await context(story, query="zwitterion", min_position=receipt["position"])
    assert all(not item["id"].startswith("receipt-") for item in served["items"])


async def test_as_of_a_position_later_events_are_unknown(story: httpx2.AsyncClient) -> None:
    position = (await story.get("/v1/events/call")).json()["position"]
    served = await context(story, query="refund shipping cost", as_of=position)
    assert {item["id"] for item in served["items"]} <= {"ask", "call"}
    lineage = (await story.get("/v1/events/ask/lineage", params={"as_of": position})).json()
    assert set(lineage["nodes"]) == {"ask", "call"}


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
async def test_search_finds_by_meaning_and_by_words(story: httpx2.AsyncClient, mode: str) -> None:
    found = (await story.post("/v1/search", json={"query": "carrier timed out", "mode": mode, "limit": 3})).json()
    assert found["results"][0]["id"] == "result"
    channels = {name for result in found["results"] for name in result["channels"]}
    asked = {"hybrid": {"vector", "text"}, "semantic": {"vector"}, "keyword": {"text"}}[mode]
    assert channels & {"vector", "text"} == asked


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"tool_name": {"eq": "track_parcel"}}, {"call", "result"}),
        ({"event_type": {"any": ["agent.decision", "agent.message"]}}, {"decision", "answer"}),
        ({"session_id": {"ne": "s1"}}, {"other"}),
        ({"user_id": {"eq": "nadia"}}, {"ask"}),
        ({"status": {"eq": "failed"}}, {"result"}),
        ({"origin": {"eq": "tool"}}, {"call", "result"}),
        ({"entity": {"eq": "id:w7209932"}}, {"ask", "call"}),
        ({"entity": {"all": ["id:w7209932"]}, "event_type": {"eq": "tool.call"}}, {"call"}),
        ({"entity": {"eq": "id:nothing"}}, set()),
        ({"occurred_at": {"between": ["2026-09-01T09:00:02Z", "2026-09-01T09:00:03Z"]}}, {"call", "result"}),
        ({"occurred_at": {"gt": "2026-09-01T09:00:05Z"}, "session_id": {"eq": "s2"}}, {"other"}),
        ({"session_id": {"eq": "*"}}, set()),
        ({"session_id": {"eq": "s1} | @session:{x"}}, set()),
    ],
)
async def test_filters_leave_only_what_they_say(
    story: httpx2.AsyncClient, filters: dict[str, Any], expected: set[str]
) -> None:
    body = {"query": "tent parcel refund ropes", "limit": 50, "filters": filters}
    found = (await story.post("/v1/search", json=body)).json()
    assert {result["id"] for result in found["results"]} == expected
    served = await context(story, query="tent parcel refund ropes", filters=filters)
    assert {item["id"] for item in served["items"]} <= expected


@pytest.mark.parametrize(
    ("filters", "pointer"),
    [
        ({"colour": {"eq": "red"}}, "/filters/colour"),
        ({"status": {"like": "x"}}, "/filters/status/like"),
        ({"status": {"any": "x"}}, "/filters/status/any"),
        ({"occurred_at": {"gt": "yesterday"}}, "/filters/occurred_at/gt"),
        ({"importance": {"gte": "5"}}, "/filters/importance/gte"),
    ],
)
async def test_a_wrong_filter_is_named(http: httpx2.AsyncClient, filters: dict[str, Any], pointer: str) -> None:
    answer = await http.post("/v1/search", json={"query": "x", "filters": filters})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_pages_of_a_search_have_no_gap_and_no_repeat(http: httpx2.AsyncClient) -> None:
    await settled(http, await post_all(http, [event(n, payload={"text": f"parcel {n}"}) for n in range(25)]))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        body = {"query": "parcel", "limit": 10} | ({"cursor": cursor} if cursor else {})
        page = (await http.post("/v1/search", json=body)).json()
        seen += [result["id"] for result in page["results"]]
        cursor = page["page"]["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 25


async def test_lineage_reaches_from_the_effect_to_its_first_cause_and_back(story: httpx2.AsyncClient) -> None:
    causes = (await story.get("/v1/events/answer/lineage", params={"direction": "causes"})).json()
    assert set(causes["nodes"]) == {"answer", "decision", "result", "call", "ask"}
    assert {(edge["source"], edge["target"]) for edge in causes["edges"]} == {
        ("answer", "decision"), ("decision", "result"), ("result", "call"), ("call", "ask"),
    }  # fmt: skip
    assert all(edge["type"] == "CAUSED_BY" and edge["position"] for edge in causes["edges"])
    assert causes["nodes"]["ask"]["provenance"]["session_id"] == "s1"
    effects = (await story.get("/v1/events/ask/lineage", params={"direction": "effects"})).json()
    assert set(effects["nodes"]) == set(causes["nodes"])
    assert causes["meta"]["truncated"] == effects["meta"]["truncated"] == []


async def test_lineage_says_what_its_bounds_cut(story: httpx2.AsyncClient) -> None:
    shallow = (await story.get("/v1/events/answer/lineage", params={"max_depth": 2, "direction": "causes"})).json()
    assert set(shallow["nodes"]) == {"answer", "decision", "result"}
    assert shallow["meta"]["truncated"] == ["depth"]
    few = (await story.get("/v1/events/ask/lineage", params={"max_nodes": 3, "direction": "effects"})).json()
    assert len(few["nodes"]) == 3
    assert "nodes" in few["meta"]["truncated"]


async def test_a_cause_that_comes_later_completes_its_placeholder(http: httpx2.AsyncClient) -> None:
    late = event(9, event_id="effect", caused_by=["cause"])
    await settled(http, await post_all(http, [late]))
    before = (await http.get("/v1/events/effect/lineage")).json()
    assert before["nodes"]["cause"]["kind"] == "placeholder"
    assert [(edge["source"], edge["target"]) for edge in before["edges"]] == [("effect", "cause")]
    await settled(http, await post_all(http, [event(1, event_id="cause")]))
    after = (await http.get("/v1/events/effect/lineage")).json()
    assert after["nodes"]["cause"]["kind"] == "event"
    assert after["edges"] == before["edges"]
    assert (await http.get("/v1/events/cause/lineage")).json()["edges"] == before["edges"]


async def test_words_that_would_end_the_server_are_only_words(story: httpx2.AsyncClient) -> None:
    hostile = [
        "is the friend", "the is", '"', "?", "@text:(x", "*", "a|b", "-", "%x%", "(((", "$vector", "{a}", "[1 2]",
        "=>[KNN 1000 @vec $x]", "\\", "'; FLUSHALL", "a" * 8000, "\x00", "é 山 🏕", "~tent", "t*",
    ]  # fmt: skip
    for text in hostile:
        for mode in ("hybrid", "keyword", "semantic"):
            answer = await story.post("/v1/search", json={"query": text, "mode": mode})
            assert answer.status_code == 200, (text, answer.text)
    assert (await story.get("/health/ready")).status_code == 200


async def test_a_text_that_is_shown_cut_says_how_long_it_is(http: httpx2.AsyncClient) -> None:
    long = "The quarterly parcel ledger begins. " + "Nothing in it is worth a word. " * 400 + "The ledger ends in debt."
    short = "The parcel ledger is short."
    texts = {"long": long, "short": short}
    posted = [event(n, event_id=name, payload={"text": text}) for n, (name, text) in enumerate(texts.items())]
    await settled(http, await post_all(http, posted))
    found = (await http.post("/v1/search", json={"query": "parcel ledger"})).json()["results"]
    served = (await http.post("/v1/context", json={"query": "parcel ledger", "token_budget": 8000})).json()["items"]
    brief = (await http.post("/v1/context", json={"query": "parcel ledger", "token_budget": 400})).json()["items"]
    for items in (found, served, brief):
        by_id = {item["id"]: item for item in items}
        for name, text in texts.items():
            item = by_id[name]
            assert item["characters"] == {"shown": len(item["text"]), "whole": len(text)}
            assert item["cut"] is (name == "long") is (len(item["text"]) < len(text))
