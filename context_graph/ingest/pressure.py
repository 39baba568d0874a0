"""Pressure: whether the ledger can take more at all, looked at once a second and process.

Refused early, while Redis still has memory for what must go on: stages that catch up, consolidation, erasure. At
`maxmemory` itself Redis refuses every write, and these would stand still together with ingest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.stages import stages_of
from context_graph.errors import Overloaded
from context_graph.settings import OverloadSettings
from context_graph.store.connection import RedisClient
from context_graph.store.generations import GenerationOf, first
from context_graph.store.groups import Groups
from context_graph.store.readiness import memory_share

_LOOK_SECONDS = 1.0
_REMEMBER_AT_MOST = 10_000  # partitions
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Look:
    """The last look at one thing: until when it holds, and what was wrong (empty: nothing)."""

    until: float = 0.0
    problem: str = ""
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Pressure:
    """Memory and lag, as far as they forbid writing. `redis` is the ledger's."""

    def __init__(
        self,
        redis: RedisClient,
        groups: Groups,
        settings: OverloadSettings,
        clock: Callable[[], float] = time.monotonic,
        generation: GenerationOf = first,
    ) -> None:
        self._redis = redis
        self._groups = groups
        self._settings = settings
        self._generation = generation
        self._clock = clock
        self._memory = _Look()
        self._lags: dict[Partition, _Look] = {}

    async def check(self, tenant: Tenant) -> None:
        """Return when the tenant's events can be taken. Raises Overloaded, and StoreUnavailable when Redis is away."""
        await self._check(self._memory, self._memory_problem)
        if self._settings.max_stage_lag == 0:
            return
        for partition in tenant.partitions:
            if len(self._lags) >= _REMEMBER_AT_MOST:
                self._lags.clear()
            await self._check(self._lags.setdefault(partition, _Look()), partial(self._lag_problem, partition))

    async def _check(self, look: _Look, find: Callable[[], Awaitable[str]]) -> None:
        if self._clock() >= look.until:
            async with look.looking:
                if self._clock() >= look.until:
                    found = await find()
                    if bool(found) != bool(look.problem):
                        log.warning("overload_changed", problem=found or "over")
                    look.problem, look.until = found, self._clock() + _LOOK_SECONDS
        if look.problem:
            raise Overloaded(look.problem, self._settings.retry_after_seconds)

    async def _memory_problem(self) -> str:
        share, limit = await memory_share(self._redis), self._settings.memory_share
        if share < limit:
            return ""
        return f"the ledger's Redis uses {share:.0%} of its maxmemory; events are taken below {limit:.0%}"

    async def _lag_problem(self, partition: Partition) -> str:
        limit = self._settings.max_stage_lag
        for stage in stages_of(await self._generation(partition.tenant)):
            state = await self._groups.state(partition, stage.group)
            if state.lag + state.pending > limit:
                behind = f"{stage.group} is {state.lag + state.pending:,} events behind in {partition}"
                return f"{behind}; events are taken up to {limit:,}"
        return ""
