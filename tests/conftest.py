"""What every test may use: a real Redis per test worker, settings, opened resources.

A test that used the Redis and leaves a key that `store/keys.py` does not list fails.

The Redis belongs to this test process: own port, own folder, gone at the end. It is bound to the process by the kernel
too, so it is gone after Ctrl-C and after a crash.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import pytest_asyncio
from pydantic import SecretStr

from context_graph.local.redis_server import EmbeddedRedis, embedded_redis
from context_graph.settings import DeliverySettings, Settings
from context_graph.store.connection import RedisClient, open_redis
from context_graph.store.keys import home_of

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

if TYPE_CHECKING:
    from context_graph.bootstrap import Resources


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedRedis]:
    """The embedded Redis of this test worker."""
    async with embedded_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def redis_url(redis_server: EmbeddedRedis) -> AsyncIterator[str]:
    """The address of a Redis that holds nothing: no key, no index.

    Fails the test that leaves a key without a home in `store/keys.py`, or of another type than is written there.
    """
    async with open_redis(redis_server.url) as client:
        indexes: Any = await client.execute_command("FT._LIST")  # type: ignore[no-untyped-call]
        for index in indexes:
            await client.execute_command("FT.DROPINDEX", index)  # type: ignore[no-untyped-call]
        await client.flushall()
    yield redis_server.url
    async with open_redis(redis_server.url) as client:
        homeless = await homeless_keys(client)
    assert not homeless, "keys without a home in context_graph/store/keys.py: " + ", ".join(homeless)


@pytest.fixture
def settings(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a test: its Redis, its folder, and delivery that does not make a test wait."""
    for name in [name for name in os.environ if name.startswith("CG_") and name != "CG_SHARED_DATA"]:
        monkeypatch.delenv(name)
    return Settings(
        redis_url=SecretStr(redis_url),
        data_dir=tmp_path / "data",
        delivery=DeliverySettings(
            poll_seconds=0.1,
            reclaim_idle_seconds=0.2,
            heartbeat_seconds=0.1,
            backoff_seconds=0.02,
            stop_seconds=5.0,
        ),
    )


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    """Opened resources on the test's Redis."""
    from context_graph.bootstrap import open_resources  # tests of pure modules need not load all of the store

    async with open_resources(settings) as opened:
        yield opened


async def homeless_keys(client: RedisClient) -> list[str]:
    """Keys of the server that the catalogue does not know, or knows as another type; what is wrong, in words."""
    homeless: list[str] = []
    raw: Any
    async for raw in client.scan_iter(count=1000):
        key = raw.decode(errors="replace")
        home = home_of(key)
        kind: Any = await client.type(raw)
        if home is None:
            homeless.append(f"{key} ({kind.decode()})")
        elif kind.decode() not in (home.type, "none"):  # none: it has just expired
            homeless.append(f"{key} is a {kind.decode()}, not a {home.type}")
    return homeless
