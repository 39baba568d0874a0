"""Entities do not wait for the embedder: found while it is away, and the same graph in the end as if it never was."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx2

from context_graph.bootstrap import Resources
from context_graph.domain.event import TenantId
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.operations import load_verify
from context_graph.settings import EmbeddingSettings, RetrievalSettings, Settings
from context_graph.store.keys import GraphKeys
from context_graph.store.state import StateReader
from tests.embedding_server import embedding_server, right
from tests.events import event, post_all, settled
from tests.service import own_redis, own_service
from tests.waiting import until

TEXTS = (
    "Nadia Brandt waits in Graz for order LF-20817.",
    "Order LF-20817 was sent by Lufthansa Cargo on 2026-09-02.",
    "The carrier said carrier timeout, tell nadia@example.org.",
)
FIRST = [event(number, event_id=f"a{number}", payload={"text": text}) for number, text in enumerate(TEXTS, 1)]
PARTITION = Partition(TenantId("mine"), 0)
ALIKE = [event(10, event_id="c1", payload={"text": "Larkfield Airlines and Larkfield Airways fly to Graz."})]
AWAY = "vectors: the embedder did not answer"
LATER = [event(9, event_id="b1", payload={"text": "LF-20817 has come to Graz."})]


def redis_settings(folder: Path, url: str) -> AbstractAsyncContextManager[Settings]:
    return own_redis(
        folder,
        embedding=EmbeddingSettings(provider="http", url=url, retries=0, timeout_seconds=5),
        retrieval=RetrievalSettings(embedder_rest_seconds=0.2),
    )


async def entity_ids(http: httpx2.AsyncClient) -> set[str]:
    return {one["id"] for one in (await http.get("/v1/entities")).json()["entities"]}


async def found(http: httpx2.AsyncClient, entity: str, query: str) -> set[str]:
    body = {"query": query, "filters": {"entity": {"eq": entity}}}
    answer = await http.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    return {one["id"] for one in answer.json()["results"]}


async def enrichment(resources: Resources) -> Any:
    return await resources.groups.state(PARTITION, "enrichment")


async def facts(resources: Resources) -> dict[str, Any]:
    """The state as it is compared, without positions, which differ between ledgers, and receipts of what was asked."""
    keys = GraphKeys(PARTITION)
    tally = await StateReader(resources.derived_redis).tally(keys)
    entities = {
        fact.name: fact.content
        async for page in StateReader(resources.derived_redis).facts(keys)
        for fact in page
        if fact.kind == "entities"
    }
    counts = dict(tally.counts)
    counts["event"] -= counts.pop("receipt", 0)
    return {"counts": counts, "entities": entities}


async def report(resources: Resources) -> dict[str, Any]:
    """What a replay of the ledger says of it, whatever the hashes are: positions differ."""
    found = await load_verify()(resources, await resources.tenants.ensure("mine", 1))
    return {name: found[name] for name in ("equal", "live_counts", "differences", "entities_untold", "dead_letters")}


async def test_entities_do_not_wait_for_the_embedder_and_the_state_is_the_same_in_the_end(
    tmp_path: Path,
) -> None:
    with embedding_server() as server:
        async with (
            redis_settings(tmp_path / "even", server.url) as settings,
            own_service(settings) as (http, resources),
        ):
            await settled(http, [*await post_all(http, FIRST), *await post_all(http, LATER)])
            undisturbed, compared = await facts(resources), await report(resources)

        server.answer = lambda _asked: (503, {"error": "away"})
        async with redis_settings(tmp_path / "odd", server.url) as settings:
            async with own_service(settings) as (http, resources):
                await post_all(http, FIRST)
                await _found_without_vectors(http, resources, 3)
                later = await post_all(http, LATER)  # what comes later does not wait behind it either
                await _found_without_vectors(http, resources, 4)
                state = await enrichment(resources)
                assert not state.has_passed(Position.parse(later[0]["position"]))
            server.answer = right
            async with own_service(settings) as (http, resources):  # nothing is lost with the process
                await settled(http, later)
                assert await facts(resources) == undisturbed
                assert (await enrichment(resources)).again == 0
                vectors = await resources.index.read_vectors(PARTITION, ["a1", "a2", "a3", "b1"])
                assert {name: len(those) for name, those in vectors.items()} == dict.fromkeys(
                    ("a1", "a2", "a3", "b1"), 1
                )
                assert (await resources.index.statistics(PARTITION)).vectors == 4, "nothing twice"
                assert await resources.dead_letters.count(PARTITION) == 0
                assert compared["equal"]
                assert await report(resources) == compared


async def _found_without_vectors(http: httpx2.AsyncClient, resources: Resources, events: int) -> None:
    async def waiting() -> bool:
        return bool((await enrichment(resources)).again == events)

    await until(waiting)
    assert {"id:lf-20817", "person:nadia brandt", "place:graz", "email:nadia@example.org"} <= await entity_ids(http)
    orders = {"a1", "a2"} | ({"b1"} if events > 3 else set())
    assert await found(http, "id:lf-20817", "order LF-20817") == orders
    detail = (await http.get("/v1/entities/id:lf-20817")).json()
    assert {one["event_id"] for one in detail["events"]} == orders
    ready = (await http.get("/health/ready")).json()
    [stage] = [one for one in ready["stages"] if one["stage"] == "enrichment" and one["partition"].startswith("mine")]
    assert stage["again"] == events
    assert any("the embedder" in note for note in ready["notes"])
    assert (await resources.index.statistics(PARTITION)).vectors == 0, "what waits for its vector is none"
    assert 'cg_index_vectors{partition="mine.0"} 0.0' in (await http.get("/metrics")).text


async def test_names_are_read_while_the_embedder_is_away_and_joined_by_meaning_when_it_is_back(tmp_path: Path) -> None:
    with embedding_server() as server:
        server.answer = lambda _asked: (503, {"error": "away"})
        async with redis_settings(tmp_path, server.url) as settings:
            async with own_service(settings) as (http, resources):
                await post_all(http, ALIKE)

                async def waiting() -> bool:
                    return bool((await enrichment(resources)).again == 1)

                await until(waiting)
                for _ in range(2):  # the second does not ask an embedder that did not answer
                    assert await airlines(http) == (1, False)
                assert (await http.get("/v1/entities")).json()["meta"]["complete"] is False
                assert await found(http, "org:larkfield airlines", "Graz") == {"c1"}
                for meta in await answers_about_airlines(http):
                    assert (meta["complete"], meta["truncated"]) == (False, [AWAY])
                cities = {"query": "Graz", "mode": "keyword", "filters": {"entity": {"eq": "place:graz"}}}
                assert (await http.post("/v1/search", json=cities)).json()["meta"]["complete"], "no name is in doubt"
            server.answer = lambda asked: right({"input": ["the same"] * len(asked["input"])})
            async with own_service(settings) as (http, _):
                assert await airlines(http) == (2, True)
                for meta in await answers_about_airlines(http):
                    assert (meta["complete"], meta["truncated"]) == (True, [])


async def test_an_embedder_that_hangs_costs_a_read_seconds_once_and_hides_nothing_that_words_find(
    tmp_path: Path,
) -> None:
    patient = EmbeddingSettings(provider="http", timeout_seconds=60, retries=0)
    with embedding_server() as server:
        async with (
            own_redis(tmp_path, embedding=patient.model_copy(update={"url": server.url})) as settings,
            own_service(settings) as (http, _),
        ):
            await settled(http, await post_all(http, ALIKE))
            server.slow = threading.Event()
            try:
                async with asyncio.timeout(20):  # the server would hold each of them for 30 s
                    assert await airlines(http) == (1, False)
                    assert await found(http, "org:larkfield airlines", "Graz") == {"c1"}
                    for meta in await answers_about_airlines(http):
                        assert meta["complete"] is False
                    by_meaning = {"query": "airlines", "mode": "semantic"}
                    assert (await http.post("/v1/search", json=by_meaning)).status_code == 503
            finally:
                server.slow.set()


async def airlines(http: httpx2.AsyncClient) -> tuple[int, bool]:
    """How many names that company has, and whether the answer is complete."""
    answer = await http.get("/v1/entities/org:larkfield airlines")
    assert answer.status_code == 200, answer.text
    return len(answer.json()["names"]), answer.json()["meta"]["complete"]


async def answers_about_airlines(http: httpx2.AsyncClient) -> list[dict[str, Any]]:
    """`meta` of every kind of answer that depends on which names are that company."""
    named = {"filters": {"entity": {"eq": "org:larkfield airlines"}}}
    entity, session = {"kind": "entity", "id": "org:larkfield airlines"}, {"kind": "session", "id": "s1"}
    told = [
        await http.post("/v1/graph/query", json={"start": [entity], "edges": ["SAME_AS"], "max_depth": 1}),
        await http.post("/v1/graph/query", json={"start": [session], "edges": ["IN_SESSION"], "max_depth": 1, **named}),
        await http.post("/v1/graph/query", json={"start": [session], "edges": ["RELATED_TO"], "max_depth": 1}),
        await http.post("/v1/search", json={"query": "Graz", "mode": "keyword", **named}),
        await http.post("/v1/context", json={"query": "Graz", "token_budget": 100, **named}),
        await http.get("/v1/sessions/s1/related"),
        await http.get("/v1/communities"),
    ]
    assert [answer.status_code for answer in told] == [200] * len(told), [answer.text for answer in told]
    return [dict(answer.json()["meta"]) for answer in told]
