"""The API in a process of its own, for tests that look at its memory or stop it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from pydantic import SecretStr

from context_graph.bootstrap import open_resources
from context_graph.local.process import Child, Program, last_lines
from context_graph.local.redis_server import free_port
from context_graph.settings import Settings

_STARTED_WITHIN = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class ApiProcess:
    """A running API with the key of its tenant."""

    child: Child
    port: int
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx2.AsyncClient:
        """An HTTP client with the tenant's key."""
        return httpx2.AsyncClient(base_url=self.url, headers={"X-Engine-API-Key": self.key}, timeout=120)

    def peak_bytes(self) -> int:
        """The most memory the process has had so far (VmHWM), bytes."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


@asynccontextmanager
async def api_process(
    folder: Path, redis_url: str, *, port: int | None = None, environment: Mapping[str, str] | None = None
) -> AsyncIterator[ApiProcess]:
    """Start it on `port` (absent: a free one), wait until it answers, stop it in the end."""
    settings = Settings(redis_url=SecretStr(redis_url), data_dir=folder)
    async with open_resources(settings) as resources:
        tenant = await resources.tenants.ensure(settings.tenant, 1)
        key = await resources.api_keys.create(tenant.name, name="test")
    port = free_port() if port is None else port
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CG_")}
    mine = {"CG_REDIS_URL": redis_url, "CG_DATA_DIR": str(folder), "CG_LOG_LEVEL": "warning"} | dict(environment or {})
    argv = (sys.executable, "-m", "context_graph.cli.main", "api", "--port", str(port))
    child = Child.start(Program("api", argv, folder / "api.log", kept | mine))
    api = ApiProcess(child, port, key)
    try:
        await _until_it_answers(api)
        yield api
    finally:
        await child.stop(20)


async def _until_it_answers(api: ApiProcess) -> None:
    async with asyncio.timeout(_STARTED_WITHIN), api.client() as http:
        while True:
            try:
                await http.get("/health/live")
            except httpx2.TransportError:
                assert api.child.exit_code is None, last_lines(api.child.program.log)
                await asyncio.sleep(0.05)
            else:
                return
