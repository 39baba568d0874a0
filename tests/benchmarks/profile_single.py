"""Where the time of a single append goes: `python -m tests.benchmarks.profile_single [--events N]`.

The API process runs under cProfile while 32 connections post single events; printed are the functions with the most
time of their own, and the shares by layer. cProfile doubles the cost of small Python functions beside that of C code:
read the shares as an order, not as a measure.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pstats
import sys
from collections import Counter
from pathlib import Path

import orjson

from context_graph.local.process import Child, Program
from context_graph.local.redis_server import free_port
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.workload import Workload, load_texts
from tests.serving import until_listening

_CONNECTIONS = 32
_SHOWN = 25
_LAYERS = (
    ("context_graph/store", "our store"), ("context_graph/ingest", "our ingest"), ("context_graph", "our API"),
    ("redis/", "redis-py"), ("uvicorn/", "uvicorn"), ("fastapi/", "FastAPI"), ("starlette/", "Starlette"),
    ("pydantic", "pydantic"), ("prometheus", "prometheus"), ("asyncio/", "asyncio"), ("structlog", "structlog"),
)  # fmt: skip


async def profiled(events: int) -> pstats.Stats:
    """The statistics of an API process that took that many single events."""
    async with open_stage() as stage:
        out = stage.folder / "profile"
        port = free_port()
        child = _start(stage, out, port)
        try:
            await until_listening(child, port)
            bodies = [orjson.dumps(raw) for raw in Workload(load_texts().sentences).events(events, "p")]
            outcome = await stage.load(port, "/v1/events", _CONNECTIONS, bodies)
            sys.stderr.write(f"{events / outcome.seconds:,.0f} events/s under the profiler\n")
        finally:
            await child.stop(30)
        return pstats.Stats(str(out))


def _start(stage: Stage, out: Path, port: int) -> Child:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CG_")}
    mine = {"CG_REDIS_URL": stage.url, "CG_DATA_DIR": str(stage.folder), "CG_LOG_LEVEL": "warning"}
    command = ("-m", "cProfile", "-o", str(out), "-m", "context_graph.cli.main", "api", "--port", str(port))
    return Child.start(Program("api", (sys.executable, *command), stage.folder / "api.log", kept | mine))


def by_layer(statistics: pstats.Stats) -> Counter[str]:
    """Seconds of own time by layer; C functions count for themselves."""
    layers: Counter[str] = Counter()
    for (file, _, name), (_, _, own, _, _) in statistics.stats.items():  # type: ignore[attr-defined]
        where = next(
            (layer for part, layer in _LAYERS if part in file), f"C: {name}" if file == "~" else "other Python"
        )
        layers[where] += own
    return layers


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.profile_single", description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    statistics = asyncio.run(profiled(parser.parse_args().events))
    statistics.sort_stats("tottime").print_stats(_SHOWN)
    layers = by_layer(statistics)
    for layer, seconds in layers.most_common(20):
        sys.stdout.write(f"{layer:60} {seconds:7.2f} s {seconds / layers.total():6.1%}\n")


if __name__ == "__main__":
    main()
