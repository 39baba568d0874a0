"""A rebuild with every vector known, beside the floor of Stage 1: two worker processes as an operator runs them.

The product's part is everything: graph, text index, vectors and entities of a second generation, from the request until
every stage has passed the ledger's end. The floor is Stage 1's: the plain writing of the graph's fields alone. What
RediSearch takes to insert the same vectors into an HNSW graph, with nothing else to do, is measured beside it
(`vectors_alone_per_second`): it does that in Redis' one thread, so no rebuild that makes an index can be faster.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from context_graph.domain.partition import Tenant
from context_graph.domain.stages import stages_of
from context_graph.store.documents import vector_index_definition
from context_graph.store.keys import GraphKeys
from tests.benchmarks.filling import MADE, fill_derived, fill_ledger, open_pool
from tests.benchmarks.projection import commands_for, send
from tests.benchmarks.rows import Options, Row, Target, in_turns
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.workload import load_texts

_LOOK = 0.05  # seconds between two looks at the groups
_SCRATCH = 99  # a generation that no worker feeds


async def rebuild(options: Options) -> Row:
    """Events a second from the beginning of a rebuild until its last stage has passed the ledger's end."""
    count = options.sized(20_000, 1_500)
    parts: dict[str, float] = {}
    async with open_stage() as stage:
        pool = await open_pool(stage, load_texts().sentences, 64 if options.quick else 400)
        await fill_ledger(stage, pool.workload.events(count, "m"))
        await fill_derived(stage, pool, count)
        tenant = Tenant(stage.partition.tenant)
        scratch = await commands_for(stage, count, _SCRATCH)
        alone = await _vectors_alone(stage, count)
        async with stage.workers("projection", "enrichment"):
            await _settled(stage)

            async def product(_turn: int) -> float:
                return count / await _rebuilt(stage, tenant, parts)

            async def floor(_turn: int) -> float:
                batch = stage.resources.settings.delivery.batch_events
                return count / await send(stage.resources.derived_redis, scratch, batch)

            pairs = await in_turns(min(options.pairs, 3), product, floor)
    return pairs.row("rebuild", "events/s", Target(0.3, "at least"), events_a_sample=count, filled=MADE,
                     vectors_alone_per_second=alone, seconds_until_passed=dict(parts))  # fmt: skip


async def _settled(stage: Stage) -> None:
    """Until the workers live."""
    while True:
        members = [await stage.resources.groups.members(stage.partition, row.group) for row in stages_of(1)]
        if all(found.living for found in members):
            return
        await asyncio.sleep(_LOOK)


async def _rebuilt(stage: Stage, tenant: Tenant, parts: dict[str, float]) -> float:
    """Seconds of one rebuild; it is dropped afterwards. `parts` gets the seconds until each stage had passed."""
    last = await stage.resources.ledger.last(stage.partition)
    assert last is not None
    began = time.perf_counter()
    begun = await stage.resources.rebuilds.start(tenant, "never")
    waiting = {row.group: row for row in stages_of(begun.number)}
    while waiting:
        for group in list(waiting):
            if (await stage.resources.groups.state(stage.partition, group)).has_passed(last):
                parts[group.partition(".")[0]] = time.perf_counter() - began
                del waiting[group]
        await asyncio.sleep(_LOOK)
    seconds = time.perf_counter() - began
    await stage.resources.rebuilds.drop(tenant.name, begun.id)
    while (await stage.resources.generations.read(tenant.name)).dropping:
        await asyncio.sleep(_LOOK)
    return seconds


async def _vectors_alone(stage: Stage, count: int) -> float:
    """Vectors a second that RediSearch inserts from hashes that hold nothing else worth indexing."""
    redis: Any = stage.resources.derived_redis
    source, scratch = GraphKeys(stage.partition), GraphKeys(stage.partition, _SCRATCH)
    settings = stage.resources.settings
    index, prefix = scratch.vector_index, scratch.vector_prefix
    await redis.execute_command(
        *vector_index_definition(index, prefix, settings.embedding.dimensions, settings.vectors)
    )
    names = [f"m-{number:07d}" for number in range(count)]
    hashes = []
    for start in range(0, count, 500):
        pipe = redis.pipeline(transaction=False)
        for name in names[start : start + 500]:
            pipe.hgetall(source.vector(name))
        hashes += await pipe.execute()
    began = time.perf_counter()
    for start in range(0, count, 500):
        pipe = redis.pipeline(transaction=False)
        for name, found in zip(names[start : start + 500], hashes[start : start + 500], strict=True):
            pipe.hset(scratch.vector(name), mapping=found)
        await pipe.execute()
    seconds = time.perf_counter() - began
    await redis.execute_command("FT.DROPINDEX", scratch.vector_index, "DD")
    return count / seconds
