"""The test fixtures themselves: a clean real Redis, and a check that sees a key without a home."""

from __future__ import annotations

from context_graph.settings import Settings
from context_graph.store.connection import RedisClient, open_redis
from context_graph.store.keys import CATALOGUE, home_of
from tests.conftest import homeless_keys


async def _with(client: RedisClient, key: str) -> list[str]:
    await client.set(key, "1")
    found = await homeless_keys(client)
    await client.delete(key)
    return found


async def test_a_key_without_a_home_is_seen(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        assert await _with(client, "stray") == ["stray (string)"]
        assert await _with(client, "cg:worker:projection-1") == []


async def test_a_key_of_another_type_than_the_catalogue_says_is_seen(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        assert await _with(client, "cg:tenants") == ["cg:tenants is a string, not a hash"]


async def test_every_test_begins_with_an_empty_redis(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        assert await client.dbsize() == 0
        assert await client.execute_command("FT._LIST") == []  # type: ignore[no-untyped-call]
        await client.hset("cg:tenants", "default", "{}")


async def test_and_so_does_the_next_one(redis_url: str) -> None:
    await test_every_test_begins_with_an_empty_redis(redis_url)


def test_settings_point_to_the_tests_own_redis(settings: Settings, redis_url: str) -> None:
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == redis_url


def test_every_row_of_the_catalogue_names_a_type_a_side_and_a_lifetime() -> None:
    assert all(row.type in ("hash", "string", "stream", "list", "zset", "set") for row in CATALOGUE)
    assert all(row.side in ("ledger", "derived") and row.lifetime for row in CATALOGUE)
    assert home_of("cg:{other.0}") is None
