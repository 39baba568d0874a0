"""Erased is erased: a canary in what was said about one of several people is nowhere afterwards."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from typer.testing import CliRunner

from context_graph.bootstrap import Resources, open_resources
from context_graph.cli.main import build_app
from context_graph.domain.erasure import Erasure, Subject
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.stages import STAGES
from context_graph.errors import ErasureUnavailable
from context_graph.ingest.erasure import Forgetting
from context_graph.local.redis_server import EmbeddedRedis
from context_graph.settings import Settings
from context_graph.store.connection import RedisClient
from context_graph.store.keys import GraphKeys, PartitionKeys
from enrichment.reconsolidation.run import consolidate
from tests.events import event, post_all, settled
from tests.graph_state import graph_state
from tests.service import Service
from tests.waiting import until

OTHERS = ("lena", "omar", "pia")


@dataclass(frozen=True, slots=True)
class Told:
    """A tenant in which several people were spoken about; `canary` only with `person`."""

    person: str
    canary: str
    name: str
    partition: Partition
    results: list[dict[str, Any]]
    events: list[dict[str, Any]]


@pytest.fixture
async def resources(service: Service) -> AsyncIterator[Resources]:
    async with open_resources(service.settings) as opened:
        yield opened


@pytest.fixture
async def told(service: Service, http: httpx2.AsyncClient, resources: Resources) -> Told:
    """Everything that quotes is there: documents, vectors, entities, a summary, a receipt, a dead letter."""
    canary, name = f"canary{secrets.token_hex(5)}", f"ZX-{secrets.randbelow(10**8):08d}"
    person = f"nadia-{secrets.token_hex(4)}"
    texts = [
        f"The order for {name} failed in Berlin with code {canary}, please refund it at once.",
        f"I always want {canary} sent to my office in Berlin and never to my home address.",
        f"My new address is 12 {canary} street, and Microsoft paid the invoice of last month.",
    ]
    events = [
        event(number, user_id=person, session_id="shared", payload={"text": text}) for number, text in enumerate(texts)
    ]
    for place, other in enumerate(OTHERS):
        events += [
            event(10 * (place + 1) + n, user_id=other, session_id="shared", payload={"text": text})
            for n, text in enumerate(
                (f"{other} asked where the parcel to Berlin is now.", f"{other} was told by Microsoft.")
            )
        ]
    events.append(event(90, session_id="other", payload={"text": "Nobody in particular went to Berlin by train."}))
    results = await post_all(http, events)
    await settled(http, results)
    tenant = (await resources.tenants.ensure(service.tenant, 1)).partitions[0]
    assert (await consolidate(resources, tenant, "test")).summarised == 1
    summary = await resources.ledger.last(tenant)
    assert summary is not None
    await settled(http, [{"position": str(summary)}])
    await resources.dead_letters.bury(
        tenant, "projection", Position.parse(results[0]["position"]),
        event_id="e0", reason=f"ValueError: {canary}", traceback=canary, deliveries=1,
    )  # fmt: skip
    served = await http.post("/v1/context", json={"query": f"what about {canary}?", "token_budget": 500})
    assert canary in served.text
    return Told(person, canary, name, tenant, results, events)


async def everything(redis: RedisClient) -> bytes:
    """Every key and every value of every type."""
    found: list[Any] = []
    async for key in redis.scan_iter(count=1000):
        kind: Any = await redis.type(key)
        found.append(key)
        if kind == b"hash":
            found.append(await redis.hgetall(key))
        elif kind == b"zset":
            found.append(await redis.zrange(key, 0, -1))
        elif kind == b"stream":
            found.append(await redis.xrange(key))
        elif kind == b"list":
            found.append(await redis.lrange(key, 0, -1))
        elif kind == b"set":
            found.append(await redis.smembers(key))
        elif kind == b"string":
            found.append(await redis.get(key))
    return repr(found).encode()


def files_of(server: EmbeddedRedis) -> bytes:
    """What the server keeps on disk."""
    folder = Path(server.program.argv[1]).parent / "redis"
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def found(http: httpx2.AsyncClient, query: str) -> list[str]:
    answer = await http.post("/v1/search", json={"query": query, "mode": "keyword", "limit": 50})
    return [result["id"] for result in answer.json()["results"]]


async def test_after_the_erasure_of_a_person_the_canary_is_nowhere_and_the_others_are_untouched(
    told: Told, http: httpx2.AsyncClient, resources: Resources, service_redis: EmbeddedRedis,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    secret = told.canary.encode()
    assert secret in await everything(resources.ledger_redis)
    assert secret in files_of(service_redis)
    assert await found(http, told.canary)

    answer = await http.delete(f"/v1/users/{told.person}?wait_ms=60000")

    assert answer.status_code == 200, answer.text
    certificate = answer.json()
    assert certificate["state"] == "done"
    assert certificate["left_in_clear"] == 0
    assert len(certificate["keys_destroyed"]) == len(certificate["tombstones"]) == 1
    assert certificate["positions"]["0"] == {
        "first": told.results[0]["position"], "last": told.results[2]["position"]
    }  # fmt: skip
    removed = certificate["removed"]
    assert removed["documents"] == removed["vectors"] == 3
    assert removed["summaries"] == removed["dead_letters"] == removed["timelines"] == 1
    assert removed["entities"] >= 1
    assert certificate["files"]["ledger"] == "append-only file written anew"

    remains = await everything(resources.ledger_redis)
    for trace in (told.canary, told.name, told.name.casefold(), told.person):
        assert trace.encode() not in remains, trace
        assert trace.encode() not in files_of(service_redis), trace
    assert told.canary not in "".join(capfd.readouterr())
    assert await found(http, told.canary) == []
    assert {"e10", "e20", "e30", "e90"} <= set(await found(http, "Berlin"))  # another one's entity stays
    for posted in told.events[3:]:
        read = (await http.get(f"/v1/events/{posted['event_id']}")).json()
        assert read["payload"] == posted["payload"]
        assert "erased" not in read

    again = (await http.get(f"/v1/erasures/{certificate['id']}")).json()
    assert again == certificate


async def test_an_erased_event_is_read_as_a_tombstone_and_nothing_more_is_taken_about_its_person(
    told: Told, http: httpx2.AsyncClient
) -> None:
    first = await http.delete(f"/v1/users/{told.person}")
    read = (await http.get("/v1/events/e0")).json()
    assert read["erased"] is True
    assert not {"payload", "user_id"} & read.keys()
    assert read["position"] == told.results[0]["position"]

    again = await http.post("/v1/events", json=told.events[0])
    new = await http.post("/v1/events", json=event(77, user_id=told.person))
    for refused in (again, new):
        assert refused.status_code == 410, refused.text
        assert refused.json()["code"] == "user-erased"
    mixed = await http.post("/v1/events/batch", json={"events": [told.events[1], told.events[3], event(78)]})
    assert [result["status"] for result in mixed.json()["results"]] == ["invalid", "duplicate", "created"]
    twice = await http.delete(f"/v1/users/{told.person}")
    assert twice.json()["id"] == first.json()["id"]
    served = await http.post("/v1/context", json={"query": "anything", "user_id": told.person, "token_budget": 100})
    assert served.status_code == 200
    assert served.json()["receipt_id"] is None


async def test_what_was_decided_about_a_persons_names_goes_with_the_person_and_no_other_decision(
    told: Told, http: httpx2.AsyncClient, resources: Resources
) -> None:
    listed = (await http.get("/v1/entities")).json()["entities"]
    names = {name["id"] for entity in listed for name in entity["names"]}
    [hers] = [name for name in names if told.name.casefold() in name.casefold()]
    berlin, microsoft = "place:berlin", next(name for name in names if "microsoft" in name)
    for pair, note in (([hers, berlin], f"says {told.canary}"), ([berlin, microsoft], "both known to everybody")):
        answer = await http.post("/v1/entities/merge", json={"entities": pair, "note": note})
        await settled(http, [answer.json()])
    decided = GraphKeys(told.partition).entity_decisions
    assert await resources.derived_redis.zcard(decided) == 4

    answer = await http.delete(f"/v1/users/{told.person}?wait_ms=60000")

    assert answer.json()["state"] == "done"
    remains = await everything(resources.ledger_redis)
    assert told.canary.encode() not in remains
    assert told.name.casefold().encode() not in remains
    assert await resources.derived_redis.zcard(decided) == 2
    [link] = (await http.get(f"/v1/entities/{berlin}")).json()["same_as"]
    assert {link["source"], link["target"]} == {berlin, microsoft}


async def test_a_rebuild_from_the_erased_ledger_makes_what_the_erasure_left(
    told: Told, http: httpx2.AsyncClient, resources: Resources
) -> None:
    answer = await http.delete(f"/v1/users/{told.person}?wait_ms=60000")
    assert answer.status_code == 200, answer.text
    last = await resources.ledger.last(told.partition)
    assert last is not None

    async def all_passed() -> bool:
        states = [await resources.groups.state(told.partition, stage.group) for stage in STAGES]
        return all(state.has_passed(last) for state in states)

    await until(all_passed)
    left = await graph_state(resources.derived_redis, told.partition)
    async for key in resources.derived_redis.scan_iter(match=f"{GraphKeys(told.partition).tag}:*"):
        await resources.derived_redis.delete(key)
    for stage in STAGES:
        await resources.ledger_redis.xgroup_destroy(PartitionKeys(told.partition).ledger, stage.group)

    await until(all_passed)
    assert told.canary.encode() not in await everything(resources.ledger_redis)
    assert await graph_state(resources.derived_redis, told.partition) == left


async def test_the_next_consolidation_writes_the_summary_anew_without_the_erased_person(
    told: Told, http: httpx2.AsyncClient, resources: Resources
) -> None:
    before = await resources.graph.summary(told.partition, "session/shared")
    assert before is not None
    await http.delete(f"/v1/users/{told.person}?wait_ms=60000")
    assert await resources.graph.summary(told.partition, "session/shared") is None
    assert (await consolidate(resources, told.partition, "test")).summarised == 1
    last = await resources.ledger.last(told.partition)
    await settled(http, [{"position": str(last)}])
    after = await resources.graph.summary(told.partition, "session/shared")
    assert after is not None
    assert after.id != before.id
    assert not {"e0", "e1", "e2"} & set(after.event_ids)


async def test_a_session_can_be_erased_with_what_was_said_in_it_about_whomever(
    told: Told, http: httpx2.AsyncClient, resources: Resources, service_redis: EmbeddedRedis
) -> None:
    quiet = f"murmur{secrets.token_hex(5)}"
    results = await post_all(http, [event(50, session_id="quiet", payload={"text": f"it was {quiet} in Berlin"})])
    await settled(http, results)
    for session in ("shared", "quiet"):
        answer = await http.delete(f"/v1/sessions/{session}?wait_ms=60000")
        assert answer.status_code == 200, answer.text
        assert answer.json()["kind"] == "session"
    remains = await everything(resources.ledger_redis)
    for trace in (told.canary, quiet):
        assert trace.encode() not in remains
        assert trace.encode() not in files_of(service_redis)
    refused = await http.post("/v1/events", json=event(51, session_id="quiet"))
    assert refused.json()["code"] == "session-erased"
    assert (await http.post("/v1/events", json=event(52, session_id="third", user_id="lena"))).status_code == 201
    assert await found(http, "train") == ["e90"]


async def test_somebody_unknown_can_be_erased_in_advance(http: httpx2.AsyncClient) -> None:
    answer = await http.delete("/v1/users/who%2Fever?wait_ms=60000")
    assert answer.status_code == 200, answer.text
    assert answer.json()["keys_destroyed"] == []
    refused = event(1, user_id="who/ever")
    assert (await http.post("/v1/events", json=refused)).status_code == 410
    imported = (await http.post("/v1/events/import", content=orjson.dumps(refused))).json()
    assert imported["first_errors"][0]["code"] == "user-erased"


async def test_erasure_needs_the_admin_scope_and_a_certificate_its_own_tenant(
    service: Service, http: httpx2.AsyncClient, resources: Resources
) -> None:
    done = (await http.delete("/v1/users/somebody?wait_ms=60000")).json()
    tenant = await resources.tenants.ensure(f"t{secrets.token_hex(6)}", 1)
    other = await resources.api_keys.create(tenant.name, name="other")
    reader = await resources.api_keys.create(
        (await resources.tenants.ensure(service.tenant, 1)).name, name="r", scopes=["read"]
    )
    async with service.client(other) as client:
        assert (await client.get(f"/v1/erasures/{done['id']}")).status_code == 404
        assert (await client.post("/v1/events", json=event(1, user_id="somebody"))).status_code == 201
    async with service.client(reader) as client:
        assert (await client.delete("/v1/users/somebody")).status_code == 403


async def test_the_services_own_session_is_not_erased(http: httpx2.AsyncClient) -> None:
    answer = await http.delete("/v1/sessions/context-graph")
    assert (answer.status_code, answer.json()["code"]) == (409, "erasure-unavailable")


async def test_without_a_master_key_erasing_says_what_to_set(settings: Settings) -> None:
    async with open_resources(settings) as resources:
        tenant = await resources.tenants.ensure("acme", 1)
        forgetting = Forgetting(resources.erasures, resources.vault, resources.hiding, now_ms=lambda: 0)
        with pytest.raises(ErasureUnavailable, match="CG_VAULT__MASTER_KEY"):
            await forgetting.forget(tenant, Subject("user", "nadia"), 0)


async def test_an_erasure_that_was_interrupted_before_it_struck_is_finished_by_a_worker(
    service: Service, http: httpx2.AsyncClient, resources: Resources
) -> None:
    await post_all(http, [event(1, user_id="nadia", payload={"text": "hello"})])
    tenant = await resources.tenants.ensure(service.tenant, 1)
    record = Erasure("erasure-interrupted", "user", "running", 0, "nadia")
    keys = PartitionKeys(tenant.partitions[0])
    await resources.ledger_redis.hset(keys.erasures, record.id, orjson.dumps(asdict(record)))
    await resources.ledger_redis.sadd(keys.erasing, record.id)

    async def done() -> bool:
        return bool((await http.get(f"/v1/erasures/{record.id}")).json()["state"] == "done")

    await until(done)
    assert (await http.get("/v1/events/e1")).json()["erased"] is True


async def test_the_command_line_forgets_and_prints_the_certificate(service: Service, http: httpx2.AsyncClient) -> None:
    await post_all(http, [event(1, user_id="nadia", payload={"text": "hello"})])
    arguments = ["forget", "--user", "nadia", "--yes", "--json", "--url", service.url, "--key", service.key]
    outcome = await asyncio.to_thread(CliRunner().invoke, build_app(), arguments)
    assert outcome.exit_code == 0, outcome.output
    assert '"state": "done"' in outcome.stdout
    assert (await http.get("/v1/events/e1")).json()["erased"] is True
