"""Memory: bytes of Redis for each byte of JSON that agents posted, in the ledger alone and with everything derived."""

from __future__ import annotations

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
        parts = await _parts(stage)
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


async def _parts(stage: Stage) -> dict[str, float]:
    """Megabytes by kind of key (MEMORY USAGE of a sample) and of the two indexes (FT.INFO)."""
    redis: Any = stage.resources.derived_redis
    sums: dict[str, list[int]] = {}
    async for key in redis.scan_iter(count=1000):
        kind = key.decode().partition("}:")[2].removeprefix("g1:").partition(":")[0]
        sums.setdefault(kind, []).append(int(await redis.memory_usage(key, samples=0) or 0))
    parts = {kind: sum(sizes) / 1e6 for kind, sizes in sorted(sums.items()) if kind}
    for name in await redis.execute_command("FT._LIST"):
        answer = await redis.execute_command("FT.INFO", name)
        facts = {k.decode(): v for k, v in zip(answer[::2], answer[1::2], strict=False) if isinstance(k, bytes)}
        index = name.decode().rpartition(":")[2]
        for fact in ("inverted_sz_mb", "vector_index_sz_mb", "doc_table_size_mb", "key_table_size_mb"):
            parts[f"index {index} {fact}"] = float(facts.get(fact, 0))
        parts[f"index {index} total_mb"] = float(facts.get("total_index_memory_sz_mb", 0))
    return parts
