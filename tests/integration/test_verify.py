"""`verify`: the live generation against a replay of the ledger. It finds what somebody changed, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.partition import Tenant
from context_graph.errors import NotNow
from context_graph.operations import load_verify
from context_graph.store.entities import name_members
from context_graph.store.keys import GraphKeys, PartitionKeys
from enrichment.reconsolidation.worker import once
from projections import passing as module
from tests.events import event
from tests.ledger_events import append, envelope, parsed
from tests.rebuilding import caught_up, tenant_of, working


@pytest.fixture
async def tenant(resources: Resources) -> Tenant:
    return await tenant_of(resources)


async def report_of(resources: Resources, tenant: Tenant) -> Mapping[str, Any]:
    return await load_verify()(resources, tenant)


async def told(resources: Resources, tenant: Tenant) -> list[str]:
    """What differs, in words: kind, name, how."""
    report = await report_of(resources, tenant)
    assert report["equal"] is (report["ledger_hash"] == report["live_hash"]) is (not report["differences"])
    return [f"{found['kind']} {found['name']} {found['what']}" for found in report["differences"]]


async def test_what_the_stages_made_is_what_the_ledger_leads_to_and_every_change_of_it_is_named(
    resources: Resources, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    [partition] = tenant.partitions
    monkeypatch.setattr("projections.compare._PAUSE", 0)
    events = [
        event(
            n, session_id=f"s{n % 2}", user_id="nadia", tool_name="refund", caused_by=[f"e{(n + 3) % 24}"],
            payload={"text": f"The parcel number {n} was sent to the office in Hamburg. It has to be paid by {n} May."},
        )
        for n in range(24)
    ]  # fmt: skip
    await append(resources.ledger, partition, parsed(events))
    async with working(resources):
        await caught_up(resources, partition)
        await once(resources)  # summaries are events of the ledger, and the newest of a scope is what there is
        await caught_up(resources, partition)
    await _says_what_was_made(resources, tenant)
    await _names_keys_of_wrong_types(resources, tenant)
    await _names_every_change(resources, tenant)


async def _says_what_was_made(resources: Resources, tenant: Tenant) -> None:
    report = await report_of(resources, tenant)
    assert report["equal"] is True, report["differences"]
    assert report["ledger_counts"]["summary"] == 2
    assert {kind: n for kind, n in report["live_counts"].items() if n} == {
        kind: n for kind, n in report["ledger_counts"].items() if n
    }


async def _names_keys_of_wrong_types(resources: Resources, tenant: Tenant) -> None:
    [partition] = tenant.partitions
    redis, keys = resources.derived_redis, GraphKeys(partition)
    kinds = {name.decode().split(":")[3]: name.decode() async for name in redis.scan_iter(match=f"{keys.tag}:*")}
    unread = {
        "consolidated",
        "consolidation",
        "sessions-of",
        "started",
    }  # no part of the state
    assert kinds.keys() > unread | {"vec", "doc", "event", "entity", "names", "registry", "summary", "versions"}
    for kind in sorted(kinds.keys() - unread):
        before = await redis.dump(kinds[kind])
        assert before is not None
        await redis.delete(kinds[kind])
        await redis.set(kinds[kind], "nobody's")
        differing = (await report_of(resources, tenant))["differences"]
        named = {found["name"]: found["right"] for found in differing if found["kind"] == "key"}
        assert "context-graph rebuild --promote" in named[kinds[kind].removeprefix(f"{keys.tag}:")]["remedy"], kind
        await redis.restore(kinds[kind], 0, before, replace=True)
    assert (await report_of(resources, tenant))["equal"] is True


async def _names_every_change(resources: Resources, tenant: Tenant) -> None:
    [partition] = tenant.partitions
    redis, keys = resources.derived_redis, GraphKeys(partition)
    [node] = (await resources.graph.events(partition, ["e7"])).values()
    member = node.position.sort_key + "e7"
    mine, city, place = keys.timeline("user", "nadia"), "place:hamburg", "entity:place:hamburg"
    mentions = await redis.hget(keys.event("e7"), "mentions")
    assert mentions is not None
    changes: list[tuple[Callable[[], Awaitable[Any]], str]] = [
        (lambda: redis.hset(keys.event("e7"), "status", "failed"), "event e7 differs in status"),
        (lambda: redis.hdel(keys.event("e7"), "status"), ""),
        (lambda: redis.zincrby(mine, 1, member), f"timeline user:nadia {member} differs in occurred"),
        (lambda: redis.zincrby(mine, -1, member), ""),
        (lambda: redis.zrem(keys.effects("e10"), member), f"effect e10 {member} only on the left"),
        (lambda: redis.zadd(keys.effects("e10"), {member: node.occurred_at}), ""),
        (lambda: redis.zrem(keys.registry("tool"), "refund"), "registered tool:refund differs in known"),
        (lambda: redis.zadd(keys.registry("tool"), {"refund": 2**42}), ""),
        (lambda: redis.hset(keys.event("e7"), "mentions", b"[]"), "entities e7 differs in mentions"),
        (lambda: redis.hset(keys.event("e7"), "mentions", mentions), ""),
        (lambda: redis.zrem(keys.timeline("entity", city), member), f"timeline {place} {member} only on the left"),
        (lambda: redis.zadd(keys.timeline("entity", city), {member: node.occurred_at}), ""),
        (lambda: redis.zrem(keys.entity_names, name_members(city)[-1]), f"registered {place} differs in known"),
        (lambda: redis.zadd(keys.entity_names, {name_members(city)[-1]: 0}), ""),
    ]  # fmt: skip
    for change, expected in changes:
        await change()
        assert await told(resources, tenant) == ([expected] if expected else [])

    await redis.hset(keys.document("e3"), "t", "something that nobody said")
    await redis.delete(keys.vector("e4"))
    await redis.hset(keys.event("ghost"), mapping={"pos": str(node.position), "type": "a.b"})
    assert sorted(await told(resources, tenant)) == [
        "document e3 differs in t",
        "event ghost only on the right",
        "vector e4 only on the left",
    ]


async def test_it_says_which_stage_is_behind_instead_of_comparing(
    resources: Resources, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0)
    [partition] = tenant.partitions
    await append(resources.ledger, partition, [envelope(1)])
    told: list[str] = []
    with pytest.raises(NotNow, match="projection by 1 events"):
        await load_verify()(resources, tenant, told.append)
    assert [line.partition("(")[2] for line in told] == [
        "projection by 1 events, indexing by 1 events, enrichment by 1 events): waited 0 s of at most 0"
    ]


async def test_it_waits_as_long_as_it_says_over_all_partitions(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 1.0)
    tenant = await tenant_of(resources, "two", buckets=2)
    for partition in tenant.partitions:
        await append(resources.ledger, partition, [envelope(partition.bucket)])
    recipe = (await resources.generations.read(tenant.name)).recipes.get(1)
    told: list[str] = []
    passing = module.Passing(resources, 1, recipe, told.append)
    began = time.monotonic()
    for partition in tenant.partitions:
        last = await resources.ledger.last(partition)
        assert last is not None
        with pytest.raises(NotNow, match="after 1 s; run their workers"):
            await passing.passed(partition, last)
    assert 1.0 <= time.monotonic() - began < 1.9
    assert [line.partition(": waited ")[2] for line in told] == ["0 s of at most 1", "1 s of at most 1"]


async def test_events_that_were_trimmed_by_hand_are_counted_and_not_taken_for_events_that_never_were(
    resources: Resources, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.compare._PAUSE", 0)
    [partition] = tenant.partitions
    await append(resources.ledger, partition, [envelope(n) for n in range(6)])
    async with working(resources):
        await caught_up(resources, partition)
    await resources.ledger_redis.xtrim(PartitionKeys(partition).ledger, maxlen=4, approximate=False)
    report = await report_of(resources, tenant)
    assert (report["equal"], report["events"], report["events_missing"]) == (False, 4, 2)


async def test_entries_that_are_no_events_are_counted_and_hide_nothing(resources: Resources, tenant: Tenant) -> None:
    [partition] = tenant.partitions
    ledger = PartitionKeys(partition).ledger
    await append(resources.ledger, partition, [envelope(1)])
    await resources.ledger_redis.xadd(ledger, {"x": "1"})
    await resources.ledger_redis.xadd(ledger, {"e": "garbage"})
    await append(resources.ledger, partition, [envelope(2)])
    async with working(resources):
        await caught_up(resources, partition)
        report = await report_of(resources, tenant)
    assert (report["equal"], report["events"], report["unreadable"]) == (True, 4, 2), report["differences"]
