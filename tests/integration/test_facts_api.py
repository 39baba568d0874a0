"""Facts over HTTP: listed, with history, in working memory, as of a moment, and gone when they are erased."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from context_graph.bootstrap import Resources, open_resources
from context_graph.cli.main import build_app
from context_graph.domain.partition import Partition
from context_graph.store.keys import GraphKeys
from context_graph.store.state import StateReader
from enrichment.reconsolidation.run import consolidate
from projections.fold import fold
from tests.events import event, post_all, settled
from tests.fact_answers import noted, preference
from tests.integration.test_erasure_api import everything
from tests.integration.test_facts import with_model
from tests.llm_server import LlmServer, llm_server
from tests.service import Service


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with llm_server() as served:
        yield served


@pytest.fixture
async def resources(service: Service) -> AsyncIterator[Resources]:
    async with open_resources(service.settings) as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class Tea:
    """Nadia drinks green tea, later mint tea; Omar drinks coffee. `before`: a position between the two teas."""

    partition: Partition
    before: str
    canary: str
    note: Callable[[], Awaitable[None]]


@pytest.fixture
async def tea(http: httpx2.AsyncClient, resources: Resources, service: Service, server: LlmServer) -> Tea:
    partition = (await resources.tenants.ensure(service.tenant, 1)).partitions[0]
    there, writer = with_model(resources, server)
    canary = f"canary{secrets.token_hex(5)}"

    async def note() -> None:
        await consolidate(there, partition, "test", writer=writer)
        await settled(http, [{"position": str(await resources.ledger.last(partition))}])

    async def told(number: int, user: str, session: str, drink: str, *ends: str) -> None:
        text = f"For breakfast I drink {drink}."
        said = event(number, user_id=user, session_id=session, payload={"text": text})
        await settled(http, await post_all(http, [said]))
        claim = preference(1, drink, f"I drink {drink}", predicate="drinks", replaces=list(ends))
        server.answer = lambda _: noted(claim)
        await note()

    await told(0, "nadia", "s1", f"green {canary} tea")
    before = str(await resources.ledger.last(partition))
    await told(1, "nadia", "s2", "mint tea", "K1")
    await told(2, "omar", "s3", "black coffee")
    return Tea(partition, before, canary, note)


async def facts(http: httpx2.AsyncClient, path: str = "/v1/users/nadia/facts", **query: Any) -> list[dict[str, Any]]:
    answer = await http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["facts"]
    return found


async def profile(http: httpx2.AsyncClient, **asked: Any) -> list[dict[str, Any]]:
    answer = await http.post("/v1/context", json={"query": "what should I serve?", "token_budget": 400} | asked)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return [item for item in items if item["section"] == "profile"]


async def test_a_person_s_facts_are_listed_as_they_stand_and_as_they_stood(tea: Tea, http: httpx2.AsyncClient) -> None:
    (now,) = await facts(http)
    assert (now["object"], now["valid_to"], now["user_id"]) == ("mint tea", None, "nadia")
    assert now["evidence"]["event_id"] == "e1"
    (then,) = await facts(http, as_of=tea.before)
    assert (then["object"], then["superseded_by"]) == (f"green {tea.canary} tea", None)
    newest, oldest = await facts(http, history="true")
    assert (oldest["superseded_by"], oldest["reason"]) == (newest["id"], "updated")
    assert oldest["valid_to"] == newest["valid_from"]
    assert await facts(http, "/v1/users/nobody/facts") == []


async def test_facts_are_filtered_and_paged(tea: Tea, http: httpx2.AsyncClient) -> None:
    assert {fact["user_id"] for fact in await facts(http, "/v1/facts")} == {"nadia", "omar"}
    assert [fact["user_id"] for fact in await facts(http, "/v1/facts", session_id="s3")] == ["omar"]
    assert len(await facts(http, "/v1/facts", subject="User", predicate="drinks", kind="preference")) == 2
    assert await facts(http, "/v1/facts", kind="fact") == []
    seen: list[str] = []
    asked: dict[str, str | int] = {"history": "true", "limit": 1}
    for _ in range(3):
        answer = (await http.get("/v1/facts", params=asked)).json()
        seen += [fact["object"] for fact in answer["facts"]]
        asked["cursor"] = answer["page"]["next_cursor"] or ""
    assert seen == ["black coffee", "mint tea", f"green {tea.canary} tea"]
    assert asked["cursor"] == ""
    refused = await http.get("/v1/facts", params={"kind": "rumour"})
    assert refused.status_code == 422


async def test_a_fact_tells_its_evidence_and_its_history(tea: Tea, http: httpx2.AsyncClient, service: Service) -> None:
    (now,) = await facts(http)
    read = (await http.get(f"/v1/facts/{now['id']}")).json()
    assert read["event"]["payload"]["text"] == "For breakfast I drink mint tea."
    assert [fact["object"] for fact in read["history"]] == [f"green {tea.canary} tea", "mint tea"]
    assert (await http.get("/v1/facts/none")).status_code == 404
    assert (await http.get(f"/v1/facts/{now['id']}", params={"as_of": tea.before})).status_code == 404
    told = await asyncio.to_thread(
        CliRunner().invoke, build_app(), ["facts", "--user", "nadia", "--url", service.url, "--key", service.key]
    )
    assert "user drinks mint tea (of nadia)" in told.output
    told = await asyncio.to_thread(
        CliRunner().invoke, build_app(), ["facts", now["id"], "--url", service.url, "--key", service.key]
    )
    assert "updated" in told.output


async def test_working_memory_shows_what_holds_of_the_person_in_scope(tea: Tea, http: httpx2.AsyncClient) -> None:
    for scope in ({"user_id": "nadia"}, {"session_id": "s1"}):
        (item,) = await profile(http, **scope)
        assert (item["kind"], item["text"], item["event_ids"]) == ("fact", "user drinks mint tea", ["e1"])
    (then,) = await profile(http, user_id="nadia", as_of=tea.before)
    assert then["text"] == f"user drinks green {tea.canary} tea"
    assert await profile(http) == []
    assert await profile(http, user_id="nobody") == []
    assert await profile(http, user_id="nadia", filters={"kind": {"ne": "fact"}}) == []
    alone = await http.post("/v1/context", json={"user_id": "nadia", "filters": {"kind": {"eq": "fact"}}})
    assert [item["text"] for item in alone.json()["items"]] == ["user drinks mint tea"]
    usual = (await profile(http, user_id="nadia"))[0]["score"]
    asked = (await profile(http, user_id="nadia", intents={"personalize": 1}))[0]["score"]
    assert asked > usual


@pytest.mark.parametrize("form", ["markdown", "anthropic"])
async def test_a_profile_stays_within_the_budget_and_its_receipt_gives_it_back(
    tea: Tea, http: httpx2.AsyncClient, form: str
) -> None:
    body = {"query": "my breakfast", "user_id": "nadia", "token_budget": 600, "format": form}
    served = (await http.post("/v1/context", json=body)).json()
    assert served["budget"]["used"] <= 600
    assert "profile" in {item["section"] for item in served["items"]}
    again = (await http.get(f"/v1/receipts/{served['receipt_id']}/content")).json()
    assert (again["state"], again.get("content")) == ("reproduced", served.get("content"))


async def test_an_erased_session_takes_its_facts_along_and_what_it_ended_holds_again(
    tea: Tea, http: httpx2.AsyncClient, resources: Resources
) -> None:
    done = await http.delete("/v1/sessions/s2", params={"wait_ms": 60_000})
    assert done.status_code == 200, done.text
    (left,) = await facts(http, history="true")
    assert (left["object"], left["superseded_by"]) == (f"green {tea.canary} tea", None)
    await same_as_replayed(resources, tea.partition)


async def test_an_erased_person_takes_every_fact_along(
    tea: Tea, http: httpx2.AsyncClient, resources: Resources, server: LlmServer
) -> None:
    secret = tea.canary.encode()
    assert secret in await everything(resources.ledger_redis)
    done = await http.delete("/v1/users/nadia", params={"wait_ms": 60_000})
    assert done.status_code == 200, done.text
    assert secret not in await everything(resources.ledger_redis)
    assert await facts(http, history="true") == []
    assert [fact["user_id"] for fact in await facts(http, "/v1/facts")] == ["omar"]
    calls = len(server.requests)
    await tea.note()
    assert len(server.requests) == calls
    await same_as_replayed(resources, tea.partition)


async def same_as_replayed(resources: Resources, partition: Partition) -> None:
    """What is left of the graph's facts is what the ledger leads to."""
    kinds = ("learned", "listed", "superseded", "event")
    events = await resources.ledger.after(partition, None, 1000)
    await resources.graph.at(9).apply(partition, fold(events))
    reader, found = StateReader(resources.derived_redis), []
    for generation in (1, 9):
        facts: set[tuple[str, str, int]] = set()
        async for page in reader.facts(GraphKeys(partition, generation)):
            facts |= {
                (fact.kind, fact.name, fact.digest)
                for fact in page
                if fact.kind in kinds and "receipt" not in fact.name
            }
        found.append(facts)
    await resources.graph.at(9).remove(partition)
    assert found[0] == found[1]


async def graph(http: httpx2.AsyncClient, kind: str, identifier: str, edge: str, **asked: Any) -> dict[str, Any]:
    start = [{"kind": kind, "id": identifier}]
    body = {"start": start, "edges": [edge], "max_depth": 1} | asked
    answer = await http.post("/v1/graph/query", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ends(found: dict[str, Any]) -> set[tuple[str, str]]:
    return {(edge["source"], edge["target"]) for edge in found["edges"]}


async def test_facts_are_reached_in_the_graph_from_both_ends(tea: Tea, http: httpx2.AsyncClient) -> None:
    new, old = (fact["id"] for fact in await facts(http, history="true"))
    only = {"filters": {"kind": {"eq": "fact"}}}
    person = await graph(http, "user", "nadia", "ABOUT", **only)
    assert ends(person) == {(new, "user:nadia"), (old, "user:nadia")}
    node = person["nodes"][new]
    assert (node["kind"], node["attributes"]["text"]) == ("fact", "user drinks mint tea")
    assert ends(await graph(http, "event", "e0", "DERIVED_FROM")) == {(old, "e0")}
    assert ends(await graph(http, "event", old, "DERIVED_FROM")) == {(old, "e0")}
    for start, way, back in ((new, "out", "in"), (old, "in", "out")):
        found = await graph(http, "event", start, "SUPERSEDES", direction=way)
        assert ends(found) == {(new, old)}
        assert found["edges"][0]["properties"]["reason"] == "updated"
        assert ends(await graph(http, "event", start, "SUPERSEDES", direction=back)) == set()
    assert ends(await graph(http, "user", "nadia", "ABOUT", direction="out")) == set()


async def test_facts_in_the_graph_are_bounded_and_as_of_a_moment(tea: Tea, http: httpx2.AsyncClient) -> None:
    new, old = (fact["id"] for fact in await facts(http, history="true"))
    then = await graph(http, "user", "nadia", "ABOUT", as_of=tea.before, filters={"kind": {"eq": "fact"}})
    assert ends(then) == {(old, "user:nadia")}
    assert ends(await graph(http, "event", old, "SUPERSEDES", as_of=tea.before)) == set()
    cut = await graph(http, "user", "nadia", "ABOUT", fan_out=1, filters={"kind": {"eq": "fact"}})
    assert ends(cut) == {(new, "user:nadia")}
    assert "fan_out" in cut["meta"]["truncated"]


async def test_an_erased_fact_is_no_end_of_an_edge(tea: Tea, http: httpx2.AsyncClient) -> None:
    new, old = (fact["id"] for fact in await facts(http, history="true"))
    done = await http.delete("/v1/sessions/s2", params={"wait_ms": 60_000})
    assert done.status_code == 200, done.text
    found = await graph(http, "event", old, "SUPERSEDES")
    assert (ends(found), list(found["nodes"])) == (set(), [old])
    assert new not in (await graph(http, "user", "nadia", "ABOUT"))["nodes"]
    assert tea.canary in str(found["nodes"][old]["attributes"])


async def test_what_held_at_a_time_is_asked_for_beside_what_was_known(tea: Tea, http: httpx2.AsyncClient) -> None:
    mint, green = await facts(http, history="true")
    early, later = green["valid_from"], mint["valid_from"]
    assert early < later
    assert [fact["id"] for fact in await facts(http, held_at=early)] == [green["id"]]
    assert [fact["id"] for fact in await facts(http, held_at=later)] == [mint["id"]]
    assert await facts(http, held_at="2001-01-01T00:00:00Z") == []
    assert [fact["id"] for fact in await facts(http, held_at=later, as_of=tea.before)] == [green["id"]]
    assert {fact["user_id"] for fact in await facts(http, "/v1/facts", held_at=early)} == {"nadia"}
    for asked in ({"held_at": "yesterday"}, {"held_at": early, "history": "true"}):
        refused = await http.get("/v1/users/nadia/facts", params=asked)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/held_at")


async def test_the_command_tells_what_held_from_what_was_known(tea: Tea, service: Service) -> None:
    async def told(*asked: str) -> str:
        command = ["facts", "--user", "nadia", *asked, "--url", service.url, "--key", service.key]
        return (await asyncio.to_thread(CliRunner().invoke, build_app(), command)).output

    assert "None had been learned as of" in (nothing := await told("--as-of", "2001-01-01T00:00:00Z"))
    assert "--held-at" in nothing
    assert "None is known to have held at" in await told("--held-at", "2001-01-01T00:00:00Z")
    assert "mint tea" in await told("--held-at", "2100-01-01T00:00:00Z")


async def test_what_several_sessions_say_alike_comes_once_with_all_its_evidence(
    tea: Tea, http: httpx2.AsyncClient, server: LlmServer, resources: Resources
) -> None:
    async def repeat(number: int, session: str, drink: str) -> None:
        text = f"I still drink {drink}."
        said = event(number, event_id=f"again-{session}", user_id="nadia", session_id=session, payload={"text": text})
        await settled(http, await post_all(http, [said]))
        server.answer = lambda _: noted(preference(1, drink.title(), f"I still drink {drink}", predicate="drinks"))
        await tea.note()

    await repeat(5, "s5", "mint tea")
    await repeat(6, "s6", "mint tea")
    (now,) = await facts(http)
    assert (now["session_id"], [one["session_id"] for one in now["also"]]) == ("s6", ["s5", "s2"])
    assert [one["evidence"]["event_id"] for one in (now, *now["also"])] == ["again-s6", "again-s5", "e1"]
    assert now["valid_from"] == now["also"][-1]["valid_from"] < now["also"][0]["valid_from"]
    pages, cursor = list[str](), ""
    while True:
        asked: dict[str, str | int] = {"history": "true", "limit": 1}
        if cursor:
            asked["cursor"] = cursor
        page = (await http.get("/v1/users/nadia/facts", params=asked)).json()
        pages += [fact["object"] for fact in page["facts"]]
        if (cursor := page["page"]["next_cursor"]) is None:
            break
    assert pages == ["Mint Tea", f"green {tea.canary} tea"]
    assert [fact["also"] for fact in await facts(http, "/v1/facts", session_id="s5")] == [[]]
    for saying in (now, *now["also"]):
        read = (await http.get(f"/v1/facts/{saying['id']}")).json()
        assert read["event"]["event_id"] == saying["evidence"]["event_id"]
        assert [len(fact["also"]) for fact in read["history"]] == [0, 2]
    await same_as_replayed(resources, tea.partition)


async def test_a_saying_that_is_read_late_ends_with_the_statement(
    tea: Tea, http: httpx2.AsyncClient, server: LlmServer
) -> None:
    drink = f"green {tea.canary} tea"
    said = event(0, event_id="late", user_id="nadia", session_id="s0", payload={"text": f"I drink {drink}, always."})
    await settled(http, await post_all(http, [said]))
    server.answer = lambda _: noted(preference(1, drink, f"I drink {drink}", predicate="drinks"))
    await tea.note()
    (now,) = await facts(http)
    assert now["object"] == "mint tea"
    green = next(fact for fact in await facts(http, history="true") if fact["object"] == drink)
    assert (green["superseded_by"], len(green["also"])) == (now["id"], 1)
