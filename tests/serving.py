"""The API as processes that a test starts as it likes: several, with other settings, or to be killed.

`tests/api_process.py` is the ready-made one with a tenant and its key.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from context_graph.local.process import Child, Program, last_lines
from context_graph.local.redis_server import free_port
from tests.waiting import until


def start_api(url: str, folder: Path, port: int, settings: Mapping[str, str] | None = None) -> Child:
    """`context-graph api` on that port with that Redis; `settings` are environment variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CG_")}
    environment = kept | {"CG_REDIS_URL": url, "CG_DATA_DIR": str(folder / "data"), "CG_LOG_LEVEL": "warning"}
    command = (sys.executable, "-m", "context_graph.cli.main", "api", "--port", str(port))
    return Child.start(Program("api", command, folder / f"api-{port}.log", environment | dict(settings or {})))


async def until_listening(child: Child, port: int) -> None:
    """Return when the process answers on its port; fails with its log when it ends instead."""

    async def listening() -> bool:
        assert child.exit_code is None, last_lines(child.program.log)
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    await until(listening, seconds=60)


@asynccontextmanager
async def serving(url: str, folder: Path, settings: Mapping[str, str] | None = None) -> AsyncIterator[str]:
    """A running API over the Redis at `url`; its own address."""
    port = free_port()
    child = start_api(url, folder, port, settings)
    try:
        await until_listening(child, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        await child.stop(15)
