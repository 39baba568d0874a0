"""What months ask of re-consolidation: it reflects once, stops and resumes, is fenced, and loses no source."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from context_graph.bootstrap import Resources, open_resources
from context_graph.delivery.recalling import Recalling
from context_graph.domain.event import SUMMARY_TYPE, LedgerEvent
from context_graph.domain.retention import ForgettingPolicy
from context_graph.settings import ArchiveSettings, ConsolidationSettings, Settings
from context_graph.store.archive_writing import Archiver
from context_graph.store.forgotten import Forgotten
from context_graph.store.keys import PartitionKeys
from context_graph.store.retention import Policies
from enrichment.reconsolidation.passes import Passes
from enrichment.reconsolidation.run import LEASE, consolidate
from enrichment.reconsolidation.worker import run
from tests.archives import AT_ONCE
from tests.forgetting import append, derive, everything, lived, passed
from tests.integration.test_forgetting import HERE, OLD, in_graph, said, state_of, told
from tests.integration.test_written_summaries import said as answered
from tests.integration.test_written_summaries import with_model
from tests.llm_server import LlmServer, Reply, llm_server
from tests.waiting import until

ANSWER = answered("Parcel 0 was handed to the carrier in Lisbon.", [1])


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with llm_server() as served:
        served.answer = lambda _: Reply(ANSWER)
        yield served


async def summaries(resources: Resources) -> list[LedgerEvent]:
    return [event for event in await everything(resources, HERE) if event.envelope.event_type == SUMMARY_TYPE]


def session_in(material: str) -> str:
    """Which of the sessions a prompt is about."""
    return material.partition(" of ")[2].split()[0]


def asked_about(server: LlmServer) -> Counter[str]:
    """How often the model was asked for a summary of each session; it is asked for facts under other rules."""
    rules = server.requests[0]["messages"][0] if server.requests else None
    summaries = [request for request in server.requests if request["messages"][0] == rules]
    return Counter(session_in(str(request["messages"][-1]["content"])) for request in summaries)


async def test_reflection_starts_one_pass_when_the_importance_of_what_is_new_passes_the_threshold(
    resources: Resources,
) -> None:
    await told(resources, "a", count=0)
    passes, stop = Passes(resources), asyncio.Event()
    await append(resources, HERE, [replace(said("a", i), importance_hint=10) for i in range(15)])
    await derive(resources, HERE)
    assert await passes.new_importance(HERE) == 150
    assert await passes.reflect(stop) == 0  # not more than the threshold
    await append(resources, HERE, [replace(said("a", 15), importance_hint=1)])
    await derive(resources, HERE)
    assert await passes.reflect(stop) == 1
    assert len(await summaries(resources)) == 1
    assert [await passes.reflect(stop) for _ in range(2)] == [0, 0]
    await derive(resources, HERE)
    assert await passes.reflect(stop) == 0  # its own summary is nothing to reflect on


async def test_a_slice_that_is_over_is_resumed_and_the_most_valuable_session_came_first(
    resources: Resources, server: LlmServer
) -> None:
    await told(resources, "low", "high", "mid", count=0)
    for session, importance in (("low", 1), ("high", 9), ("mid", 5)):
        await append(resources, HERE, [replace(said(session, i), importance_hint=importance) for i in range(8)])
    await derive(resources, HERE)
    there, writer = with_model(resources, server)
    own = ConsolidationSettings(slice_seconds=0.05, reflect_importance=0)
    there = replace(there, settings=there.settings.model_copy(update={"consolidation": own}))
    gate = threading.Event()
    server.answer = lambda _: Reply(ANSWER, after=gate)
    with capture_logs() as logs:
        task = asyncio.create_task(Passes(there, writer).over(HERE, asyncio.Event(), kind="summaries"))
        await until(lambda: bool(server.requests) and any(entry["event"] == "slice over" for entry in logs))
        gate.set()
        first = await task
    assert (first.summaries.summarised, first.unfinished) == (1, True)
    assert list(asked_about(server)) == ["high"]
    rest = ConsolidationSettings(slice_seconds=60, reflect_importance=0)
    there = replace(there, settings=there.settings.model_copy(update={"consolidation": rest}))
    second = await Passes(there, writer).over(HERE, asyncio.Event(), kind="summaries")
    assert (second.summaries.summarised, second.unfinished) == (2, False)
    assert list(asked_about(server).items()) == [("high", 1), ("mid", 1), ("low", 1)]


async def test_the_loop_forgets_and_goes_on(resources: Resources) -> None:
    """The worker's own loop with forgetting on: what is old goes after its summary, what comes later is summarised."""
    await told(resources, "a", "b", policy=ForgettingPolicy(enabled=True, keep_share=0))
    own = ConsolidationSettings(every_seconds=0.05, look_seconds=0.05)
    there = replace(resources, settings=resources.settings.model_copy(update={"consolidation": own}))
    stop = asyncio.Event()

    async def live(session: str | None = None) -> None:
        if session is not None:
            await append(resources, HERE, [said(session, i) for i in range(8)])

        async def gone() -> bool:
            await derive(resources, HERE)
            await passed(resources, HERE)
            return not await in_graph(resources)

        await until(gone)

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        tasks.create_task(run(there, stop), name="consolidation")
        await live()
        await live("c")
        stop.set()
    found: list[Any] = [event.envelope.payload for event in await summaries(resources)]
    assert sorted(payload["scope"] for payload in found) == ["session/a", "session/b", "session/c"]


class Leader:
    """A pass by the command line, in a process of its own."""

    def __init__(self, settings: Settings, server: LlmServer, folder: Path) -> None:
        assert settings.redis_url is not None
        self._environment = os.environ | {
            "CG_REDIS_URL": settings.redis_url.get_secret_value(), "CG_DATA_DIR": str(folder),
            "CG_LLM__MODEL": "openai/small", "CG_LLM__API_BASE": server.url, "CG_LLM__RETRIES": "0",
        }  # fmt: skip
        self.process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "context_graph.cli.main", "worker", "consolidation", "--once")
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            *command, env=self._environment, stdout=pipe, stderr=asyncio.subprocess.STDOUT
        )
        return self.process

    async def __aexit__(self, *_: object) -> None:
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.communicate()


async def test_a_leader_that_was_stopped_and_wakes_up_late_writes_nothing(
    resources: Resources, settings: Settings, server: LlmServer, tmp_path: Path
) -> None:
    """SIGSTOP while the model answers; its lease ends, another leads; SIGCONT: it is fenced."""
    await told(resources, "a")
    await derive(resources, HERE)
    gate = threading.Event()
    server.answer = lambda _: Reply(answered("Parcel 1 was handed to the carrier in Lisbon.", [3]), after=gate)
    async with Leader(settings, server, tmp_path) as old:
        await until(lambda: len(server.requests) == 1, seconds=30)
        old.send_signal(signal.SIGSTOP)
        await resources.ledger_redis.pexpire(PartitionKeys(HERE).lease(LEASE), 1)  # as after its 60 s

        async def free() -> bool:
            return not await resources.ledger_redis.exists(PartitionKeys(HERE).lease(LEASE))

        await until(free)
        server.answer = lambda _: Reply(ANSWER)
        there, writer = with_model(resources, server)
        assert (await consolidate(there, HERE, "new", writer=writer)).summarised == 1
        gate.set()
        old.send_signal(signal.SIGCONT)
        output, _ = await asyncio.wait_for(old.communicate(), 30)
    assert old.returncode != 0
    assert b"lost to another worker" in output
    [summary] = await summaries(resources)
    payload: Any = summary.envelope.payload
    assert payload["sentences"][0]["text"] == json.loads(ANSWER)["sentences"][0]["text"]


async def test_kill_nine_in_the_middle_ends_in_the_same_state_with_no_second_call(
    resources: Resources, settings: Settings, server: LlmServer, tmp_path: Path
) -> None:
    """Killed while the model is asked about the second of three: what the first call gave is not asked for again."""
    await told(resources, "a", "b", "c")
    await derive(resources, HERE)
    never = threading.Event()
    server.answer = lambda _: Reply(ANSWER, after=never if len(asked_about(server)) == 2 else None)
    async with Leader(settings, server, tmp_path) as killed:
        await until(lambda: len(asked_about(server)) == 2, seconds=30)
        killed.kill()
        await killed.wait()
    never.set()
    await resources.ledger_redis.delete(PartitionKeys(HERE).lease(LEASE))
    first, second = asked_about(server)
    server.answer = lambda _: Reply(ANSWER)
    there, writer = with_model(resources, server)
    for _ in range(2):
        await consolidate(there, HERE, "next", writer=writer)
        await derive(resources, HERE)
    assert asked_about(server) == {first: 1, second: 2, ({"a", "b", "c"} - {first, second}).pop(): 1}
    scopes: list[Any] = [event.envelope.payload for event in await summaries(resources)]
    assert sorted(payload["scope"] for payload in scopes) == ["session/a", "session/b", "session/c"]
    await derive(resources, HERE, generation=2)
    assert await state_of(resources, 2) == await state_of(resources)


async def test_every_sentence_leads_to_the_ledger_and_recall_brings_back_what_only_the_archive_has(
    settings: Settings, tmp_path: Path
) -> None:
    """Forgotten in the graph, trimmed from the stream: named by the summary, readable, and recalled from segments."""
    kept = settings.model_copy(update={"archive": ArchiveSettings(url=(tmp_path / "archive").as_uri())})
    async with open_resources(kept) as resources:
        await told(resources, "a", "b")
        await lived(resources, HERE, OLD)
        assert await in_graph(resources) == set()
        tenant = await resources.tenants.ensure("default", 1)
        assert resources.archive is not None
        archiver = Archiver(resources.ledger_redis, resources.archive, resources.leases, AT_ONCE)
        await archiver.run(tenant, HERE, "test", asyncio.Event(), flush=True)
        hot: Any = await resources.ledger_redis.xrange(PartitionKeys(HERE).ledger)
        live_ids = {stream_id.decode() for stream_id, _ in hot}
        cited = 0
        for session in ("a", "b"):
            node = await resources.graph.summary(HERE, f"session/{session}")
            assert node is not None
            [summary] = await resources.ledger.at(HERE, [node.position.stream_id])
            payload: Any = summary.envelope.payload
            assert payload["covers"]["events"] == 8
            for sentence in payload["sentences"]:
                for event_id in sentence["event_ids"]:
                    event = await resources.ledger.get(HERE, event_id)
                    assert event is not None
                    assert event.position.stream_id not in live_ids
                    source: Any = event.envelope.payload
                    assert sentence["text"] in source["text"]
                    cited += 1
        assert cited >= 4
        recalling = Recalling(resources.ledger, Forgotten(resources.derived_redis, resources.graph), lambda: OLD)
        assert (await recalling.recall_session(tenant, "a")).events == 8
        await derive(resources, HERE)
        assert await in_graph(resources) == {f"a-{i}" for i in range(8)}
        assert (await Policies(resources.ledger_redis).get(HERE.tenant)).enabled
