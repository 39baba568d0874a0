"""Consolidation that somebody asked for: kept by tenant, taken by a worker, told as it goes.

A run waits in one set for all tenants until a worker has done it, so one small read tells that nothing is asked. Two
workers may take the same: a pass that another one is at says so, and a run that was done is not done again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import orjson

from context_graph.domain.event import JsonValue, TenantId
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import ASKED_RUNS, consolidation_runs

RunKind = Literal["all", "summaries", "forgetting"]
_KEPT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was asked for and what came of it. Times in ms UTC.

    `outcome`: in words, by partition. `plan`: of a dry run, by partition.
    """

    id: str
    kind: RunKind
    dry_run: bool
    asked_at: int
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    started_at: int | None = None
    finished_at: int | None = None
    done: int = 0
    partitions: int = 0
    outcome: Mapping[str, str] | None = None
    plan: Mapping[str, JsonValue] | None = None
    problem: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For answers and for Redis."""
        return asdict(self)


class Runs:
    """The runs of any tenant. `redis` is the ledger's."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def ask(self, tenant: TenantId, run: Run) -> None:
        """Keep it, and have it done; of those that are done the oldest beyond 100 go."""
        known = await self.all(tenant)
        old = [r.id for r in known if r.state in ("done", "failed")][_KEPT - 1 :]
        with store_errors("asking for a consolidation"):
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hset(consolidation_runs(tenant), run.id, orjson.dumps(run.as_json()))
                pipe.zadd(ASKED_RUNS, {f"{tenant} {run.id}": run.asked_at})
                if old:
                    pipe.hdel(consolidation_runs(tenant), *old)
                await pipe.execute()

    async def put(self, tenant: TenantId, run: Run) -> None:
        """How far it is; one that is over waits for nobody any more."""
        with store_errors("telling of a consolidation"):
            await self._redis.hset(consolidation_runs(tenant), run.id, orjson.dumps(run.as_json()))
            if run.state in ("done", "failed"):
                await self._redis.zrem(ASKED_RUNS, f"{tenant} {run.id}")

    async def get(self, tenant: TenantId, run_id: str) -> Run | None:
        """Or None."""
        with store_errors("reading a consolidation"):
            raw: Any = await self._redis.hget(consolidation_runs(tenant), run_id)
        return None if raw is None else Run(**orjson.loads(raw))

    async def all(self, tenant: TenantId) -> list[Run]:
        """The newest first."""
        with store_errors("reading consolidations"):
            raws: Any = await self._redis.hvals(consolidation_runs(tenant))
        return sorted((Run(**orjson.loads(raw)) for raw in raws), key=lambda run: (run.asked_at, run.id), reverse=True)

    async def waiting(self) -> list[tuple[TenantId, str]]:
        """Tenant and id of those that are to be done, the oldest first."""
        with store_errors("looking for consolidations that were asked for"):
            found: Any = await self._redis.zrange(ASKED_RUNS, 0, -1)
        split = (member.decode().partition(" ") for member in found)
        return [(TenantId(tenant), run_id) for tenant, _, run_id in split]
