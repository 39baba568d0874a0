"""A simulated half year with and without forgetting, with a bound on old summaries too, and with tight ones:
`python -m tests.quality.long_life [days]`.

One LoCoMo session a day in turn, told anew under that day's date; every ten days a pass of summaries and forgetting, by
a clock that is given. Vectors are made of words (`tests.forgetting.vector_of`), no model runs: sizes are real, and
recall is of the text channel with these vectors. Recall: of questions about days that are old at the end, the share of
evidence turns among the twenty best, and the share whose session's summary is among them.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import structlog
from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.event import Envelope, EventId, SessionId, TenantId
from context_graph.domain.filters import Filters
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.retention import DAY_MS, ForgettingPolicy
from context_graph.local.redis_server import embedded_redis
from context_graph.models.embedder import Embedder, Vectors
from context_graph.models.tokens import open_counters
from context_graph.observability.metrics import Metrics
from context_graph.resolution.entities import Entities
from context_graph.retrieval.forgotten import ForgottenNodes
from context_graph.retrieval.neighbours import Neighbours
from context_graph.retrieval.request import ContextQuery
from context_graph.retrieval.service import Retrieval, RetrievalParts
from context_graph.settings import RetrievalSettings, Settings
from context_graph.store.forgotten import Forgotten
from context_graph.store.keys import GraphKeys
from context_graph.store.learned import LearnedFacts
from context_graph.store.mentions import Mentions
from context_graph.store.queries import Searcher
from context_graph.store.receipts import ReceiptIndex
from context_graph.store.retention import Policies
from context_graph.store.timelines import Timelines
from enrichment.reconsolidation.forgetting_pass import forget
from enrichment.reconsolidation.run import consolidate
from tests.forgetting import append, derive, passed, vector_of
from tests.quality.sets import Conversation, Turn, locomo

POLICY = ForgettingPolicy(
    enabled=True, hot_days=7, warm_days=20, forget_after_days=30, max_events_per_run=1_000_000,
    keep_share=0.5, keep_most=1200,
)  # fmt: skip
BOUNDED = replace(POLICY, keep_summaries=60)
TIGHT = replace(POLICY, hot_days=2, warm_days=5, forget_after_days=10, keep_share=0.0, keep_summaries=5)
_EVERY = 10  # days between passes
_MONTH = 30  # days
_BEST = 20
_ASKED = 1000
_TIMED = 40  # questions whose contexts are timed at each reading


@dataclass(frozen=True, slots=True)
class Reading:
    """The service at the end of a day."""

    day: int
    ledger: int
    documents: int
    derived_mb: float
    p50: float
    p95: float
    """Milliseconds of a context of 2,000 tokens, its receipt and the model left out."""
    kinds: dict[str, int]
    """Bytes of derived memory by what the keys are."""


async def live(resources: Resources, partition: Partition, days: int, policy: ForgettingPolicy) -> list[Reading]:
    """All the days; what was found every ten."""
    await Policies(resources.ledger_redis).put(partition.tenant, policy)
    sessions = sessions_of(locomo())
    seen: Position | None = None
    readings = []
    for day in range(days):
        await append(resources, partition, _told(sessions[day % len(sessions)], day))
        if (day + 1) % _EVERY == 0:
            seen = await _caught_up(resources, partition, seen)
            await consolidate(resources, partition, "long life")
            seen = await _caught_up(resources, partition, seen)
            await forget(resources, partition, "long life", (day + 1) * DAY_MS)
            seen = await _caught_up(resources, partition, seen)
            readings.append(await _read(resources, partition, day + 1))
    return readings


async def recall(resources: Resources, partition: Partition, days: int) -> tuple[float, float]:
    """Evidence turns, and evidence turns or a summary of their session, among the best; of old questions."""
    await _collected(resources, partition)
    sessions = sessions_of(locomo())
    old = {(c.name, t.session): day for day, (c, turns) in enumerate(sessions[: days // 2]) for t in turns[:1]}
    turns, either, count = 0.0, 0.0, 0
    for conversation in locomo():
        for question in conversation.questions:
            wanted = [conversation.turns[n] for n in question.evidence]
            if count >= _ASKED or any((conversation.name, turn.session) not in old for turn in wanted):
                continue
            found = await _best(resources, partition, question.text)
            ids = [_id(old[(conversation.name, t.session)], t) for t in wanted]
            scopes = [f"summary:session/day-{old[(conversation.name, t.session)]}" for t in wanted]
            turns += sum(i in found for i in ids) / len(ids)
            either += sum(i in found or s in found for i, s in zip(ids, scopes, strict=True)) / len(ids)
            count += 1
    return (turns / max(count, 1), either / max(count, 1))


async def _best(resources: Resources, partition: Partition, text: str) -> set[str]:
    searcher = Searcher(resources.derived_redis, resources.generations.live)
    words = re.findall(r"\w+", text.lower())
    near = await searcher.near(partition, vector_of(text), Filters(()), _BEST // 2)
    matching = await searcher.matching(partition, words, Filters(()), _BEST // 2)
    return {*near, *matching}


async def _caught_up(resources: Resources, partition: Partition, seen: Position | None) -> Position | None:
    while events := await resources.ledger.after(partition, seen, 500):
        await derive(resources, partition, events)
        seen = events[-1].position
    await passed(resources, partition)
    return seen


async def _read(resources: Resources, partition: Partition, day: int) -> Reading:
    redis: Any = resources.derived_redis
    tag, pipe, names = GraphKeys(partition).tag, redis.pipeline(transaction=False), []
    async for key in redis.scan_iter(match=f"{tag}:*", count=2000):
        names.append(key.decode().removeprefix(f"{tag}:"))
        pipe.execute_command("MEMORY", "USAGE", key)
    kinds: Counter[str] = Counter()
    for name, size in zip(names, await pipe.execute(), strict=True):
        kinds[_kind(name)] += size or 0
    statistics = await resources.index.statistics(partition)
    tenant = await resources.tenants.ensure(partition.tenant, 1)
    retrieval, spent = retrieval_of(resources), []
    for text in _questions():
        began = time.perf_counter()
        await retrieval.context(tenant, ContextQuery(query=text))
        spent.append((time.perf_counter() - began) * 1000)
    ledger = await resources.ledger.length(partition)
    p50, p95 = quantiles(spent, n=20)[9], quantiles(spent, n=20)[18]
    return Reading(day, ledger, statistics.documents, kinds.total() / 1e6, p50, p95, dict(kinds))


async def _collected(resources: Resources, partition: Partition) -> None:
    """Let the index's garbage collection run, which a simulated day leaves no time for (it runs every 30 s).

    Until it has, words of what is gone still count in the scores of BM25 (`test_scores_after_forgetting.py`): the same
    index found 0.332 before it and 0.418 after it. It runs only when 100 documents have gone.
    """
    index = GraphKeys(partition).text_index
    redis: Any = resources.derived_redis
    await redis.execute_command("FT.DEBUG", "GC_FORCEINVOKE", index, 30_000)


def _kind(name: str) -> str:
    """What a key is: its first word, the kind of a timeline, and whether it is about a summary."""
    kind, _, rest = name.partition(":")
    if kind == "timeline":
        return f"{kind} {rest.partition(':')[0]}"
    about = rest.partition(":")[2] if kind == "vec" else rest
    return (
        f"{kind} {'summary' if about.startswith('summary') else 'event'}" if kind in ("doc", "vec", "event") else kind
    )


class _Words:
    """Vectors made of words, as an embedder."""

    model_id = "made"
    dimensions = 384

    async def identify(self, *, anew: bool = False) -> str:
        return self.model_id

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return np.stack([np.frombuffer(vector_of(text), dtype=np.float32) for text in texts])


def retrieval_of(resources: Resources) -> Retrieval:
    """Retrieval without a model."""
    redis, graph, live = resources.derived_redis, resources.graph, resources.generations.live
    receipts, mentions = ReceiptIndex(redis, graph), Mentions(redis, graph)
    memory = ForgottenNodes(resources.ledger, Forgotten(redis, graph))

    async def embedder_of(tenant: TenantId) -> Embedder:
        return _Words()

    return Retrieval(
        RetrievalParts(
            searcher=Searcher(redis, live), index=resources.index, graph=graph, groups=resources.groups,
            generations=resources.generations, ledger=resources.ledger, receipts=receipts,
            learned=LearnedFacts(redis, graph),
            neighbours=Neighbours(graph, Timelines(redis, graph), receipts, mentions, memory),
            entities=Entities(resources.index.entities, resources.ledger, lambda: 0),
            embedder_of=embedder_of, counters=open_counters(), settings=RetrievalSettings(receipts=False),
            now_ms=lambda: 0, metrics=Metrics(),
        )
    )  # fmt: skip


@cache
def _questions() -> list[str]:
    return [question.text for question in locomo()[0].questions[:_TIMED]]


def sessions_of(conversations: Sequence[Conversation]) -> list[tuple[Conversation, list[Turn]]]:
    """Each session: the conversation it is of, and its turns."""
    found: dict[tuple[str, str], tuple[Conversation, list[Turn]]] = {}
    for conversation in conversations:
        for turn in conversation.turns:
            found.setdefault((conversation.name, turn.session), (conversation, []))[1].append(turn)
    return list(found.values())


def _id(day: int, turn: Turn) -> str:
    return f"day-{day}/{turn.id}"


def _told(session: tuple[Conversation, list[Turn]], day: int) -> list[Envelope]:
    return [
        Envelope(
            event_id=EventId(_id(day, turn)), event_type="user.message", session_id=SessionId(f"day-{day}"),
            agent_id=turn.speaker, user_id=session[0].name, occurred_at=day * DAY_MS + place * 1000,
            payload={"text": turn.text, "speaker": turn.speaker},
        )
        for place, turn in enumerate(session[1])
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """Milliseconds of all communities, asked for once and then again, and of the sessions related to one."""

    communities: float
    again: float
    related: float


async def asked(resources: Resources) -> Asked:
    """Timed once each, at the end."""
    tenant, retrieval = await resources.tenants.ensure("default", 1), retrieval_of(resources)
    cuts: list[str] = []
    times = [time.perf_counter()]
    for question in (
        retrieval.communities.all(tenant, None, cuts.append),
        retrieval.communities.all(tenant, None, cuts.append),
        retrieval.related.of(tenant, "day-20", 10, 0.0, None, cut=cuts.append),
    ):
        await question
        times.append(time.perf_counter())
    if cuts:
        raise RuntimeError(f"answers are not whole: {cuts}")
    return Asked(*((later - before) * 1000 for before, later in pairwise(times)))


Life = tuple[list[Reading], tuple[float, float], Asked]


async def compared(days: int) -> dict[str, Life]:
    """Without and with forgetting, by several policies, each on a Redis of its own."""
    found: dict[str, Life] = {}
    for name, policy in (("without", ForgettingPolicy()), ("with", POLICY), ("bounded", BOUNDED), ("tight", TIGHT)):
        with tempfile.TemporaryDirectory() as folder:
            async with embedded_redis(Path(folder)) as server:
                settings = Settings(redis_url=SecretStr(server.url), data_dir=Path(folder))
                async with open_resources(settings) as resources:
                    [partition] = (await resources.tenants.ensure("default", 1)).partitions
                    readings = await live(resources, partition, days, policy)
                    found[name] = (readings, await recall(resources, partition, days), await asked(resources))
    return found


def main() -> None:
    """Print the table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    days = int(sys.argv[1]) if len(sys.argv) > 1 else 180
    found = asyncio.run(compared(days))
    _print_lives(found)
    for name, (_, (turns, either), times) in found.items():
        sys.stdout.write(
            f"{name}: recall on old questions: turns {turns:.3f}, turns or their summary {either:.3f}; communities "
            f"{times.communities:.0f} ms, again {times.again:.0f} ms, related sessions {times.related:.0f} ms\n"
        )
    readings = {name: life[0] for name, life in found.items()}
    _print_months(readings)
    _print_growth(readings)


def _print_lives(found: dict[str, Life]) -> None:
    names = ", ".join(found)
    sys.stdout.write(f"day  events | documents, derived MB, context ms p50/p95: {names}\n")
    for readings in zip(*(readings for readings, _, _ in found.values()), strict=True):
        columns = (f"{r.documents:6} {r.derived_mb:6.2f} {r.p50:5.1f}/{r.p95:5.1f}" for r in readings)
        sys.stdout.write(f"{readings[0].day:3} {readings[0].ledger:7} | {' | '.join(columns)}\n")


def _print_months(found: dict[str, list[Reading]]) -> None:
    """The median context of each month beside that of the first month of the same run."""
    sys.stdout.write(f"\ncontext p50 by month, 1 = the first: {', '.join(found)}\n")
    for month in range(1, found["without"][-1].day // _MONTH + 1):
        columns = []
        for readings in found.values():
            p50 = [median(r.p50 for r in readings if _month_of(r) == number) for number in (1, month)]
            columns.append(f"{p50[1] / p50[0]:9.2f}")
        sys.stdout.write(f"{month:3}" + "".join(columns) + "\n")


def _month_of(reading: Reading) -> int:
    return -(-reading.day // _MONTH)


def _print_growth(found: dict[str, list[Reading]]) -> None:
    """Bytes a day over the last 60 days by what the keys are, most first."""
    sys.stdout.write(f"\nbytes a day over the last 60 days: {', '.join(found)}\n")
    growth = {}
    for name, readings in found.items():
        before, last = readings[max(len(readings) - 1 - 60 // _EVERY, 0)], readings[-1]
        days = max(last.day - before.day, 1)
        growth[name] = {kind: (size - before.kinds.get(kind, 0)) / days for kind, size in last.kinds.items()}
    kinds = {kind for grown in growth.values() for kind in grown}
    for kind in sorted(kinds, key=lambda kind: -growth["without"].get(kind, 0)):
        sys.stdout.write(f"{kind:16}" + "".join(f"{grown.get(kind, 0):9.0f}" for grown in growth.values()) + "\n")
    sys.stdout.write(f"{'all':16}" + "".join(f"{sum(grown.values()):9.0f}" for grown in growth.values()) + "\n")


if __name__ == "__main__":
    main()
