"""Working memory at size: POST /v1/context beside what no context can do without, one query embedding and one KNN."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

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
_BUDGET = 2000  # tokens, the contract's default
_SHAPES = ("why was {} refused", "what did the agent say about {}", "{}", "when did the customer ask: {}")


async def context(options: Options) -> Row:
    """p50 and p95 in ms, with the steps' medians; queries are real words in the forms of the intents."""
    count = options.sized(10_000, 1_000)
    queries = _queries(20 if options.quick else 100)
    async with open_stage() as stage:
        pool = await open_pool(stage, load_texts().sentences, 64 if options.quick else 400)
        raws = pool.workload.events(count, "c")
        await fill_ledger(stage, raws)
        await fill_derived(stage, pool, count)
        bare = BareModel(stage.resources.settings.embedding, stage.folder / "models")
        steps: dict[str, list[float]] = {}
        pairs = Pairs()
        async with stage.api() as port:
            connection = Connection(port, stage.key)
            with Redis.from_url(stage.url, protocol=2) as redis:
                index = GraphKeys(stage.partition).vector_index
                for number, query in enumerate(queries):
                    beside = await asyncio.to_thread(_floor, bare, redis, index, query)
                    taken, timings = await _asked(connection, query, raws[number * 7 % count]["session_id"])
                    if number >= _WARM:
                        pairs.product.append(taken)
                        pairs.floor.append(beside)
                        for name, spent in timings.items():
                            steps.setdefault(name, []).append(spent)
            await connection.close()
    return _row(pairs, steps, count)


def _row(pairs: Pairs, steps: Mapping[str, list[float]], count: int) -> Row:
    """The ratio is of the medians, as the target says; the pairs' ratios show the spread."""
    product, floor = median(pairs.product), median(pairs.floor)
    target = Target(2.0, "at most")
    ratios = pairs.ratios
    return Row(
        name="context",
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


def _queries(count: int) -> list[str]:
    """Parts of real sentences, in the forms of different intents; not the sentences the memory is made of."""
    words = [" ".join(text.split()[1:9]) for text in load_texts().sentences[1::3]]
    return [_SHAPES[number % len(_SHAPES)].format(words[number * 13 % len(words)]) for number in range(count)]


async def _asked(connection: Connection, query: str, session_id: str) -> tuple[float, dict[str, float]]:
    body = {"query": query, "session_id": session_id, "token_budget": _BUDGET}
    began = time.perf_counter()
    status, answer = await connection.post("/v1/context", body)
    taken = (time.perf_counter() - began) * 1000
    if status != 200 or not answer["items"]:
        sys.stderr.write(f"  {status}: {str(answer)[:300]}\n")
        raise RuntimeError(f"no context for {query!r}: status {status}")
    return taken, answer["meta"]["timings_ms"]


def _floor(bare: BareModel, redis: Redis, index: str, query: str) -> float:
    """ms of embedding the query and asking for its nearest neighbours."""
    began = time.perf_counter()
    vector = vector_bytes(bare.embed([query])[0].tobytes())
    command: Callable[..., Any] = redis.execute_command
    found = command(
        "FT.SEARCH", index, f"*=>[KNN {_NEAREST} @{VECTOR} $vector AS distance]", "RETURN", 1, "distance",
        "SORTBY", "distance", "LIMIT", 0, _NEAREST, "PARAMS", 2, "vector", vector, "DIALECT", 2,
    )  # fmt: skip
    taken = (time.perf_counter() - began) * 1000
    if not found[0]:
        raise RuntimeError("the index found nothing")
    return taken
