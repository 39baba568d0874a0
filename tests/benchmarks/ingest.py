"""Ingest over HTTP, in batches and single, beside XADD of the same bytes without and with an HTTP server before it."""

from __future__ import annotations

import time
from base64 import b64encode
from statistics import median

import orjson
from redis import Redis

from tests.benchmarks.api_cost import cpu_seconds
from tests.benchmarks.floor_app import STREAM
from tests.benchmarks.http_client import Outcome
from tests.benchmarks.rows import Options, Row, Target, in_turns, percentile
from tests.benchmarks.stage import open_stage
from tests.benchmarks.workload import Workload, event_bytes, load_texts, stored

_BATCH = 500
_BATCH_CONNECTIONS = 2  # one batch is on its way while the server works on the other
_CONNECTIONS = 32
_SEALED = Target(0.25, "at least")  # our own: sealing may cost no more than some three tenths of the rate
_MASTER_KEY = b64encode(bytes(32)).decode()


def pipelined_xadd(redis: Redis, bodies: list[bytes], batch: int) -> float:
    """Seconds that redis-py takes to append the bodies in pipelines of `batch`."""
    began = time.perf_counter()
    for start in range(0, len(bodies), batch):
        pipe = redis.pipeline(transaction=False)
        for body in bodies[start : start + batch]:
            pipe.xadd(STREAM, {"e": body})
        pipe.execute()
    return time.perf_counter() - began


async def ingest_batch(options: Options) -> Row:
    """Events a second through POST /v1/events/batch, batches of 500, kept in the clear."""
    return await _batches(options, "ingest_batch", Target(0.35, "at least"), {})


async def ingest_batch_sealed(options: Options) -> Row:
    """The same, each event sealed with the keys of its person and its session, as `context-graph up` has it."""
    return await _batches(options, "ingest_batch_sealed", _SEALED, {"CG_VAULT__MASTER_KEY": _MASTER_KEY})


async def _batches(options: Options, name: str, target: Target, environment: dict[str, str]) -> Row:
    count = options.sized(20_000, 2_000)
    workload = Workload(load_texts().sentences)
    busy: list[float] = []
    cpu: list[float] = []
    async with open_stage() as stage, stage.api(environment) as port:
        floor_client = Redis.from_url(stage.url, protocol=2)

        async def product(turn: int) -> float:
            raws = workload.events(count, f"b{turn}")
            batches = [raws[start : start + _BATCH] for start in range(0, count, _BATCH)]
            bodies = [orjson.dumps({"events": batch}) for batch in batches]
            before = cpu_seconds(port)
            outcome = await stage.load(port, "/v1/events/batch", _BATCH_CONNECTIONS, bodies)
            busy.append(outcome.client_busy)
            cpu.append((cpu_seconds(port) - before) / count * 1e6)
            return count / outcome.seconds

        async def floor(turn: int) -> float:
            bodies = [event.body for event in stored(workload.events(count, f"b{turn}"))]
            return count / pipelined_xadd(floor_client, bodies, _BATCH)

        await product(-1)  # the first requests of a process load what the rest do not
        pairs = await in_turns(options.pairs, product, floor)
        floor_client.close()
    return pairs.row(
        name,
        "events/s",
        target,
        events_a_sample=count,
        batch=_BATCH,
        connections=_BATCH_CONNECTIONS,
        bytes_an_event=event_bytes(workload.events(1000, "b0")) / 1000,
        client_busy=median(busy),
        api_cpu_us_an_event=median(cpu[1:]),
    )


async def ingest_single(options: Options) -> Row:
    """Events a second through POST /v1/events over 32 keep-alive connections."""
    count = options.sized(6_000, 500)
    workload = Workload(load_texts().sentences)
    outcomes: dict[str, list[Outcome]] = {"product": [], "floor": []}
    async with open_stage() as stage, stage.api() as port, stage.floor_app() as floor_port:

        async def product(turn: int) -> float:
            bodies = [orjson.dumps(raw) for raw in workload.events(count, f"s{turn}")]
            outcome = await stage.load(port, "/v1/events", _CONNECTIONS, bodies)
            outcomes["product"].append(outcome)
            return count / outcome.seconds

        async def floor(turn: int) -> float:
            bodies = [event.body for event in stored(workload.events(count, f"s{turn}"))]
            outcome = await stage.load(floor_port, "/floor", _CONNECTIONS, bodies)
            outcomes["floor"].append(outcome)
            return count / outcome.seconds

        await product(-1)
        await floor(-1)
        for kind in outcomes.values():
            kind.clear()
        pairs = await in_turns(options.pairs, product, floor)
    latencies = {
        f"{name}_p{share}_ms": percentile([ms for outcome in kind for ms in outcome.latencies_ms], share / 100)
        for name, kind in outcomes.items()
        for share in (50, 99)
    }
    busy = max(outcome.client_busy for kind in outcomes.values() for outcome in kind)
    return pairs.row(
        "ingest_single",
        "events/s",
        Target(0.6, "at least"),
        events_a_sample=count,
        connections=_CONNECTIONS,
        client_busy_max=busy,
        **latencies,
    )
