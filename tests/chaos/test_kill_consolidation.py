"""A consolidation worker killed by SIGKILL while the model thinks: what it had noted is not asked about again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from typing import Any

from context_graph.bootstrap import Resources
from context_graph.domain.event import FACT_TYPE
from tests.fact_answers import noted, preference, says
from tests.integration.test_consolidation import everything, happen
from tests.llm_server import LlmServer, Reply, llm_server
from tests.waiting import until


async def worker(resources: Resources, server: LlmServer) -> asyncio.subprocess.Process:
    """`context-graph worker consolidation --once` against the model's server."""
    url = resources.settings.redis_url
    assert url is not None
    mine = {
        "CG_REDIS_URL": url.get_secret_value(), "CG_LLM__MODEL": "openai/small", "CG_LLM__API_BASE": server.url,
        "CG_DATA_DIR": str(resources.settings.data_dir),
    }  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CG_")}
    command = (sys.executable, "-m", "context_graph.cli.main", "worker", "consolidation", "--once")
    quiet = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(*command, env=kept | mine, stdout=quiet, stderr=quiet)


async def facts(resources: Resources) -> list[str]:
    events = [event.envelope for event in await everything(resources)]
    return sorted(event.session_id for event in events if event.event_type == FACT_TYPE)


async def test_a_killed_worker_costs_no_second_call_for_what_it_had_noted(resources: Resources) -> None:
    await resources.tenants.ensure("default", 1)
    for number, session in enumerate(("first", "second")):
        await happen(resources, [says("I always drink green tea.", number, session=session)])
    go_on = threading.Event()
    asked: list[str] = []

    def answer(_: dict[str, Any]) -> Reply:
        asked.append("")
        reply = noted(preference(1, "green tea", "I always drink green tea"))
        return Reply(reply.text, after=go_on if len(asked) == 2 else None)

    with llm_server() as server:
        server.answer = answer
        killed = await worker(resources, server)
        try:

            async def thinking() -> bool:
                return len(asked) == 2

            await until(thinking)
            assert len(await facts(resources)) == 1
            killed.send_signal(signal.SIGKILL)
            await killed.wait()
        finally:
            go_on.set()
        await resources.ledger_redis.delete("cg:{default.0}:lease:consolidation")  # it would end by itself in a minute
        assert await (await worker(resources, server)).wait() == 0
        assert await facts(resources) == ["first", "second"]
        assert len(asked) == 3  # the answer that came to nobody, and no other, is paid for twice
        assert await (await worker(resources, server)).wait() == 0
        assert len(asked) == 3
