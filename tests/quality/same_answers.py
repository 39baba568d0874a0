"""Whether two versions of the code answer alike, byte for byte, and what an answer costs each of them.

    python -m tests.quality.same_answers --hold                         # fills a memory, prints its address, keeps it
    python -m tests.quality.same_answers --redis URL --record FILE      # in the checkout before
    python -m tests.quality.same_answers --redis URL --compare FILE     # in the checkout after

The memory is made once, because positions have the time in them and HNSW chance. One tenant has no feedback, another
has. Contexts (scopes, filters, depths, formats, budgets, as-of, without a query) and searches are asked with the clock
held still; answers have their scores, and lack only receipts' ids and timings.

Then 300 plain questions are asked again and counted: processor time of this process (whose vectors are remembered: the
model is not what is compared) and of Redis' main thread, commands with those in scripts, and reads from sockets, which
are round trips. On a shared machine these say what a clock on the wall does not; repeat them by turns all the same.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson
from pydantic import SecretStr

from context_graph.api.app import services_from
from context_graph.api.rendering import search_json, served_json
from context_graph.api.services import Services
from context_graph.bootstrap import open_resources
from context_graph.domain.event import TenantId
from context_graph.domain.filters import parse
from context_graph.domain.graph import GraphDelta, Opinion, Verdict
from context_graph.domain.partition import Tenant
from context_graph.domain.query import understand
from context_graph.models.embedder import Embedder, Vectors
from context_graph.models.embedder_pool import EmbedderPool, open_embedders
from context_graph.retrieval.request import AsOf, ContextQuery, SearchQuery
from context_graph.settings import RetrievalSettings, Settings
from tests.benchmarks.context import questions
from tests.benchmarks.filling import Pool, fill_derived, fill_ledger, open_pool
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.workload import load_texts

_NOW_MS = 1_900_000_000_000  # behind all events
_PLAIN, _OPINED = "plain", "opined"
_SIZES = {_PLAIN: 10_000, _OPINED: 2_000}  # events by tenant
_OF_EACH = 120  # questions of every kind, of each tenant
_COUNTED = 300  # plain questions
_FORMATS = ("json", "markdown", "messages", "anthropic")
_BUDGETS = (200, 1000, 2000, 8000)
_MODES = ("hybrid", "semantic", "keyword")


async def _hold() -> None:
    """Make the memory and keep it until the input ends."""
    async with open_stage() as stage:
        pool = await open_pool(stage, load_texts().sentences, 400)
        for name, count in _SIZES.items():
            tenant = await stage.resources.tenants.ensure(TenantId(name), 1)
            there = Stage(stage.url, stage.folder, stage.resources, tenant.partitions[0], "")
            await _fill(there, pool, count)
            if name == _OPINED:
                await _opine(there)
        print(stage.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def _fill(stage: Stage, pool: Pool, count: int) -> None:
    await fill_ledger(stage, pool.workload.events(count, "c"))
    await fill_derived(stage, pool, count)


async def _opine(stage: Stage) -> None:
    """Say of every third event that it helped, or did not."""
    events = await stage.resources.ledger.after(stage.partition, None, _SIZES[_OPINED])
    delta = GraphDelta()
    for number, event in enumerate(events[::3]):
        verdict: Verdict = 1 if number % 4 else -1
        delta.opinions[event.envelope.event_id] = {
            Opinion(f"receipt-{receipt}", event.position, verdict) for receipt in range(1 + number % 3)
        }
    await stage.resources.graph.apply(stage.partition, delta)


class _Remembering:
    """The embedders of the API, which embed each text once."""

    def __init__(self, embedders: EmbedderPool) -> None:
        self._embedders = embedders
        self._known: dict[str, Vectors] = {}
        self._of: Any = None

    async def of(self, recipe: Any) -> _Remembering:
        self._of = await self._embedders.of(recipe)
        return self

    async def embed(self, texts: Sequence[str]) -> Vectors:
        [text] = texts
        if text not in self._known:
            embedder: Embedder = self._of
            self._known[text] = await embedder.embed([text])
        return self._known[text]


@asynccontextmanager
async def _services(url: str) -> AsyncIterator[Services]:
    with tempfile.TemporaryDirectory(prefix="context-graph-same-") as folder:
        settings = Settings(
            redis_url=SecretStr(url), data_dir=Path(folder), retrieval=RetrievalSettings(deadline_ms=60_000)
        )
        async with (
            open_resources(settings) as resources,
            open_embedders(settings.embedding, settings.data_dir / "models") as embedders,
        ):
            remembering: Any = _Remembering(embedders)
            yield services_from(resources, remembering, lambda: _NOW_MS)


async def _asked(services: Services, tenant: Tenant) -> list[ContextQuery | SearchQuery]:
    """Questions of every kind: each varies in one thing, and some in all."""
    count = _SIZES[tenant.name]
    half = (await services.resources.ledger.after(tenant.partitions[0], None, count // 2))[-1].position
    as_of = AsOf(half.ms, half)
    asked: list[ContextQuery | SearchQuery] = []
    for number, text in enumerate(questions(_OF_EACH)):
        session, user = f"c-session-{number % (count // 40):05d}", f"customer-{number % 40:03d}"
        varied: tuple[dict[str, Any], ...] = (
            {},
            {"format": _FORMATS[number % 4], "token_budget": _BUDGETS[number // 16 % 4]},
            {"session_id": session},
            {"user_id": user, "session_id": session},
            {"agent_id": f"agent-{number % 4}"},
            {"filters": parse({"event_type": {"any": ["user.message", "tool.call", "tool.result"]}})},
            {"max_depth": number % 4, "max_nodes": 20 + number},
            {"as_of": as_of},
            {"token_budget": _BUDGETS[number // 16 % 4]},
            {"intents": {"why": 1.0}, "max_depth": 3},
            {"query": "", "user_id": user},
        )
        asked.append(ContextQuery(**{"query": text, "explain": True, **varied[number % len(varied)]}))
        if number % 4 == 0:
            mode: Any = _MODES[number // 4 % 3]
            then = as_of if number % 5 == 0 else None
            asked.append(SearchQuery(query=text, mode=mode, limit=min(200, 10 + number), as_of=then))
    return asked


async def _answers(services: Services, tenant: Tenant) -> AsyncIterator[tuple[str, bytes]]:
    """Each question with its answer, without what differs from one time to the next."""
    for query in await _asked(services, tenant):
        if isinstance(query, SearchQuery):
            found = await services.retrieval.search(tenant, query)
            answer = search_json(query, found, None)
            answer["unrounded"] = [(one.score, dict(one.channels)) for one in found.results]
        else:
            served = await services.retrieval.context(tenant, query)
            answer = served_json(served)
            answer["unrounded"] = [(one.score, dict(one.channels)) for one in served.packed.items]
            del answer["receipt_id"], answer["meta"]["timings_ms"]
        yield f"{tenant.name}: {query}", orjson.dumps(answer)


async def _cost(services: Services, tenant: Tenant) -> dict[str, float]:
    """Of one of the plain questions, whose vectors are known: ms of processor time, commands, reads from sockets."""
    asked = [ContextQuery(query=text) for text in questions(_COUNTED)]
    embedder = await services.embedders.of(None)
    for query in asked:
        await embedder.embed([understand(query.query).subject])
    redis: Any = services.resources.derived_redis
    before, began = await redis.info("everything"), time.process_time()
    for query in asked:
        await services.retrieval.context(tenant, query)
    taken, after = time.process_time() - began, await redis.info("everything")

    def spent(name: str) -> float:
        return float(after[name] - before[name]) / _COUNTED

    server = spent("used_cpu_user_main_thread") + spent("used_cpu_sys_main_thread")
    return {
        "python_ms": taken / _COUNTED * 1000,
        "redis_ms": server * 1000,
        "commands": spent("total_commands_processed"),
        "round_trips": spent("total_reads_processed"),
    }


async def _run(url: str, turns: int) -> list[tuple[str, bytes]]:
    """Questions with their answers; what they cost is printed, once for each turn."""
    async with _services(url) as services:
        tenants = [tenant for name in _SIZES if (tenant := await services.resources.tenants.get(TenantId(name)))]
        found = [answer for tenant in tenants for answer in [a async for a in _answers(services, tenant)]]
        for _ in range(turns):
            print(orjson.dumps(await _cost(services, tenants[0])).decode(), flush=True)
    return found


def _differing(before: Sequence[bytes], found: Sequence[tuple[str, bytes]]) -> list[str]:
    """Questions that have another answer than before, or none there."""
    return [
        "one that is not asked now" if new is None else new[0]
        for old, new in zip_longest(before, found)
        if new is None or old != new[1]
    ]


def main() -> int:
    """The exit code: 1 when an answer is another one."""
    parser = argparse.ArgumentParser(description="whether two versions answer alike, and at what cost")
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--redis", metavar="URL")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--compare", type=Path)
    parser.add_argument("--turns", type=int, default=1, help="how often the cost is measured")
    options = parser.parse_args()
    if options.hold:
        asyncio.run(_hold())
        return 0
    if options.redis is None:
        parser.error("--redis is missing: the address that --hold prints")
    found = asyncio.run(_run(options.redis, options.turns))
    if options.record is not None:
        options.record.write_bytes(b"\n".join(answer for _, answer in found))
    differ = _differing(options.compare.read_bytes().split(b"\n"), found) if options.compare is not None else []
    for question in differ[:5]:
        sys.stderr.write(f"another answer: {question}\n")
    sys.stderr.write(f"{len(found)} answers, {len(differ)} others than before\n")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
