"""Summaries of agents and people: from those of their sessions, gone with any session they quote."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.event import SUMMARY_TYPE, Envelope
from context_graph.domain.partition import Partition
from context_graph.store.keys import GraphKeys
from context_graph.store.state import StateReader
from enrichment.reconsolidation.run import Outcome, consolidate
from projections.fold import fold
from tests.events import event, post_all, settled
from tests.integration.test_erasure_api import everything
from tests.integration.test_facts import with_model
from tests.integration.test_written_summaries import said
from tests.llm_server import Reply, llm_server
from tests.service import Service
from tests.waiting import until


@pytest.fixture
async def resources(service: Service) -> AsyncIterator[Resources]:
    """With summaries of scopes."""
    async with open_resources(service.settings) as opened:
        own = opened.settings.consolidation.model_copy(update={"scopes": True, "min_events": 3})
        yield replace(opened, settings=opened.settings.model_copy(update={"consolidation": own}))


@pytest.fixture
def canary() -> str:
    return f"canary{secrets.token_hex(5)}"


@pytest.fixture
async def partition(resources: Resources, service: Service) -> Partition:
    return (await resources.tenants.ensure(service.tenant, 1)).partitions[0]


async def happen(http: httpx2.AsyncClient, session: str, user: str, what: str, first: int) -> None:
    """Four events of a session; every one names `what`."""
    events = [
        event(
            first + n, session_id=session, user_id=user, payload={"text": f"The {what} of {user} was sent, step {n}."}
        )
        for n in range(4)
    ]
    await settled(http, await post_all(http, events))


async def three_sessions(http: httpx2.AsyncClient, canary: str = "racing") -> None:
    await happen(http, "s1", "nadia", "blue kettle", 0)
    await happen(http, "s2", "nadia", f"red {canary} bicycle", 10)
    await happen(http, "s3", "nadia", "green umbrella", 20)


async def passed(http: httpx2.AsyncClient, resources: Resources, partition: Partition) -> None:
    await settled(http, [{"position": str(await resources.ledger.last(partition))}])


async def of_scope(resources: Resources, partition: Partition, scope: str) -> list[Envelope]:
    events = await resources.ledger.after(partition, None, 1000)
    found: list[tuple[Envelope, Any]] = [(each.envelope, each.envelope.payload) for each in events]
    return [
        envelope
        for envelope, payload in found
        if envelope.event_type == SUMMARY_TYPE and payload and payload["scope"] == scope
    ]


async def same_as_replayed(resources: Resources, partition: Partition) -> None:
    kinds = ("summary", "version", "event")
    await resources.graph.at(9).apply(partition, fold(await resources.ledger.after(partition, None, 1000)))
    reader, found = StateReader(resources.derived_redis), []
    for generation in (1, 9):
        facts: set[tuple[str, str, int]] = set()
        async for page in reader.facts(GraphKeys(partition, generation)):
            facts |= {(f.kind, f.name, f.digest) for f in page if f.kind in kinds and "receipt" not in f.name}
        found.append(facts)
    await resources.graph.at(9).remove(partition)
    assert found[0] == found[1]


async def test_a_person_and_an_agent_are_summarised_once_from_their_sessions(
    http: httpx2.AsyncClient, resources: Resources, partition: Partition
) -> None:
    await three_sessions(http)
    assert await consolidate(resources, partition, "w") == Outcome(summarised=3, scopes=2)
    await passed(http, resources, partition)
    assert await consolidate(resources, partition, "w") == Outcome(unchanged=3)
    (person,) = await of_scope(resources, partition, "user/nadia")
    (agent,) = await of_scope(resources, partition, "agent/support")
    made: Any = person.payload
    assert (person.user_id, agent.agent_id, agent.user_id) == ("nadia", "support", None)
    assert sorted(made["sessions"]) == ["s1", "s2", "s3"]
    assert all(sentence["event_ids"] for sentence in made["sentences"])
    await resources.derived_redis.delete(GraphKeys(partition).consolidated("user/nadia"))
    assert await consolidate(resources, partition, "w") == Outcome(unchanged=3)
    assert len(await of_scope(resources, partition, "user/nadia")) == 1


async def test_retrieval_finds_it_and_leads_down_to_the_events(
    http: httpx2.AsyncClient, resources: Resources, partition: Partition
) -> None:
    await three_sessions(http)
    await consolidate(resources, partition, "w")
    await passed(http, resources, partition)
    asked = {"query": "what was sent?", "user_id": "nadia", "filters": {"kind": {"eq": "summary"}}}
    items = {item["id"]: item for item in (await http.post("/v1/context", json=asked)).json()["items"]}
    item = items["summary:user/nadia"]
    (summary,) = await of_scope(resources, partition, "user/nadia")
    cited: Any = summary.payload
    assert set(item["event_ids"]) == {name for each in cited["sentences"] for name in each["event_ids"]}
    for event_id in item["event_ids"]:
        assert (await http.get(f"/v1/events/{event_id}")).status_code == 200
    walk = {"start": [{"kind": "event", "id": summary.event_id}], "max_depth": 2, "edges": ["DERIVED_FROM"]}
    nodes = (await http.post("/v1/graph/query", json=walk)).json()["nodes"]
    assert {"e0", "e10", "e20"} & set(nodes)


async def test_as_of_a_moment_the_version_is_found_that_was_the_newest_then(
    http: httpx2.AsyncClient, resources: Resources, partition: Partition
) -> None:
    await three_sessions(http)
    early = str(await resources.ledger.last(partition))
    await consolidate(resources, partition, "w")
    await passed(http, resources, partition)
    before = str(await resources.ledger.last(partition))
    await happen(http, "s4", "nadia", "yellow lamp", 30)
    await consolidate(resources, partition, "w")
    await passed(http, resources, partition)
    first, second = await of_scope(resources, partition, "user/nadia")
    asked: dict[str, Any] = {"query": "what was sent?", "user_id": "nadia", "filters": {"kind": {"eq": "summary"}}}

    async def found(as_of: str | None) -> tuple[str, str] | None:
        served = (await http.post("/v1/context", json=asked | {"as_of": as_of})).json()
        item = next((one for one in served["items"] if one["id"] == "summary:user/nadia"), None)
        again = (await http.get(f"/v1/receipts/{served['receipt_id']}/content")).json()
        assert again["state"] == "reproduced"
        searched = await http.post(
            "/v1/search", json={"query": "what was sent?", "as_of": as_of, "filters": {"user_id": {"eq": "nadia"}}}
        )
        texts = [one["text"] for one in searched.json()["results"] if one["id"] == "summary:user/nadia"]
        assert texts == ([] if item is None else [item["text"]])
        return None if item is None else (item["position"], item["text"])

    now, then = await found(None), await found(before)
    one, other = first.payload, second.payload
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    assert then is not None
    assert now is not None
    assert (then[1], now[1]) == (one["text"], other["text"])
    assert await found(early) is None
    await http.delete("/v1/sessions/s1", params={"wait_ms": 60_000})
    assert await found(before) is None


async def topics(resources: Resources, partition: Partition) -> list[Envelope]:
    events = [each.envelope for each in await resources.ledger.after(partition, None, 1000)]
    found: list[tuple[Envelope, Any]] = [(each, each.payload) for each in events if each.event_type == SUMMARY_TYPE]
    return [each for each, payload in found if payload and payload["scope"].startswith("topic/")]


def with_topics(resources: Resources, most: int) -> Resources:
    own = resources.settings.consolidation.model_copy(update={"scopes": False, "topics": most})
    return replace(resources, settings=resources.settings.model_copy(update={"consolidation": own}))


async def rackets(http: httpx2.AsyncClient, session: str, user: str, first: int, more: str = "") -> None:
    """A session about one topic, three codes that stand together in three of its events, and about something else."""
    texts = [f"Part AB-1234 of order XY-5678 failed with ERR-9012{more}, try {n}." for n in range(3)]
    texts.append(f"The weather at the office of {user} was fine on day {first}.")
    events = [
        event(first + n, session_id=session, user_id=user, payload={"text": text}) for n, text in enumerate(texts)
    ]
    await settled(http, await post_all(http, events))


async def test_a_topic_is_summarised_once_from_what_names_it(
    http: httpx2.AsyncClient, resources: Resources, partition: Partition
) -> None:
    await rackets(http, "s1", "nadia", 0)
    await rackets(http, "s2", "omar", 10)
    await consolidate(with_topics(resources, 0), partition, "w")
    await passed(http, resources, partition)
    assert await topics(resources, partition) == []
    there, early = with_topics(resources, 5), str(await resources.ledger.last(partition))
    assert (await consolidate(there, partition, "w")).scopes == 1
    await passed(http, resources, partition)
    assert (await consolidate(there, partition, "w")).scopes == 0
    (made,) = await topics(resources, partition)
    payload: Any = made.payload
    (community,) = (await http.get("/v1/communities")).json()["communities"]
    assert payload["scope"] == f"topic/{community['id']}"
    assert sorted(payload["sessions"]) == ["s1", "s2"]
    assert all("AB-1234" in each["text"] and each["event_ids"] for each in payload["sentences"])
    await resources.derived_redis.delete(GraphKeys(partition).consolidated(payload["scope"]))
    assert (await consolidate(there, partition, "w")).scopes == 0
    asked = {"query": "part AB-1234", "filters": {"kind": {"eq": "summary"}}}
    items = {item["id"]: item for item in (await http.post("/v1/context", json=asked)).json()["items"]}
    assert items[f"summary:{payload['scope']}"]["event_ids"]
    late = str(await resources.ledger.position_of(partition, made.event_id))
    assert items[f"summary:{payload['scope']}"]["position"] == late  # by which as_of decides
    then = (await http.post("/v1/context", json=asked | {"as_of": early})).json()["items"]
    assert f"summary:{payload['scope']}" not in {item["id"] for item in then}
    walk = {"start": [{"kind": "event", "id": made.event_id}], "max_depth": 2, "edges": ["DERIVED_FROM", "SUMMARIZES"]}
    nodes = (await http.post("/v1/graph/query", json=walk)).json()["nodes"]
    assert {"session:s1", "session:s2"} <= set(nodes)
    await same_as_replayed(resources, partition)


async def test_a_topic_keeps_its_name_and_goes_with_any_session_that_it_quotes(
    http: httpx2.AsyncClient, resources: Resources, partition: Partition, canary: str
) -> None:
    there = with_topics(resources, 5)
    await rackets(http, "s1", "nadia", 0)
    await rackets(http, "s2", "omar", 10)
    await consolidate(there, partition, "w")
    await passed(http, resources, partition)
    await rackets(http, "s3", "eve", 20, f" near {canary}")
    await consolidate(there, partition, "w")
    await passed(http, resources, partition)
    first, second = await topics(resources, partition)
    scopes: list[Any] = [first.payload, second.payload]
    assert scopes[0]["scope"] == scopes[1]["scope"]
    assert canary in str(scopes[1])
    done = await http.delete("/v1/users/eve", params={"wait_ms": 60_000})
    assert done.status_code == 200, done.text
    assert canary.encode() not in await everything(resources.ledger_redis)
    assert [each.event_id for each in await topics(resources, partition)] == [first.event_id]

    async def shown() -> bool:
        found = await resources.graph.summary(partition, scopes[0]["scope"])
        return found is not None and found.id == first.event_id

    await until(shown)
    await same_as_replayed(resources, partition)


async def test_an_erased_session_takes_along_what_quotes_it_and_the_rest_is_written_anew(
    http: httpx2.AsyncClient, resources: Resources, partition: Partition, canary: str
) -> None:
    await happen(http, "s1", "nadia", "blue kettle", 0)
    await happen(http, "s3", "nadia", "green umbrella", 20)
    await consolidate(resources, partition, "w")
    await passed(http, resources, partition)
    (before,) = await of_scope(resources, partition, "user/nadia")
    await happen(http, "s2", "nadia", f"red {canary} bicycle", 10)
    await consolidate(resources, partition, "w")
    await passed(http, resources, partition)
    assert canary in str((await of_scope(resources, partition, "user/nadia"))[-1].payload)
    done = await http.delete("/v1/sessions/s2", params={"wait_ms": 60_000})
    assert done.status_code == 200, done.text
    assert canary.encode() not in await everything(resources.ledger_redis)
    assert [each.event_id for each in await of_scope(resources, partition, "user/nadia")] == [before.event_id]

    async def shown() -> bool:
        found = await resources.graph.summary(partition, "user/nadia")
        text = (await resources.index.read_documents(partition, ["summary:user/nadia"]))[0]
        return found is not None and found.id == before.event_id and text is not None

    await until(shown)
    await same_as_replayed(resources, partition)


async def test_an_erased_person_takes_along_what_tells_about_them(
    http: httpx2.AsyncClient, resources: Resources, partition: Partition, canary: str
) -> None:
    await three_sessions(http, canary)
    await happen(http, "s4", "omar", "yellow lamp", 30)
    await happen(http, "s5", "omar", "white chair", 40)
    await consolidate(resources, partition, "w")
    await passed(http, resources, partition)
    done = await http.delete("/v1/users/nadia", params={"wait_ms": 60_000})
    assert done.status_code == 200, done.text
    assert canary.encode() not in await everything(resources.ledger_redis)
    assert await of_scope(resources, partition, "user/nadia") == []
    assert await of_scope(resources, partition, "agent/support") == []
    assert len(await of_scope(resources, partition, "user/omar")) == 1
    await same_as_replayed(resources, partition)
    await consolidate(resources, partition, "w")
    (anew,) = await of_scope(resources, partition, "agent/support")
    made: Any = anew.payload
    assert sorted(made["sessions"]) == ["s4", "s5"]


async def test_each_sentence_says_who_said_it_and_a_person_is_told_of_alone(
    http: httpx2.AsyncClient, resources: Resources, partition: Partition
) -> None:
    """Two people in each session: none is made to say what the other did."""
    for session, first in (("s1", 0), ("s2", 10)):
        said_by = [
            ("nadia", "I want to move to Lisbon with my sister"),
            ("omar", "I would never leave Porto at all"),
        ] * 2
        events = [
            event(first + n, session_id=session, user_id=user, payload={"text": f"{text}, day {first + n}."})
            for n, (user, text) in enumerate(said_by)
        ]
        await settled(http, await post_all(http, events))
    await consolidate(resources, partition, "w")
    for user, city, other in (("nadia", "Lisbon", "Porto"), ("omar", "Porto", "Lisbon")):
        (person,) = await of_scope(resources, partition, f"user/{user}")
        made: Any = person.payload
        assert made["sentences"]
        for sentence in made["sentences"]:
            assert sentence["text"].startswith(f"{user}: I w")
            assert city in sentence["text"]
            assert sentence["event_ids"]
        assert other not in made["text"]
    (agent,) = await of_scope(resources, partition, "agent/support")
    told: Any = agent.payload
    assert {each["text"].partition(":")[0] for each in told["sentences"]} == {"nadia", "omar"}


async def test_scopes_of_the_same_lines_cost_one_question(
    http: httpx2.AsyncClient, resources: Resources, partition: Partition
) -> None:
    await three_sessions(http)
    await consolidate(resources, partition, "w")
    with llm_server() as server:
        answer = Reply(said("The blue kettle of nadia was sent.", [1, 2, 3, 4, 5, 6]))
        server.answer = lambda _: answer
        there, writer = with_model(resources, server, facts=False)
        await consolidate(there, partition, "w", writer=writer)
        materials = [server.material(i) for i in range(len(server.requests))]
        assert len(materials) == len(set(materials)) == 4  # three sessions, and once for the person and the agent
        for scope in ("user/nadia", "agent/support"):
            assert (await of_scope(resources, partition, scope))[-1].payload["method"] == "llm"  # type: ignore[index, call-overload]


async def test_a_model_writes_it_once(http: httpx2.AsyncClient, resources: Resources, partition: Partition) -> None:
    await three_sessions(http)
    with llm_server() as server:
        server.answer = lambda _: Reply(said("The blue kettle of nadia was sent.", [1, 2, 3, 4, 5, 6]))
        there, writer = with_model(resources, server, facts=False)
        await consolidate(there, partition, "w", writer=writer)
        asked = len(server.requests)
        await passed(http, resources, partition)
        for scope in ("user/nadia", "agent/support"):
            await resources.derived_redis.delete(GraphKeys(partition).consolidated(scope))
        await consolidate(there, partition, "w", writer=writer)
        (person,) = await of_scope(resources, partition, "user/nadia")
        made: Any = person.payload
        assert (made["method"], len(server.requests)) == ("llm", asked)
