"""What workers say of themselves: that they live, and what they have done.

A worker's life is a key that expires; in it is its report, so that what a process counts reaches `/metrics` without a
port of its own. A list of all consumers is kept beside it, for an hour after the last word of each: a worker that died
is seen as one whose heartbeat grows old, and nothing is scanned.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from time import time
from typing import Any

import orjson

from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import WORKERS, worker_heartbeat

_REMEMBERED_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a consumer has done since it started. `busy_seconds`: in its handler; `rate`: events/s since the last."""

    stage: str
    started_ms: int
    events: int = 0
    batches: int = 0
    busy_seconds: float = 0.0
    rate: float = 0.0
    retries: int = 0
    dead_letters: int = 0
    took_over: int = 0
    outages: int = 0
    recovered: int = 0
    """Events that were trimmed before they were read, and read from the archive."""
    lost: int = 0
    """Events that were trimmed before they were read, and are nowhere."""
    parked: int = 0


@dataclass(frozen=True, slots=True)
class KnownWorker:
    """A consumer, the seconds since its last heartbeat, and its report while it lives."""

    consumer: str
    age_seconds: float
    report: WorkerReport | None


class WorkerReports:
    """Heartbeats of every worker."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def beat(self, consumer: str, report: WorkerReport, lifetime_ms: int) -> None:
        """The worker lives: for `lifetime_ms` more."""
        now = _now_ms()
        with store_errors("the heartbeat"):
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(worker_heartbeat(consumer), orjson.dumps(asdict(report)), px=lifetime_ms)
            pipe.zadd(WORKERS, {consumer: now})
            pipe.zremrangebyscore(WORKERS, "-inf", now - _REMEMBERED_MS)
            await pipe.execute()

    async def leave(self, consumer: str) -> None:
        """The worker ends as it should."""
        with store_errors("the last heartbeat"):
            pipe = self._redis.pipeline(transaction=False)
            pipe.delete(worker_heartbeat(consumer))
            pipe.zrem(WORKERS, consumer)
            await pipe.execute()

    async def alive(self, consumers: Sequence[str]) -> Collection[str]:
        """Those of them that live."""
        if not consumers:
            return frozenset()
        with store_errors("looking for heartbeats"):
            pipe = self._redis.pipeline(transaction=False)
            for consumer in consumers:
                pipe.exists(worker_heartbeat(consumer))
            answers = await pipe.execute()
        return frozenset(consumer for consumer, exists in zip(consumers, answers, strict=True) if exists)

    async def known(self) -> list[KnownWorker]:
        """Every worker that lived within the last hour and did not say goodbye."""
        with store_errors("reading heartbeats"):
            beats: Any = await self._redis.zrange(WORKERS, 0, -1, withscores=True)
            pipe = self._redis.pipeline(transaction=False)
            for consumer, _ in beats:
                pipe.get(worker_heartbeat(consumer.decode()))
            reports = await pipe.execute() if beats else []
        now = _now_ms()
        return [
            KnownWorker(consumer.decode(), max(0.0, (now - at) / 1000), _report(raw))
            for (consumer, at), raw in zip(beats, reports, strict=True)
        ]


def _report(raw: bytes | None) -> WorkerReport | None:
    if raw is None:
        return None
    known: Any = orjson.loads(raw)
    names = WorkerReport.__slots__
    return WorkerReport(**{name: value for name, value in known.items() if name in names})


def _now_ms() -> int:
    return int(time() * 1000)
