"""`python -m tests.benchmarks.vector_storage [--count N] [--only NAME]`: how vectors are best stored, as a table.

For each way (number type, M, EF_CONSTRUCTION) the same vectors go into an HNSW index of their own in an empty Redis, or
(`Q8`) into a vector set, which Redis has from 8.0 on and which needs no copy in hashes. Bytes are those that Redis
holds more than before, hashes and keys included. Recall is against exact search by numpy over the float32 vectors:
real sentences (tau_bench when it is there) embedded by the product's model; an indexed one is the unit sum of two of
them with noise of length 0.35, so that 100,000 lie in clusters as those of real texts do. Queries are sentences of
which no indexed vector is made.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from context_graph.local.redis_server import embedded_redis
from context_graph.models.opening import open_embedder
from context_graph.settings import EmbeddingSettings
from context_graph.store.connection import open_redis
from tests.benchmarks.workload import load_texts

_NOISE = 0.35
_BASE, _QUERIES = 2000, 200  # real sentences
_DTYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "Q8": np.float32}
_VECTOR_SET = "Q8"  # a vector set in its own int8; it takes float32
_EF_RUNTIME = (10, 50, 100, 200)
_STEP = 1000
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Way:
    """How vectors are stored."""

    type: str
    m: int
    ef_construction: int

    @property
    def name(self) -> str:
        return f"{self.type}-{self.m}-{self.ef_construction}"


WAYS = (
    Way("FLOAT32", 16, 200),
    Way("FLOAT16", 16, 200),
    Way("FLOAT16", 16, 100),
    Way("FLOAT16", 8, 200),
    Way("FLOAT16", 24, 200),
    Way(_VECTOR_SET, 16, 200),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """A row: seconds to index all, bytes a vector, per EF_RUNTIME recall@10 and the median query's ms."""

    way: Way
    seconds: float
    bytes_each: float
    recall: dict[int, float]
    query_ms: dict[int, float]


def made_vectors(real: Vectors, count: int, seed: int = 11) -> Vectors:
    """`count` unit vectors: sums of two real ones with noise."""
    random = np.random.default_rng(seed)
    picks = random.integers(0, len(real), size=(count, 2))
    noise = random.standard_normal((count, real.shape[1]), dtype=np.float32) * (_NOISE / real.shape[1] ** 0.5)
    made = real[picks[:, 0]] + real[picks[:, 1]] + noise
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)


def exact(vectors: Vectors, queries: Vectors, k: int) -> list[set[int]]:
    """The `k` nearest of each query, by the whole truth."""
    similar = queries @ vectors.T
    return [set(np.argpartition(-row, k)[:k].tolist()) for row in similar]


async def measure(redis: Any, way: Way, vectors: Vectors, queries: Vectors, truth: Sequence[set[int]]) -> Measured:
    """One way, in an empty Redis."""
    await redis.flushall()
    empty = await _used(redis)
    stored = vectors.astype(_DTYPES[way.type])
    began = time.perf_counter()
    await _fill(redis, way, stored)
    seconds = time.perf_counter() - began
    used = await _used(redis) - empty
    recall, query_ms = {}, {}
    for ef in _EF_RUNTIME:
        found, took = await _ask(redis, way, queries.astype(_DTYPES[way.type]), ef)
        recall[ef] = sum(len(a & b) for a, b in zip(found, truth, strict=True)) / (10 * len(truth))
        query_ms[ef] = median(took) * 1000
    return Measured(way, seconds, used / len(stored), recall, query_ms)


async def _fill(redis: Any, way: Way, stored: NDArray[Any]) -> None:
    """The vectors as this way stores them, until all are indexed."""
    if way.type != _VECTOR_SET:
        shape: tuple[str | int, ...] = ("TYPE", way.type, "DIM", stored.shape[1], "DISTANCE_METRIC", "COSINE")
        shape += ("M", way.m, "EF_CONSTRUCTION", way.ef_construction)
        await redis.execute_command(
            "FT.CREATE", "i", "ON", "HASH", "PREFIX", 1, "v:", "SCHEMA", "x", "VECTOR", "HNSW", len(shape), *shape
        )
    for start in range(0, len(stored), _STEP):
        pipe = redis.pipeline(transaction=False)
        for row in range(start, min(start + _STEP, len(stored))):
            if way.type == _VECTOR_SET:
                options = (way.type, "EF", way.ef_construction, "M", way.m)
                pipe.execute_command("VADD", "i", "FP32", stored[row].tobytes(), f"v:{row}", *options)
            else:
                pipe.hset(f"v:{row}", "x", stored[row].tobytes())
        await pipe.execute()
    while way.type != _VECTOR_SET and int((await _info(redis))["num_docs"]) < len(stored):
        await asyncio.sleep(0.2)


async def _used(redis: Any) -> int:
    """Bytes of data once they stand still: what is dropped is freed in the background."""
    last = -1
    while (used := await _held(redis)) != last:
        last = used
        await asyncio.sleep(0.3)
    return used


async def _held(redis: Any) -> int:
    facts: dict[str, Any] = await redis.info("memory")
    return int(facts["used_memory"]) - int(facts["mem_clients_normal"]) - int(facts["mem_aof_buffer"])


async def _ask(redis: Any, way: Way, queries: NDArray[Any], ef: int) -> tuple[list[set[int]], list[float]]:
    found, took = [], []
    for query in queries:
        began = time.perf_counter()
        if way.type == _VECTOR_SET:
            names = await redis.execute_command("VSIM", "i", "FP32", query.tobytes(), "COUNT", 10, "EF", ef)
            took.append(time.perf_counter() - began)
            found.append({int(name[2:]) for name in names})
            continue
        answer = await redis.execute_command(
            "FT.SEARCH", "i", "*=>[KNN 10 @x $q EF_RUNTIME $ef AS d]", "RETURN", 1, "d", "SORTBY", "d", "LIMIT", 0, 10,
            "PARAMS", 4, "q", query.tobytes(), "ef", ef, "DIALECT", 2,
        )  # fmt: skip
        took.append(time.perf_counter() - began)
        found.append({int(key[2:]) for key in answer[1::2]})
    return found, took


async def _info(redis: Any) -> dict[str, Any]:
    answer = await redis.execute_command("FT.INFO", "i")
    return {k.decode(): v for k, v in zip(answer[::2], answer[1::2], strict=False) if isinstance(k, bytes)}


async def run(count: int, ways: Sequence[Way], base: int = _BASE, queries: int = _QUERIES) -> list[Measured]:
    """Every way in turn; prints the table."""
    texts = load_texts()
    step = max(1, len(texts.sentences) // (base + queries))
    chosen = texts.sentences[::step][: base + queries]
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="context-graph-bench-") as name:
        folder = Path(name)
        async with open_embedder(EmbeddingSettings(), folder) as embedder:
            real = await embedder.embed(chosen)
        asked, real = real[:queries], real[queries:]
        vectors = made_vectors(real, count)
        truth = exact(vectors, asked, 10)
        async with embedded_redis(folder) as server, open_redis(server.url) as redis:
            for way in ways:
                rows.append(await measure(redis, way, vectors, asked, truth))
                sys.stderr.write(f"  {_line(rows[-1])}")
    sys.stdout.write(_HEAD.format(count=count, source=texts.source, base=len(real), queries=queries))
    sys.stdout.write("".join(map(_line, rows)))
    return rows


_HEAD = """{count:,} vectors made of {base:,} real sentences ({source}), {queries} queries
| type | M | EF_C | B/vector | s to index | recall@10 at ef 10, 50, 100, 200 | query ms at these |
|---|---|---|---|---|---|---|
"""


def _line(row: Measured) -> str:
    way = row.way
    recall = ", ".join(f"{row.recall[ef]:.3f}" for ef in _EF_RUNTIME)
    took = ", ".join(f"{row.query_ms[ef]:.1f}" for ef in _EF_RUNTIME)
    return (
        f"| {way.type} | {way.m} | {way.ef_construction} | {row.bytes_each:,.0f} | {row.seconds:.0f} | "
        f"{recall} | {took} |\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.vector_storage", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="vectors [100000]")
    parser.add_argument("--only", action="append", choices=[way.name for way in WAYS], help="this way; may be repeated")
    asked = parser.parse_args(arguments)
    ways = [way for way in WAYS if not asked.only or way.name in asked.only]
    asyncio.run(run(asked.count, ways))


if __name__ == "__main__":
    main()
