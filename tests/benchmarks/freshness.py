"""Freshness: how long after it was sent an event is found, while a hundred short events a second arrive.

The whole service runs: API, projection and enrichment, a process each. Every tenth event has a word of its own; half
of these are looked for by keyword search until found, half are asked for once by a context that waits for the position.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from context_graph.domain.stages import STAGES
from tests.benchmarks.http_client import Connection
from tests.benchmarks.rows import Options, Row, Target, percentile
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.workload import load_texts

_RATE = 100  # events a second
_EVERY = 10  # each tenth is looked for
_LOOK = 0.02  # seconds between searches for one event
_GIVE_UP = 30.0  # seconds


@dataclass(slots=True)
class _Seen:
    """Milliseconds from sending to found, by way of finding; sends that were late show an overloaded machine."""

    post: list[float] = field(default_factory=list)
    search: list[float] = field(default_factory=list)
    context: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    missed: int = 0


class _Client:
    """As many keep-alive connections as are in use at once."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self._idle: list[Connection] = []

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection = self._idle.pop() if self._idle else Connection(self._port, self._key)
        status, answer = await connection.post(path, body)
        self._idle.append(connection)
        if status >= 300:
            raise RuntimeError(f"{path}: {status} {answer}")
        return answer

    async def close(self) -> None:
        for connection in self._idle:
            await connection.close()


async def freshness(options: Options) -> Row:
    """p95 in ms of the slower of the two ways; target at most a second."""
    count = options.sized(1_000, 200)
    sentences = [text for text in load_texts().sentences if len(text) <= 60]
    seen = _Seen()
    async with open_stage() as stage, stage.api() as port, stage.workers("projection", "enrichment"):
        client = _Client(port, stage.key)
        await _ready(stage, client)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                due = began + number / _RATE
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                seen.late.append((time.perf_counter() - due) * 1000)
                tasks.create_task(_follow(client, number, sentences[number % len(sentences)], seen))
            backlog = await _backlog(stage)
        await client.close()
    by_way = {"search": percentile(seen.search, 0.95), "context": percentile(seen.context, 0.95)}
    target = Target(1000, "at most")
    return Row(
        name="freshness",
        value=max(by_way.values()),
        unit="ms p95",
        floor=None,
        ratio=None,
        target=f"p95 {target} ms",
        met=target.met_by(max(by_way.values())) and not seen.missed,
        samples={"search": seen.search, "context": seen.context},
        notes={
            "events": count,
            "rate": _RATE,
            **{f"{way}_p95_ms": value for way, value in by_way.items()},
            "search_p50_ms": percentile(seen.search, 0.5),
            "context_p50_ms": percentile(seen.context, 0.5),
            "post_p50_ms": percentile(seen.post, 0.5),
            "sent_late_p95_ms": percentile(seen.late, 0.95),
            "never_found": seen.missed,
            "backlog_at_end": backlog,
        },
    )


async def _ready(stage: Stage, client: _Client) -> None:
    """Until the workers have their models: one event has passed every stage."""
    answer = await client.post("/v1/events", _event(0, "warming up", "warm"))
    body = {"query": "warming up", "min_position": answer["position"], "wait_ms": 60_000}
    found = await client.post("/v1/context", body)
    if not found["meta"]["complete"]:
        raise RuntimeError("the workers did not get ready within a minute")


async def _follow(client: _Client, number: int, sentence: str, seen: _Seen) -> None:
    """Post an event; of every tenth, measure until it is found."""
    word = f"mark{number:05d}x"
    began = time.perf_counter()
    answer = await client.post("/v1/events", _event(number, f"{sentence} {word}", f"fresh-{number}"))
    seen.post.append((time.perf_counter() - began) * 1000)
    if number % _EVERY:
        return
    by_context = number // _EVERY % 2 == 1
    looked = _by_context if by_context else _by_search
    if await looked(client, word, answer):
        (seen.context if by_context else seen.search).append((time.perf_counter() - began) * 1000)
    else:
        seen.missed += 1


async def _by_search(client: _Client, word: str, posted: dict[str, Any]) -> bool:
    deadline = time.perf_counter() + _GIVE_UP
    while time.perf_counter() < deadline:
        answer = await client.post("/v1/search", {"query": word, "mode": "keyword", "limit": 5})
        if any(result["id"] == posted["event_id"] for result in answer["results"]):
            return True
        await asyncio.sleep(_LOOK)
    return False


async def _by_context(client: _Client, word: str, posted: dict[str, Any]) -> bool:
    body = {"query": word, "min_position": posted["position"], "wait_ms": int(_GIVE_UP * 1000)}
    answer = await client.post("/v1/context", body)
    return any(posted["event_id"] in item["event_ids"] for item in answer["items"])


async def _backlog(stage: Stage) -> dict[str, float]:
    """Events each stage has not finished when the last was sent."""
    states = [(row.group, await stage.resources.groups.state(stage.partition, row.group)) for row in STAGES]
    return {group: float(state.lag + state.pending) for group, state in states}


def _event(number: int, text: str, event_id: str) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "event_type": "user.message",
        "session_id": f"fresh-{number % 20}",
        "agent_id": "support",
        "occurred_at": datetime.now(UTC).isoformat(),
        "payload": {"text": text},
    }
