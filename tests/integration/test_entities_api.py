"""Entities over HTTP: names resolved with evidence, merged and split by events that a rebuild keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from context_graph.bootstrap import open_resources
from enrichment.indexing import IndexingHandler
from tests.events import event, post_all, settled
from tests.service import Service

TEXTS = (
    "Mia Kovacs flies from JFK to Seattle on May 20, 2024, order #W3470184",
    "reservation of Mia Kovacs for 2024-05-20: see src/booking/refunds.py",
    "the bug is in refunds.py, says Mia Kovács; ask PayPal about #W3470184",
    "PayPal answers on 2024-05-21",
)


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async with service.client() as client:
        events = [event(number, payload={"text": text}) for number, text in enumerate(TEXTS)]
        await settled(client, await post_all(client, events))
        yield client


async def entity(client: httpx2.AsyncClient, entity_id: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(f"/v1/entities/{quote(entity_id, safe='')}", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def ids(found: dict[str, Any]) -> set[str]:
    return {name["id"] for name in found["names"]}


async def test_names_of_one_thing_are_one_entity_with_the_evidence(client: httpx2.AsyncClient) -> None:
    date = await entity(client, "date:2024-05-20")
    assert ids(date) == {"date:2024-05-20", "date:may 20, 2024"}
    [link] = date["same_as"]
    assert (link["tier"], link["confidence"]) == ("alias", 1.0)
    file = await entity(client, "path:refunds.py")
    assert ids(file) == {"path:refunds.py", "path:src/booking/refunds.py"}
    assert file["same_as"][0]["tier"] == "part"
    person = await entity(client, "person:mia kovács")
    assert ids(person) == {"person:mia kovacs", "person:mia kovács"}


async def test_an_entity_shows_its_events_newest_first_with_spans_and_roles(client: httpx2.AsyncClient) -> None:
    person = await entity(client, "person:mia kovacs")
    assert [shown["event_id"] for shown in person["events"]] == ["e2", "e1", "e0"]
    for shown in person["events"]:
        text = TEXTS[int(shown["event_id"][1:])]
        [mention] = shown["mentions"]
        [[start, end]] = mention["spans"]
        assert text[start:end] == mention["name"]
        assert mention["role"] == "said"
    related = {one["target"]: one["events"] for one in person["related"]}
    assert related["id:w3470184"] == 2
    assert related["org:paypal"] == 1
    first = await entity(client, "person:mia kovacs", limit=2)
    rest = await entity(client, "person:mia kovacs", limit=2, cursor=first["page"]["next_cursor"])
    assert [one["event_id"] for one in first["events"] + rest["events"]] == ["e2", "e1", "e0"]
    assert rest["page"]["next_cursor"] is None


async def test_the_list_has_each_entity_once_and_pages_by_a_stable_cursor(client: httpx2.AsyncClient) -> None:
    whole = (await client.get("/v1/entities", params={"limit": 200})).json()["entities"]
    listed = [name for found in whole for name in ids(found)]
    assert len(listed) == len(set(listed))
    assert {"date:2024-05-20", "path:refunds.py", "org:paypal", "place:seattle"} <= set(listed)
    paged: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = (await client.get("/v1/entities", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        paged += page["entities"]
        cursor = page["page"]["next_cursor"]
        if cursor is None:
            break
    assert paged == whole
    dates = (await client.get("/v1/entities", params={"label": "date"})).json()["entities"]
    assert [found["id"] for found in dates] == ["date:may 20, 2024", "date:2024-05-21"]
    found = (await client.get("/v1/entities", params={"query": "KOV"})).json()["entities"]
    assert len(found) == 1


async def decide(client: httpx2.AsyncClient, what: str, *names: str) -> dict[str, Any]:
    answer = await client.post(f"/v1/entities/{what}", json={"entities": list(names), "note": "I know it"})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    await settled(client, [body])
    return body


async def test_a_merge_and_a_split_are_events_that_win_and_can_be_taken_back(
    client: httpx2.AsyncClient, service: Service
) -> None:
    merged = await decide(client, "merge", "org:paypal", "person:mia kovacs")
    together = await entity(client, "org:paypal")
    assert {"org:paypal", "person:mia kovacs", "person:mia kovács"} == ids(together)
    assert any(link["evidence"] == f"decided by event {merged['event_id']}" for link in together["same_as"])
    stored = (await client.get(f"/v1/events/{merged['event_id']}")).json()
    assert (stored["event_type"], stored["origin"]) == ("memory.entity_merge", "derived")

    await decide(client, "split", "org:paypal", "person:mia kovacs")
    assert ids(await entity(client, "org:paypal")) == {"org:paypal"}
    await decide(client, "split", "date:2024-05-20", "date:may 20, 2024")
    assert ids(await entity(client, "date:2024-05-20")) == {"date:2024-05-20"}
    await decide(client, "merge", "date:2024-05-20", "date:may 20, 2024")
    assert len(ids(await entity(client, "date:2024-05-20"))) == 2

    # Another generation, fed in the opposite order and twice: the same is decided.
    async with open_resources(service.settings) as resources:
        tenant = await resources.tenants.ensure(service.tenant, 1)
        events = [one for p in tenant.partitions for one in await resources.ledger.after(p, None, 1000)]
        partition = tenant.partition_of(events[-1].envelope.session_id)
        again = resources.index.at(9)
        for one in [*reversed(events), *events]:
            await IndexingHandler(again).handle(partition, [one])
        names = ["org:paypal", "date:2024-05-20"]
        live = await resources.index.entities.decisions(tenant.partitions, names)
        assert len(live) == 2
        assert await again.entities.decisions(tenant.partitions, names) == live


async def test_a_name_that_fits_two_people_shows_both_until_somebody_decides(http: httpx2.AsyncClient) -> None:
    texts = ("Ask Marta Kowalczyk about it.", "Marek Kowalczyk has left.", "The letter was signed by M. Kowalczyk.")
    await settled(
        http, await post_all(http, [event(number, payload={"text": text}) for number, text in enumerate(texts)])
    )
    initials, marek, marta = "person:m. kowalczyk", "person:marek kowalczyk", "person:marta kowalczyk"
    found = await entity(http, initials)
    assert (ids(found), found["same_as"]) == ({initials}, [])
    assert [(one["source"], one["target"]) for one in found["candidates"]] == [(initials, marek), (initials, marta)]
    assert all(one["tier"] == "initials" and "m kowalczyk" in one["evidence"] for one in found["candidates"])
    [here] = (await entity(http, marta))["candidates"]
    assert here == found["candidates"][1]
    await decide(http, "merge", initials, marta)
    assert [(await entity(http, name))["candidates"] for name in (initials, marek, marta)] == [[], [], []]


async def test_wrong_requests_are_told_what_to_change(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/v1/entities/person:nobody")).status_code == 404
    for body in (
        {"entities": ["org:paypal"]},
        {"entities": ["org:paypal", "org:paypal"]},
        {"entities": ["org:paypal", "person:nobody"]},
        {"entities": ["org:paypal", "nolabel"]},
    ):
        answer = await client.post("/v1/entities/merge", json=body)
        assert answer.status_code == 422, body
        assert answer.json()["errors"]
    for cursor in ("%%%", "e30", "WzFd"):
        assert (await client.get("/v1/entities/org:paypal", params={"cursor": cursor})).status_code == 422
        assert (await client.get("/v1/entities", params={"cursor": cursor})).status_code == 422


async def test_another_tenant_sees_none_of_it(client: httpx2.AsyncClient, service: Service) -> None:
    async with open_resources(service.settings) as resources:
        other = await resources.tenants.ensure(f"{service.tenant}-other", 1)
        key = await resources.api_keys.create(other.name, name="stranger")
    assert (await client.get("/v1/entities")).json()["entities"] != []
    async with service.client(key) as stranger:
        assert (await stranger.get("/v1/entities")).json()["entities"] == []
        assert (await stranger.get("/v1/entities/org:paypal")).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "pointer", "remedy"),
    [
        ("/v1/entities/merge", {"entities": ["New York", "place:nyc"]}, "/entities/0", "GET /v1/entities has them"),
        ("/v1/entities/split", {"entities": ["place:nyc"]}, "/entities", "send 2 or more"),
        ("/v1/entities/merge", {"entities": "place:nyc"}, "/entities", "send an array"),
        ("/v1/entities/merge", {"entities": ["place:a", "place:b"], "note": 7}, "/note", "send a string"),
        ("/v1/entities/merge", {"entities": ["place:a", "place:b"], "why": "x"}, "/why", "remove it"),
        ("/v1/graph/query", {"start": [{"id": "e1"}], "links": 90}, "/links", "send 50 or less"),
        ("/v1/graph/query", {"start": [{"id": "e1"}], "min_score": "x"}, "/min_score", "send a number"),
        ("/v1/graph/query", {"start": [{"id": "e1"}], "edges": ["NEAR"]}, "/edges/0", "'SIMILAR_TO'"),
        ("/v1/graph/query", {"start": ["e1"]}, "/start/0", "send an object"),
    ],
)
async def test_a_refusal_says_what_to_change(
    http: httpx2.AsyncClient, path: str, body: dict[str, object], pointer: str, remedy: str
) -> None:
    answer = await http.post(path, json=body)
    assert answer.status_code == 422
    [problem] = answer.json()["errors"]
    assert problem["pointer"] == pointer
    assert remedy in problem["remedy"]
    assert "nput should" not in answer.text, "no words of the library that checks"
    label = await http.get("/v1/entities", params={"label": "Person!"})
    assert "person, org" in label.json()["errors"][0]["remedy"]
