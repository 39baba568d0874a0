"""Where a benchmark plays: embedded Redis, a tenant, the product's processes beside it, all in a temporary folder."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.partition import Partition
from context_graph.local.process import Child, Program, last_lines
from context_graph.local.redis_server import embedded_redis, free_port
from context_graph.settings import Settings, VaultSettings
from tests.benchmarks.http_client import Outcome

_STARTED_WITHIN = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Stage:
    """An opened Redis with one tenant of one bucket, and a folder for files."""

    url: str
    folder: Path
    resources: Resources
    partition: Partition
    key: str

    @asynccontextmanager
    async def api(self, environment: Mapping[str, str] | None = None) -> AsyncIterator[int]:
        """The API in a process of its own, with these variables besides; its port."""
        port = free_port()
        argv = ("-m", "context_graph.cli.main", "api", "--port", str(port))
        async with self._process("api", argv, port, environment):
            yield port

    @asynccontextmanager
    async def floor_app(self) -> AsyncIterator[int]:
        """The floor of single ingest in a process of its own; its port."""
        port = free_port()
        async with self._process("floor", ("-m", "tests.benchmarks.floor_app", str(port)), port):
            yield port

    @asynccontextmanager
    async def workers(self, *names: str) -> AsyncIterator[None]:
        """Workers of the product, a process each."""
        async with AsyncExitStack() as stack:
            for name in names:
                argv = ("-m", "context_graph.cli.main", "worker", name)
                await stack.enter_async_context(self._process(name, argv, None))
            yield

    @asynccontextmanager
    async def _process(
        self, name: str, argv: Sequence[str], port: int | None, environment: Mapping[str, str] | None = None
    ) -> AsyncIterator[None]:
        log = self.folder / f"{name}.log"
        variables = self._environment() | dict(environment or {})
        child = Child.start(Program(name, (sys.executable, *argv), log, variables))
        try:
            if port is not None:
                await _until_listening(child, port)
            yield
            if child.exit_code is not None:
                raise RuntimeError(f"{name} ended with code {child.exit_code}:\n{last_lines(log)}")
        finally:
            await child.stop(20)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CG_")}
        mine = {"CG_REDIS_URL": self.url, "CG_DATA_DIR": str(self.folder), "CG_LOG_LEVEL": "warning"}
        return kept | mine

    async def load(self, port: int, path: str, connections: int, bodies: Sequence[bytes]) -> Outcome:
        """Post the bodies from a process of its own. Raises when an answer is no 2xx."""
        file = self.folder / "bodies.ndjson"
        file.write_bytes(b"\n".join(bodies))
        argv = (sys.executable, "-m", "tests.benchmarks.load", str(port), path, str(connections), str(file))
        client = await asyncio.create_subprocess_exec(
            *argv, stdout=subprocess.PIPE, env=self._environment() | {"CG_KEY": self.key}
        )
        said, _ = await client.communicate()
        if client.returncode:
            raise RuntimeError(f"the load client ended with code {client.returncode}")
        report: dict[str, Any] = orjson.loads(said)
        statuses = {int(status): count for status, count in report["statuses"].items()}
        if any(not 200 <= status < 300 for status in statuses):
            raise RuntimeError(f"answers by status: {statuses}")
        return Outcome(report["seconds"], report["client_busy"], report["latencies_ms"], statuses)

    async def emptied(self) -> Stage:
        """The same Redis without anything in it but a new tenant with its key."""
        await self.resources.ledger_redis.flushall()
        return await _furnished(self.url, self.folder, self.resources)


@asynccontextmanager
async def open_stage(vault: VaultSettings | None = None) -> AsyncIterator[Stage]:
    """An empty stage; everything is gone at the end. `vault`: how the benchmark's own process seals; absent: not."""
    with tempfile.TemporaryDirectory(prefix="context-graph-bench-") as name:
        folder = Path(name)
        async with embedded_redis(folder) as redis:
            settings = Settings(redis_url=SecretStr(redis.url), data_dir=folder, vault=vault or VaultSettings())
            async with open_resources(settings) as resources:
                yield await _furnished(redis.url, folder, resources)


async def _furnished(url: str, folder: Path, resources: Resources) -> Stage:
    tenant = await resources.tenants.ensure(resources.settings.tenant, 1)
    key = await resources.api_keys.create(tenant.name, name=f"bench-{secrets.token_hex(2)}")
    return Stage(url, folder, resources, tenant.partitions[0], key)


async def _until_listening(child: Child, port: int) -> None:
    deadline = time.monotonic() + _STARTED_WITHIN
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            if child.exit_code is not None or time.monotonic() > deadline:
                said = last_lines(child.program.log)
                raise RuntimeError(f"{child.program.name} did not start: {said}") from error
            await asyncio.sleep(0.05)
        else:
            writer.close()
            await writer.wait_closed()
            return
