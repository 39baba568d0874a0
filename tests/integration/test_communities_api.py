"""Communities over HTTP: what is mentioned together, page by page, with sentences that lead to events."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from context_graph.api.moments import parse_as_of
from context_graph.bootstrap import open_resources
from context_graph.domain.event import TenantId
from context_graph.resolution import mentioned
from enrichment.reconsolidation.run import consolidate
from tests.events import event, post_all, settled
from tests.quality.long_life import retrieval_of
from tests.service import Service
from tests.waiting import until

GARDEN = ("rose@garden.org", "soil@garden.org", "spade@garden.org", "seed@garden.org")
HARBOUR = ("ship@harbour.org", "crane@harbour.org", "quay@harbour.org")


def talk(session: str, names: tuple[str, ...], start: int) -> list[dict[str, Any]]:
    threes = [" and ".join((names * 2)[i % len(names) :][:3]) for i in range(8)]
    texts = [f"We wrote to {three} in round {i}." for i, three in enumerate(threes)]
    return [event(start + i, session_id=session, user_id=session, payload={"text": t}) for i, t in enumerate(texts)]


async def test_communities_their_sessions_and_a_summary_that_cites(http: httpx2.AsyncClient, service: Service) -> None:
    assert (await http.get("/v1/communities")).json()["communities"] == []
    results = await post_all(http, [*talk("garden", GARDEN, 0), *talk("harbour", HARBOUR, 20)])
    await settled(http, results)
    first = (await http.get("/v1/communities", params={"limit": 1})).json()
    [garden] = first["communities"]
    assert (garden["size"], {member["entity"] for member in garden["members"]}) == (4, {f"email:{n}" for n in GARDEN})
    rest = (await http.get("/v1/communities", params={"limit": 1, "cursor": first["page"]["next_cursor"]})).json()
    [harbour] = rest["communities"]
    assert {member["entity"] for member in harbour["members"]} == {f"email:{n}" for n in HARBOUR}
    assert rest["page"]["next_cursor"] is None
    before = (await http.get("/v1/communities", params={"as_of": results[7]["position"]})).json()
    assert [one["id"] for one in before["communities"]] == [garden["id"]]
    bare = (await http.get(f"/v1/communities/{garden['id']}")).json()
    assert (bare["sessions"], bare["summary"]) == ([{"session_id": "garden", "events": 8}], None)
    await _summarised(service)

    async def told() -> bool:
        return (await http.get(f"/v1/communities/{garden['id']}")).json()["summary"] is not None

    await until(told, seconds=20)
    sentences = (await http.get(f"/v1/communities/{garden['id']}")).json()["summary"]["sentences"]
    for sentence in sentences:
        for event_id in sentence["event_ids"]:
            source = (await http.get(f"/v1/events/{event_id}")).json()
            assert sentence["text"] in source["payload"]["text"]
    assert (await http.get("/v1/communities/nobody")).status_code == 404
    erased = await http.delete("/v1/sessions/garden?wait_ms=30000")
    assert erased.json()["state"] == "done", erased.text
    assert [one["id"] for one in (await http.get("/v1/communities")).json()["communities"]] == [harbour["id"]]
    assert (await http.get(f"/v1/communities/{garden['id']}")).status_code == 404


async def test_names_that_are_one_thing_are_one_member_and_unchanged_mentions_are_not_cut_again(
    http: httpx2.AsyncClient, service: Service
) -> None:
    await settled(http, await post_all(http, talk("garden", GARDEN, 0)))
    rose, soil = "email:rose@garden.org", "email:soil@garden.org"

    async def garden(**params: str) -> dict[str, Any]:
        [found] = (await http.get("/v1/communities", params=params)).json()["communities"]
        return dict((await http.get(f"/v1/communities/{found['id']}", params=params)).json())

    before = await garden()
    assert (before["size"], before["names"]) == (4, {})
    merged = await http.post("/v1/entities/merge", json={"entities": [rose, soil]})
    await settled(http, [merged.json()])
    after = await garden()
    [(shown, names)] = after["names"].items()
    assert (after["size"], shown in names, names) == (3, True, [rose, soil])
    assert (await garden(as_of=_before(merged.json()["position"])))["size"] == 4
    split = await http.post("/v1/entities/split", json={"entities": [rose, soil]})
    await settled(http, [split.json()])
    assert {**await garden(), "meta": None} == {**before, "meta": None}
    async with open_resources(service.settings) as resources:
        tenant = await resources.tenants.get(TenantId(service.tenant))
        assert tenant is not None
        ours, cuts = retrieval_of(resources).communities, list[str]()
        first = await ours.all(tenant, None, cuts.append)
        assert await ours.all(tenant, None, cuts.append) is first
        await settled(http, await post_all(http, talk("harbour", HARBOUR, 20)))
        assert len(await ours.all(tenant, None, cuts.append)) == 2
        assert cuts == []


async def test_communities_as_of_a_position_are_of_the_entities_mentioned_last_then(
    http: httpx2.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    garden = await post_all(http, talk("garden", GARDEN, 0))
    await settled(http, await post_all(http, talk("harbour", HARBOUR, 20)))
    monkeypatch.setattr(mentioned, "_ENTITIES", len(GARDEN))
    async with open_resources(service.settings) as resources:
        tenant = await resources.tenants.get(TenantId(service.tenant))
        assert tenant is not None
        found, cuts = retrieval_of(resources).communities, list[str]()
        (then,) = await found.all(tenant, parse_as_of(garden[-1]["position"]), cuts.append)
        assert {member.entity_id for member in then.members} == {f"email:{name}" for name in GARDEN}
        assert cuts == []
        now = await found.all(tenant, None, cuts.append)
        assert {m.entity_id for one in now for m in one.members} >= {f"email:{name}" for name in HARBOUR}
        assert sum(len(one.members) for one in now) <= len(GARDEN)
        assert cuts == ["communities: only of the 4 entities mentioned last"]


def _before(position: str) -> str:
    bucket, ms, seq = position.split("-")
    return f"{bucket}-{int(ms) - 1}-{seq}"


async def _summarised(service: Service) -> None:
    async with open_resources(service.settings) as resources:
        tenant = await resources.tenants.get(TenantId(service.tenant))
        assert tenant is not None
        for partition in tenant.partitions:
            await consolidate(resources, partition, "test")
