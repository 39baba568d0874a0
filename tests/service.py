"""A whole service in a thread: real HTTP server, every stage, real models, a Redis of its own.

Started once per test worker, because models take seconds to load; each test gets a tenant of its own in it, which is
also how the service itself keeps users apart. A test of what other settings do runs one of its own (`own_service`).
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from pydantic import SecretStr

from context_graph.api.app import create_app
from context_graph.api.server import ApiServer
from context_graph.bootstrap import Resources, open_resources
from context_graph.local.redis_server import embedded_redis
from context_graph.settings import DeliverySettings, Settings
from context_graph.workers import load_worker

_STAGES = ("projection", "enrichment")


@dataclass(frozen=True, slots=True)
class Service:
    """Where a test's service is, and the key of the test's own tenant."""

    url: str
    key: str
    tenant: str
    settings: Settings

    def client(self, key: str | None = None) -> httpx2.AsyncClient:
        """An HTTP client with the tenant's key (or another)."""
        headers = {"X-Engine-API-Key": self.key if key is None else key}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=60)


class ServiceThread:
    """Runs the API and the stages on an event loop of their own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="service", daemon=True)
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Return when it answers. Raises what made it fail."""
        self._thread.start()
        if not self._started.wait(60) or self._failure is not None:
            raise RuntimeError("the service did not start") from self._failure

    def stop(self) -> None:
        """Stop it and wait. Raises what made it fail meanwhile."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        if self._failure is not None:
            raise RuntimeError("the service failed") from self._failure

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with open_resources(self.settings) as resources, asyncio.TaskGroup() as tasks:
                for name in _STAGES:
                    tasks.create_task(load_worker(name).run(resources, self._stop), name=name)
                async with self._api() as server:
                    self._started.set()
                    await self._stop.wait()
                    server.should_exit = True
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._failure = error
        finally:
            self._started.set()

    @asynccontextmanager
    async def _api(self) -> AsyncIterator[uvicorn.Server]:
        app = create_app(self.settings)
        config = uvicorn.Config(app, port=self._port, log_level="warning", lifespan="on")
        server = ApiServer(app, config)
        serving = asyncio.create_task(server.serve(), name="api")
        while not server.started and not serving.done():
            await asyncio.sleep(0.02)
        try:
            yield server
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def own_redis(folder: Path, **changes: Any) -> AsyncIterator[Settings]:
    """Settings for a service with a Redis of its own in that folder; `changes`: settings by name."""
    async with embedded_redis(folder) as redis:
        yield Settings(
            redis_url=SecretStr(redis.url),
            data_dir=folder / "data",
            tenant="mine",
            delivery=DeliverySettings(poll_seconds=0.1, backoff_seconds=0.05),
            log_level="error",
            **changes,
        )


@asynccontextmanager
async def own_service(settings: Settings) -> AsyncIterator[tuple[httpx2.AsyncClient, Resources]]:
    """A running service with these settings: a client of its tenant, and what the service works with."""
    thread = ServiceThread(settings)
    await asyncio.to_thread(thread.start)
    try:
        async with open_resources(settings) as resources:
            tenant = await resources.tenants.ensure(settings.tenant, 1)
            key = await resources.api_keys.create(tenant.name, name="test")
            async with Service(thread.url, key, tenant.name, settings).client() as client:
                yield client, resources
    finally:
        await asyncio.to_thread(thread.stop)
