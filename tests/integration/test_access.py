"""Tenants and keys at rest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.event import SessionId, TenantId
from context_graph.errors import ConfigurationError
from context_graph.store.access import SCOPES, Credential


async def test_a_key_is_nowhere_in_redis_in_clear(resources: Resources) -> None:
    key = await resources.api_keys.create(TenantId("acme"), name="bff")
    secret = key.removeprefix("cg_").encode()
    stored: list[Any] = []
    async for name in resources.ledger_redis.scan_iter():
        content = await resources.ledger_redis.dump(name)
        stored += [name, content or b""]
        if await resources.ledger_redis.type(name) == b"hash":
            fields = await resources.ledger_redis.hgetall(name)  # DUMP may compress
            stored += [part for pair in fields.items() for part in pair]
    assert stored
    assert not any(secret in content for content in stored)
    assert len(secret) >= 43  # 256 bits


async def test_a_key_stands_for_its_tenant_name_and_scopes(resources: Resources) -> None:
    keys = resources.api_keys
    assert not await keys.any()
    full = await keys.create(TenantId("acme"), name="all")
    narrow = await keys.create(TenantId("other"), name="reader", scopes=["read"])
    assert full != narrow
    assert await keys.verify(full) == Credential(TenantId("acme"), "all", frozenset(SCOPES))
    assert await keys.verify(narrow) == Credential(TenantId("other"), "reader", frozenset({"read"}))
    assert await keys.any()


async def test_any_other_text_is_no_key(resources: Resources) -> None:
    key = await resources.api_keys.create(TenantId("acme"), name="bff")
    digest: Any
    [digest] = await resources.ledger_redis.hkeys("cg:api-keys")
    for text in ("", "cg_", key[:-1], key + "x", key.upper(), f" {key}", digest.decode(), "\x00", "ü"):
        assert await resources.api_keys.verify(text) is None, text


async def test_an_unknown_scope_is_refused_by_name_and_makes_no_key(resources: Resources) -> None:
    with pytest.raises(ConfigurationError, match="root"):
        await resources.api_keys.create(TenantId("acme"), name="bff", scopes=["read", "root"])
    assert not await resources.api_keys.any()


async def test_the_number_of_buckets_stays_as_it_was_made(resources: Resources) -> None:
    made = await asyncio.gather(*(resources.tenants.ensure("acme", buckets) for buckets in (4, 4, 4)))
    assert {tenant.buckets for tenant in made} == {4}
    again = await resources.tenants.ensure("acme", 16)
    assert again.buckets == 4
    assert await resources.tenants.get(TenantId("acme")) == again
    sessions = [SessionId(f"s{number}") for number in range(200)]
    assert {again.partition_of(session) for session in sessions} == set(again.partitions)


async def test_tenants_are_listed_by_name_and_unknown_ones_are_none(resources: Resources) -> None:
    assert await resources.tenants.all() == []
    for name in ("b", "a", "c-1"):
        await resources.tenants.ensure(name, 1)
    assert [tenant.name for tenant in await resources.tenants.all()] == ["a", "b", "c-1"]
    assert await resources.tenants.get(TenantId("nobody")) is None


@pytest.mark.parametrize("name", ["", "A", "a.b", "a}", "{a", "a:b", "a b", "-a", "x" * 64])
async def test_a_name_that_could_imitate_another_tenants_keys_is_refused(resources: Resources, name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        await resources.tenants.ensure(name, 1)
    assert await resources.tenants.all() == []


@pytest.mark.parametrize("buckets", [0, -1])
async def test_a_tenant_has_at_least_one_bucket(resources: Resources, buckets: int) -> None:
    with pytest.raises(ConfigurationError, match="bucket"):
        await resources.tenants.ensure("acme", buckets)
    assert await resources.tenants.all() == []
