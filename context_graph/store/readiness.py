"""Whether a Redis answers, what it says of itself, and which workers live.

Owns the first contact with a server: waiting while it starts or loads its data, and reading the facts by which
`domain/redis_safety.py` judges it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from context_graph.domain.redis_safety import RedisFacts
from context_graph.errors import StoreUnavailable
from context_graph.store.connection import RedisClient, store_errors

_PAUSE = 0.05  # seconds between two knocks at a server that is starting


async def wait_until_ready(url: str, seconds: float) -> None:
    """Return when the server at `url` answers and has loaded its data.

    Raises StoreUnavailable with the last answer after `seconds`, and at once when the password is refused: waiting
    does not cure that.
    """
    client: RedisClient = Redis.from_url(
        url, protocol=2, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
    )
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                await client.ping()
                return
            except exceptions.AuthenticationError as error:
                raise StoreUnavailable(f"Redis refuses the password: {error}") from error
            except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
                if time.monotonic() >= deadline:
                    raise StoreUnavailable(f"Redis was not ready within {seconds:.0f} s: {error}") from error
            await asyncio.sleep(_PAUSE)
    finally:
        await client.aclose()


async def read_redis_facts(client: RedisClient) -> RedisFacts:
    """What the server says of itself. Raises StoreUnavailable."""
    with store_errors("reading the server's configuration"):
        info: dict[str, Any] = await client.info("everything")
        configuration = await _configuration(client)
    return RedisFacts(
        version=str(info["redis_version"]),
        search_version=_search_version(info),
        append_only=bool(info.get("aof_enabled", 0)),
        fsync=configuration.get("appendfsync"),
        eviction=configuration.get("maxmemory-policy", info.get("maxmemory_policy")),
        max_memory=int(info.get("maxmemory", 0)),
        used_memory=int(info.get("used_memory", 0)),
        last_append_ok=info.get("aof_last_write_status", "ok") == "ok",
        last_rewrite_ok=info.get("aof_last_bgrewrite_status", "ok") == "ok",
        replicas=int(info.get("connected_slaves", 0)),
        packed_hash=int(packed) if (packed := configuration.get("hash-max-listpack-value")) is not None else None,
    )


async def memory_share(client: RedisClient) -> float:
    """Used memory as a share of `maxmemory`, 0.0 without a limit. Raises StoreUnavailable."""
    with store_errors("reading the server's memory"):
        info: dict[str, Any] = await client.info("memory")
    limit = int(info.get("maxmemory", 0))
    return int(info["used_memory"]) / limit if limit else 0.0


async def _configuration(client: RedisClient) -> dict[str, str]:
    """The settings that INFO does not show on every server; empty where CONFIG is forbidden."""
    try:
        answer: Any = await client.config_get("appendfsync", "maxmemory-policy", "hash-max-listpack-value")
    except exceptions.NoPermissionError:
        return {}
    except exceptions.ResponseError as error:
        if "unknown command" not in str(error).lower():
            raise
        return {}
    return {_text(name): _text(value) for name, value in answer.items()}


def _search_version(info: dict[str, Any]) -> str | None:
    """INFO numbers modules as one integer: 21005 is 2.10.5."""
    for module in info.get("modules", ()):
        if module.get("name") in ("search", "searchlight"):
            number = int(module.get("ver", 0))
            return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
