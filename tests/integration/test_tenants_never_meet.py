"""Two tenants with the same ids, sessions, users and words: whatever one asks, it never gets a byte of the other's.

The other tenant's texts carry a canary. Every answer is searched for it, as is every answer's list of ids that only
the other has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from context_graph.bootstrap import open_resources
from context_graph.domain.edges import EDGE_TYPES
from context_graph.domain.filters import TAG_FIELDS
from tests.events import event, post_all, settled
from tests.service import Service

SPECIAL = r""",.<>{}[]"':;!@#$%^&*()-+=~|/\?_ """
SESSIONS = ["s1", "*", "s}{", "a|b", "@session:{*}", SPECIAL]
WORDS = "the parcel of nadia has not arrived"


def _events(who: str) -> list[dict[str, Any]]:
    """The same ids and fields for any tenant; what is said, and one id of its own, names whose it is."""
    shared = [
        event(
            number,
            session_id=session,
            user_id=f"nadia{session}",
            agent_id=f"support{session}",
            tool_name=f"track{session}",
            event_type="tool.result",
            status="failed",
            caused_by=[f"e{number - 1}"] if number else [],
            trace_id=f"{who}-trace",
            payload={"result": f"{WORDS} {who}-canary", "session": session},
        )
        for number, session in enumerate(SESSIONS)
    ]
    own = event(50, event_id=f"{who}-own", caused_by=["e0", f"{who}-cause"], payload={"text": f"{WORDS} {who}-canary"})
    return [*shared, own]


@dataclass(frozen=True, slots=True)
class Two:
    """One tenant asks (`http`), the other (`other`) has what must not be seen."""

    http: httpx2.AsyncClient
    other: httpx2.AsyncClient
    positions: dict[str, str]
    """The other tenant's positions by event id."""

    async def ask(self, method: str, path: str, **how: Any) -> httpx2.Response:
        """One question; the answer is 200, 201, 404 or 422 and has nothing of the other's."""
        answer = await self.http.request(method, path, **how)
        assert answer.status_code in {200, 201, 404, 422}, answer.text
        assert b"theirs" not in answer.content, f"{method} {path} {how} showed another tenant's data"
        return answer


@pytest.fixture
async def two(service: Service) -> AsyncIterator[Two]:
    """Both tenants, filled, known to every stage."""
    async with open_resources(service.settings) as resources:
        other = await resources.tenants.ensure(f"{service.tenant}-x", 1)  # its name begins with the first one's
        key = await resources.api_keys.create(other.name, name="test")
    async with service.client() as mine, service.client(key) as theirs:
        results = await asyncio.gather(post_all(theirs, _events("theirs")), post_all(mine, _events("mine")))
        await asyncio.gather(settled(theirs, results[0]), settled(mine, results[1]))
        yield Two(mine, theirs, {result["event_id"]: result["position"] for result in results[0]})


async def test_the_same_ids_are_each_tenants_own(two: Two) -> None:
    for event_id in two.positions:
        answer = await two.ask("GET", f"/v1/events/{event_id}") if "theirs" not in event_id else None
        if answer is not None:
            assert "mine-canary" in answer.text
    assert (await two.http.get("/v1/events/theirs-own")).status_code == 404
    assert (await two.http.get("/v1/events/theirs-own/lineage")).status_code == 404
    assert "theirs-canary" in (await two.other.get("/v1/events/e0")).text, "the canary can be seen by whose it is"


async def test_lists_and_positions_of_another_lead_nowhere(two: Two) -> None:
    for position in two.positions.values():
        await two.ask("GET", "/v1/events", params={"after": position})
        for session in SESSIONS:
            await two.ask("GET", "/v1/events", params={"after": position, "session_id": session, "limit": 2})
    theirs = (await two.other.get("/v1/events", params={"limit": 2})).json()["page"]["next_cursor"]
    await two.ask("GET", "/v1/events", params={"after": theirs})
    await two.ask("GET", "/v1/events", params={"cursor": theirs})
    found = (await two.other.post("/v1/search", json={"query": WORDS, "limit": 1})).json()["page"]["next_cursor"]
    await two.ask("POST", "/v1/search", json={"query": WORDS, "cursor": found})


async def test_no_filter_value_reaches_over(two: Two) -> None:
    values = [*SESSIONS, *(f"{name}{session}" for name in ("nadia", "support", "track") for session in SESSIONS)]
    values += ["tool.result", "failed", "event", "tool", "theirs-own", *SPECIAL]
    for field in TAG_FIELDS:
        bodies = [
            {"query": f"{WORDS} theirs-canary", "mode": mode, "limit": 200, "filters": {field: how}}
            for mode in ("keyword", "semantic")
            for how in ({"any": values}, {"ne": "nobody"}, {"eq": values[0]}, {"all": values[:2]})
        ]
        await asyncio.gather(*(two.ask("POST", "/v1/search", json=body) for body in bodies))


async def test_no_special_character_reaches_over(two: Two) -> None:
    async def check(text: str, filters: dict[str, Any] | None) -> None:
        body = {"query": text, "mode": "keyword", "limit": 200} | ({"filters": filters} if filters else {})
        assert (await two.ask("POST", "/v1/search", json=body)).status_code == 200

    for character in SPECIAL:
        texts = (character, f"{character}theirs{character}canary", f"){character}(*|theirs-canary")
        filters = ({"session_id": {"eq": character}}, {"user_id": {"any": [f"nadia{character}", "nadia"]}}, None)
        await asyncio.gather(*(check(text, chosen) for text in texts for chosen in filters))


@pytest.mark.parametrize("shape", ["json", "markdown", "messages", "anthropic"])
async def test_no_context_holds_anothers_words(two: Two, shape: str) -> None:
    for scope in (
        {},
        {"session_id": "s1"},
        {"user_id": "nadias1"},
        {"session_id": SPECIAL, "user_id": f"nadia{SPECIAL}"},
    ):
        body = {"query": WORDS, "token_budget": 2000, "format": shape, "explain": True, "max_depth": 5} | scope
        answer = await two.ask("POST", "/v1/context", json=body)
        assert "mine-canary" in answer.text or not answer.json()["items"]


async def test_waiting_for_and_looking_back_to_anothers_position_shows_nothing(two: Two) -> None:
    for position in two.positions.values():
        body = {"query": WORDS, "token_budget": 500}
        for more in ({"as_of": position}, {"min_position": position, "wait_ms": 0}):
            await two.ask("POST", "/v1/context", json=body | more)
            await two.ask("POST", "/v1/search", json={"query": WORDS} | more)
        await two.ask("GET", "/v1/events/e3/lineage", params={"as_of": position})


async def test_lineage_stays_at_home_even_where_causes_have_the_same_names(two: Two) -> None:
    for event_id in ("e0", "e3", "mine-own"):
        for direction in ("causes", "effects", "both"):
            params = {"direction": direction, "max_depth": "20"}
            answer = await two.ask("GET", f"/v1/events/{event_id}/lineage", params=params)
            assert answer.status_code == 200
    assert (await two.http.get("/v1/events/theirs-cause/lineage")).status_code == 404


async def test_receipts_are_the_tenants_own(two: Two) -> None:
    served = (await two.other.post("/v1/context", json={"query": WORDS})).json()["receipt_id"]
    assert (await two.other.get(f"/v1/receipts/{served}")).status_code == 200
    for path in (f"/v1/receipts/{served}", f"/v1/events/{served}"):
        refused = await two.http.get(path)
        assert refused.status_code == 404
    assert (await two.other.get(f"/v1/receipts/{served}/content")).json()["state"] == "reproduced"
    assert (await two.http.get(f"/v1/receipts/{served}/content")).status_code == 404
    assert (await two.http.post(f"/v1/receipts/{served}/feedback", json={"useful": ["e0"]})).status_code == 404
    mine = (await two.http.post("/v1/context", json={"query": WORDS})).json()["receipt_id"]
    await two.ask("GET", f"/v1/receipts/{mine}")
    assert "mine-canary" in (await two.ask("GET", f"/v1/receipts/{mine}/content")).text
    answer = await two.http.post(f"/v1/receipts/{mine}/feedback", json={"useful": ["theirs-own"]})
    assert answer.status_code == 422, "an id that only the other has was never served here"


async def test_what_contexts_held_is_told_to_ones_own_tenant_only(two: Two) -> None:
    for client in (two.other, two.http):
        for _ in range(3):
            body = {"query": WORDS, "session_id": "s1", "agent_id": "supports1"}
            receipt = (await client.post("/v1/context", json=body)).json()["receipt_id"]
    position = (await two.other.get(f"/v1/receipts/{receipt}")).json().get("position")
    assert position is None
    for path in ("/v1/events/e0/receipts", "/v1/events/mine-own/context", "/v1/events/e3/context"):
        found = await two.ask("GET", path, params={"limit": 1})
        assert found.status_code == 200
        for receipt in found.json()["receipts"]:
            assert (await two.http.get(f"/v1/receipts/{receipt['receipt_id']}")).status_code == 200
        theirs = (await two.other.get(path.replace("mine", "theirs"), params={"limit": 1})).json()["page"]
        if theirs["next_cursor"] is not None:
            refused = await two.ask("GET", path, params={"limit": 1, "cursor": theirs["next_cursor"]})
            assert refused.status_code == 422
    assert (await two.http.get("/v1/events/theirs-own/receipts")).status_code == 404
    assert (await two.http.get("/v1/events/theirs-own/context")).status_code == 404


async def test_sessions_timelines_and_the_graph_are_ones_own(two: Two) -> None:
    await post_all(two.other, [event(60, session_id="theirs-session", agent_id="theirs-agent")])
    await post_all(two.http, [event(61, session_id="mine-session"), event(62, session_id="mine-session")])
    pages: list[tuple[str, dict[str, str]]] = [
        ("/v1/sessions", {"limit": "1"}),
        ("/v1/timeline", {"agent_id": "support", "limit": "1"}),
        ("/v1/timeline", {"user_id": "nadias1", "limit": "1"}),
    ]
    for path, params in pages:
        await two.ask("GET", path, params=params)
        theirs = (await two.other.get(path, params=params)).json()["page"]["next_cursor"]
        if theirs is not None:
            assert (await two.ask("GET", path, params=params | {"cursor": theirs})).status_code == 422
    for session in SESSIONS:
        await two.ask("GET", f"/v1/sessions/{quote(session, safe='')}")
        await two.ask("GET", "/v1/timeline", params={"session_id": session})
    assert (await two.http.get("/v1/sessions/theirs-session")).status_code == 404
    starts = [{"id": "e0"}, {"id": "e3"}, {"id": "mine-own"}, {"kind": "agent", "id": "theirs-agent"}]
    starts += [{"kind": "session", "id": name} for name in SESSIONS] + [{"kind": "user", "id": "nadias1"}]
    for position in (None, two.positions["e0"]):
        body = {"start": starts[:3] + starts[4:], "max_depth": 4, "edges": list(EDGE_TYPES)} | (
            {"as_of": position} if position else {}
        )
        found = await two.ask("POST", "/v1/graph/query", json=body)
        assert "mine-canary" in found.text or position
    for start in [*starts[3:4], {"id": "theirs-own"}, {"id": "theirs-cause"}]:
        assert (await two.http.post("/v1/graph/query", json={"start": [start]})).status_code == 404
    for event_id in ("e0", "e3"):
        await two.ask("GET", f"/v1/events/{event_id}/impact")
    assert (await two.http.get("/v1/events/theirs-own/impact")).status_code == 404


async def test_a_tail_follows_ones_own_ledger_from_any_place(two: Two) -> None:
    for place in two.positions["e0"], two.positions["theirs-own"], "0-0-0":
        seen = ""
        async with asyncio.timeout(30), two.http.stream("GET", "/v1/events/tail", params={"after": place}) as answer:
            assert answer.status_code == 200
            news = event(90, event_id=f"mine-news-{place}", occurred_at="2026-09-01T10:00:00Z")
            await post_all(two.other, [news | {"event_id": f"theirs-{place}", "payload": {"text": "theirs-canary"}}])
            await post_all(two.http, [news])
            async for line in answer.aiter_lines():
                seen += line
                if line.startswith("data:") and news["event_id"] in line:
                    break
        assert "theirs" not in seen


async def test_a_conflict_is_with_ones_own_event_only(two: Two) -> None:
    fresh = event(99, event_id="theirs-only-name")
    assert (await two.other.post("/v1/events", json=fresh)).status_code == 201
    other_content = fresh | {"payload": {"text": "something else"}}
    assert (await two.http.post("/v1/events", json=other_content)).status_code == 201
    assert (await two.other.post("/v1/events", json=other_content)).status_code == 409


async def test_no_field_of_a_request_names_a_tenant(two: Two, service: Service) -> None:
    name = f"{service.tenant}-x"
    assert (await two.http.post("/v1/events", json=event(77) | {"tenant": name})).status_code == 422
    assert (await two.http.post("/v1/context", json={"query": WORDS, "tenant": name})).status_code == 422
    headers = {"X-Tenant": name, "X-Tenant-Id": name, "X-Engine-Tenant": name}
    await two.ask("GET", "/v1/events", headers=headers)
    for event_id in (f"{{{name}.0}}:e0", f"cg:{{{name}.0}}:g1:event:e0", f"../{name}/e0"):
        assert (await two.http.get(f"/v1/events/{event_id}")).status_code in {404, 422}


async def test_schemas_and_their_mode_are_the_tenants_own(two: Two) -> None:
    await two.other.put("/v1/schemas/order.placed/1", json={"title": "theirs-canary"})
    await two.other.put("/v1/schemas/mode", json={"mode": "strict"})
    for path in ("/v1/schemas", "/v1/schemas/order.placed", "/v1/schemas/order.placed/1"):
        await two.ask("GET", path)
    assert (await two.http.post("/v1/events", json=event(78, event_type="un.described"))).status_code == 201
