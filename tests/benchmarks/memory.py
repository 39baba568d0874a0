"""Memory: bytes of Redis for each byte of JSON that agents posted, in the ledger alone and with everything derived."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

from pydantic import SecretStr

from context_graph.domain.event import TenantId
from context_graph.domain.partition import Partition
from context_graph.settings import VaultSettings
from tests.benchmarks.filling import MADE, fill_derived, fill_ledger, open_pool
from tests.benchmarks.rows import Options, Row, Target
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.workload import Workload, event_bytes, load_texts, stored

_LEDGER = Target(1.5, "at most")
_EVERYTHING = Target(8.0, "at most")
_MEGABYTE = 1024 * 1024
_KINDS_OF_TWO = ("timeline", "registry")
_FACTS = ("vector_index_sz", "inverted_sz", "doc_table_size", "key_table_size", "tag_overhead_sz", "text_overhead_sz")


async def memory(options: Options) -> tuple[Row, ...]:
    """`memory_ledger`, the same sealed, and `memory_everything`: bytes an event beside its JSON."""
    count = options.sized(10_000, 1_000)
    texts = load_texts()
    async with open_stage() as stage:
        pool = await open_pool(stage, texts.sentences, 64 if options.quick else 400)
        await _warm(stage, pool.workload)
        empty = await _used(stage)
        raws = pool.workload.events(count, "m")
        json_bytes = event_bytes(raws) / count
        await fill_ledger(stage, raws)
        ledger = (await _used(stage) - empty) / count
        await fill_derived(stage, pool, count)
        everything = (await _used(stage) - empty) / count
        parts = await _parts(stage, count)
    sealed = await _sealed_ledger(pool.workload, count)
    return (
        _row("memory_ledger", ledger, json_bytes, _LEDGER, events=count),
        _row("memory_ledger_sealed", sealed, json_bytes, _LEDGER, events=count),
        _row("memory_everything", everything, json_bytes, _EVERYTHING, events=count, made=MADE, parts=parts),
    )


async def _sealed_ledger(workload: Workload, count: int) -> float:
    """Bytes an event of a ledger whose events are sealed, their keys included."""
    vault = VaultSettings(master_key=SecretStr(b64encode(bytes(32)).decode()))
    async with open_stage(vault) as stage:
        await _warm(stage, workload)
        empty = await _used(stage)
        await fill_ledger(stage, workload.events(count, "m"))
        return (await _used(stage) - empty) / count


def _row(name: str, used: float, json_bytes: float, target: Target, **notes: Any) -> Row:
    ratio = used / json_bytes
    return Row(
        name=name,
        value=used,
        unit="bytes/event",
        floor=json_bytes,
        ratio=ratio,
        target=f"ratio {target}",
        met=target.met_by(ratio),
        samples={"value": [used], "floor": [json_bytes], "ratio": [ratio]},
        notes=notes,
    )


async def _warm(stage: Stage, workload: Workload) -> None:
    """What a server allocates once (scripts, buffers: some 0.8 MB) is no memory of events: have it allocated before."""
    other = Partition(TenantId("warm"), 0)
    await stage.resources.ledger.append(other, stored(workload.events(500, "w")))


async def _used(stage: Stage) -> int:
    """Bytes of data: what Redis has allocated without its clients' and its log's buffers."""
    facts: dict[str, Any] = await stage.resources.derived_redis.info("memory")
    buffers = ("mem_clients_normal", "mem_aof_buffer", "mem_clients_slaves")
    return int(facts["used_memory"]) - sum(int(facts.get(name, 0)) for name in buffers)


async def _parts(stage: Stage, count: int) -> dict[str, float]:
    """Bytes an event by what holds them: each index, then each kind of key is removed and what Redis gives back counts.

     So nothing is estimated and nothing left out, neither the allocator's rounding nor what RediSearch does not tell
    . `said by FT.INFO` repeats what it does tell.
    """
    redis: Any = stage.resources.derived_redis
    parts: dict[str, float] = {}
    said: dict[str, float] = {}
    left = await _settled(stage)
    kinds: dict[str, list[bytes]] = {}
    async for key in redis.scan_iter(match=f"cg:{stage.partition.tag}:*", count=1000):
        kinds.setdefault(_kind(key.decode()), []).append(key)
    for name in await redis.execute_command("FT._LIST"):
        index = name.decode().rpartition(":")[2]
        answer = await redis.execute_command("FT.INFO", name)
        facts = {k.decode(): v for k, v in zip(answer[::2], answer[1::2], strict=False) if isinstance(k, bytes)}
        for fact in _FACTS:
            said[f"said by FT.INFO of {index}: {fact}"] = float(facts[f"{fact}_mb"]) * _MEGABYTE / count
        await redis.execute_command("FT.DROPINDEX", name)
        left, before = await _settled(stage), left
        parts[f"index {index}"] = (before - left) / count
    for kind, keys in kinds.items():
        for start in range(0, len(keys), 1000):
            await redis.delete(*keys[start : start + 1000])
        left, before = await _settled(stage), left
        parts[kind] = (before - left) / count
    largest_first = sorted(parts.items(), key=lambda part: -part[1])
    return dict(largest_first) | said


def _kind(key: str) -> str:
    """The kind of a partition's key: `event`, `timeline:agent`, `registry:entity` …"""
    names = key.partition("}:")[2].removeprefix("g1:").split(":")
    return ":".join(names[:2]) if names[0] in _KINDS_OF_TWO else names[0]


async def _settled(stage: Stage) -> int:
    """`_used` once it stands still: RediSearch frees what is dropped in the background."""
    last = -1
    while (used := await _used(stage)) != last:
        last = used
        await asyncio.sleep(0.3)
    return used
