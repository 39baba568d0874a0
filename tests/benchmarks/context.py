"""Working memory at size: POST /v1/context beside what no context can do without, one query embedding and one KNN.

Questions go to all of a tenant's sessions, the hardest scope. Beside the latencies: eight clients at once, each side by
its throughput, and a probe that asks `/health/live` all the while: its slowest answer bounds how long the API's event
loop was ever blocked. The service's own probe says the same of the inside.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.request import urlopen

from redis import Redis

from context_graph.store.documents import VECTOR, vector_bytes
from context_graph.store.keys import GraphKeys
from tests.benchmarks.bare_model import BareModel
from tests.benchmarks.filling import MADE, fill_derived, fill_ledger, open_pool
from tests.benchmarks.http_client import Connection
from tests.benchmarks.rows import Options, Pairs, Row, Target, percentile
from tests.benchmarks.stage import open_stage
from tests.benchmarks.workload import load_texts

_NEAREST = 100
_WARM = 5  # queries before the clock counts
_CLIENTS = 8  # at once
_PING_SECONDS = 0.005
_LONGEST_STALL = 50.0  # ms
_BUDGET = 2000  # tokens, the contract's default
_SHAPES = ("why was {} refused", "what did the agent say about {}", "{}", "when did the customer ask: {}")


async def context(options: Options) -> tuple[Row, ...]:
    """Rows at 10,000 and at 100,000 events, or at the number asked for; the last compares their p95."""
    sizes = (options.events,) if options.events is not None else (1_000,) if options.quick else (10_000, 100_000)
    measured = [await _at_size(options, size) for size in sizes]
    rows = [row for at_size in measured for row in at_size]
    return (*rows, _growth(*(at_size[0] for at_size in measured))) if len(measured) > 1 else tuple(rows)


async def _at_size(options: Options, count: int) -> tuple[Row, ...]:
    """Latency, throughput of eight clients, and the loop's longest stall under all that."""
    queries = questions(20 if options.quick else 100)
    async with open_stage() as stage:
        pool = await open_pool(stage, load_texts().sentences, 64 if options.quick else 400)
        await fill_ledger(stage, pool.workload.events(count, "c"))
        await fill_derived(stage, pool, count)
        bare = BareModel(stage.resources.settings.embedding, stage.folder / "models")
        index = GraphKeys(stage.partition).vector_index
        async with stage.api() as port:
            with Redis.from_url(stage.url, protocol=2) as redis:
                floor = _Floor(bare, redis, index)
                latency = await _one_by_one(port, stage.key, floor, queries, count)
                together = await _together(port, stage.key, floor, queries, count)
            stall = _stall(await asyncio.to_thread(_metrics, port), count)
    return latency, together, stall


async def _one_by_one(port: int, key: str, floor: _Floor, queries: Sequence[str], count: int) -> Row:
    """p50 and p95 in ms, with the steps' medians; queries are real words in the forms of the intents."""
    steps: dict[str, list[float]] = {}
    pairs = Pairs()
    connection = Connection(port, key)
    for number, query in enumerate(queries):
        beside = await asyncio.to_thread(floor.ask, query)
        taken, timings = await _asked(connection, query)
        if number >= _WARM:
            pairs.product.append(taken)
            pairs.floor.append(beside)
            for name, spent in timings.items():
                steps.setdefault(name, []).append(spent)
    await connection.close()
    return _row(pairs, steps, count)


async def _together(port: int, key: str, floor: _Floor, queries: Sequence[str], count: int) -> Row:
    """Contexts a second of eight clients, beside the floor's of eight threads; the longest the loop was blocked."""
    asked = [queries[n * _CLIENTS : (n + 1) * _CLIENTS] for n in range(len(queries) // _CLIENTS)]
    lanes = [[round_[lane] for round_ in asked] for lane in range(_CLIENTS)]
    total = sum(map(len, lanes))
    probe = asyncio.create_task(_slowest_ping(port), name="probe")

    async def product(_turn: int) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(_lane(port, key, lane) for lane in lanes))
        return total / (time.perf_counter() - began)

    async def beside(_turn: int) -> float:
        began = time.perf_counter()
        with ThreadPoolExecutor(_CLIENTS) as threads:
            list(threads.map(floor.ask, [query for lane in lanes for query in lane]))
        return total / (time.perf_counter() - began)

    pairs = Pairs([await product(0), await product(1)], [])
    probe.cancel()
    blocked: list[float] = await probe
    pairs.floor += [await beside(0), await beside(1)]
    return pairs.row(
        f"context_together_{count}",
        "contexts/s",
        Target(0.5, "at least"),
        events=count,
        clients=_CLIENTS,
        slowest_health_ms=max(blocked, default=float("nan")),
        p99_health_ms=percentile(blocked, 0.99),
    )


def _metrics(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return str(answer.read().decode())


def _stall(metrics: str, count: int) -> Row:
    """The longest time that the API's loop was kept from its next task, in the last two minutes at most."""
    late, work = (
        float(re.findall(rf"^cg_event_loop_longest_{name}_seconds (\S+)$", metrics, re.MULTILINE)[0]) * 1000
        for name in ("stall", "work")
    )
    target = Target(_LONGEST_STALL, "at most")
    return Row(
        name=f"context_stall_{count}",
        value=late,
        unit="ms",
        floor=None,
        ratio=None,
        target=f"{target} ms",
        met=target.met_by(late),
        samples={},
        notes={"events": count, "clients": _CLIENTS, "longest_work_ms": work},
    )


async def _lane(port: int, key: str, queries: Sequence[str]) -> None:
    connection = Connection(port, key)
    for query in queries:
        await _asked(connection, query)
    await connection.close()


async def _slowest_ping(port: int) -> list[float]:
    """ms of each answer of /health/live until cancelled."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken: list[float] = []
    try:
        while True:
            began = time.perf_counter()
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if b"content-length" in line.lower())
            await reader.readexactly(length)
            taken.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(_PING_SECONDS)
    except asyncio.CancelledError:  # the probe's end is its result
        return taken
    finally:
        writer.close()


def _row(pairs: Pairs, steps: Mapping[str, list[float]], count: int) -> Row:
    """The ratio is of the medians, as the target says; the pairs' ratios show the spread."""
    product, floor = median(pairs.product), median(pairs.floor)
    target = Target(2.0, "at most")
    ratios = pairs.ratios
    return Row(
        name=f"context_{count}",
        value=product,
        unit="ms p50",
        floor=floor,
        ratio=product / floor,
        target=f"ratio {target}",
        met=target.met_by(product / floor),
        samples={"value": pairs.product, "floor": pairs.floor},
        notes={
            "events": count,
            "p95_ms": percentile(pairs.product, 0.95),
            "floor_p95_ms": percentile(pairs.floor, 0.95),
            "ratio_p5": percentile(ratios, 0.05),
            "ratio_p95": percentile(ratios, 0.95),
            "timings_ms_medians": {name: median(spent) for name, spent in steps.items()},
            "made": MADE,
        },
    )


def _growth(small: Row, large: Row) -> Row:
    """p95 at the larger size beside p95 at the smaller."""
    first, last = (percentile(row.samples["value"], 0.95) for row in (small, large))
    target = Target(1.5, "at most")
    return Row(
        name="context_growth",
        value=last,
        unit="ms p95",
        floor=first,
        ratio=last / first,
        target=f"ratio {target}",
        met=target.met_by(last / first),
        samples={},
        notes={"events": large.notes["events"], "beside_events": small.notes["events"]},
    )


def questions(count: int) -> list[str]:
    """Parts of real sentences, in the forms of different intents; not the sentences the memory is made of."""
    words = [" ".join(text.split()[1:9]) for text in load_texts().sentences[1::3]]
    return [_SHAPES[number % len(_SHAPES)].format(words[number * 13 % len(words)]) for number in range(count)]


async def _asked(connection: Connection, query: str) -> tuple[float, dict[str, float]]:
    body = {"query": query, "token_budget": _BUDGET}
    began = time.perf_counter()
    status, answer = await connection.post("/v1/context", body)
    taken = (time.perf_counter() - began) * 1000
    if status != 200 or not answer["items"]:
        sys.stderr.write(f"  {status}: {str(answer)[:300]}\n")
        raise RuntimeError(f"no context for {query!r}: status {status}")
    return taken, answer["meta"]["timings_ms"]


@dataclass(frozen=True, slots=True)
class _Floor:
    """A query's embedding and its nearest neighbours, and nothing else."""

    bare: BareModel
    redis: Redis
    index: str

    def ask(self, query: str) -> float:
        """ms it takes."""
        began = time.perf_counter()
        vector = vector_bytes(self.bare.embed([query])[0].tobytes())
        command: Callable[..., Any] = self.redis.execute_command
        found = command(
            "FT.SEARCH", self.index, f"*=>[KNN {_NEAREST} @{VECTOR} $vector AS distance]", "RETURN", 1, "distance",
            "SORTBY", "distance", "LIMIT", 0, _NEAREST, "PARAMS", 2, "vector", vector, "DIALECT", 2,
        )  # fmt: skip
        taken = (time.perf_counter() - began) * 1000
        if not found[0]:
            raise RuntimeError("the index found nothing")
        return taken
