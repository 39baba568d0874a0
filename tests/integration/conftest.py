"""The whole service for tests that speak HTTP: one per test worker, a tenant of its own for each test."""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
import pytest_asyncio
from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.delivery.source import Source
from context_graph.domain.partition import Partition
from context_graph.local.redis_server import EmbeddedRedis, embedded_redis
from context_graph.settings import DeliverySettings, Settings, VaultSettings
from tests.ledger_events import only_partition
from tests.service import Service, ServiceThread

MASTER_KEY = b64encode(bytes(32)).decode()
"""Events are sealed, as `context-graph up` has it."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service_redis(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedRedis]:
    """A Redis that no test empties."""
    async with embedded_redis(tmp_path_factory.mktemp("service-redis")) as server:
        yield server


@pytest.fixture(scope="session")
def service_thread(service_redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceThread]:
    """The running service of this test worker."""
    settings = Settings(
        redis_url=SecretStr(service_redis.url),
        data_dir=tmp_path_factory.mktemp("service"),
        delivery=DeliverySettings(poll_seconds=0.1, backoff_seconds=0.05),
        log_level="error",
        vault=VaultSettings(master_key=SecretStr(MASTER_KEY)),
    )
    thread = ServiceThread(settings)
    thread.start()
    yield thread
    thread.stop()


@pytest.fixture
async def service(service_thread: ServiceThread) -> Service:
    """The service as a newly made tenant sees it."""
    name = f"t{secrets.token_hex(6)}"
    async with open_resources(service_thread.settings) as resources:
        tenant = await resources.tenants.ensure(name, 1)
        key = await resources.api_keys.create(tenant.name, name="test")
    return Service(service_thread.url, key, name, service_thread.settings)


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """An HTTP client of the test's tenant."""
    async with service.client() as client:
        yield client


@pytest.fixture
async def partition(resources: Resources) -> Partition:
    """The only partition of the test's own Redis."""
    return await only_partition(resources.tenants)


@pytest.fixture
async def source(resources: Resources) -> Source:
    """What a stage reads from, on the test's own Redis."""
    return resources.source
