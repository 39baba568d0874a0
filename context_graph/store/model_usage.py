"""What each tenant has asked of the language model, and what it may: one hash, counted by all workers.

The day's tokens are taken before a call, at their worst case, and corrected by what the call cost, so that workers
together stay within a tenant's budget. A worker killed in between leaves the worst case counted until the day is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from context_graph.domain.event import TenantId
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import model_usage

_DAY = "day:"


@dataclass(frozen=True, slots=True)
class ModelTotals:
    """Calls that were answered, that failed, whose answers were refused; tokens in and out."""

    calls: int = 0
    failed: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class ModelUsage:
    """Budgets and totals of any tenant. `day`: an ISO date, UTC."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def take(self, tenant: TenantId, day: str, tokens: int, limit: int) -> bool:
        """Set `tokens` of the day aside, or none when that would pass `limit` (0: none). Raises StoreUnavailable."""
        key, field = model_usage(tenant), _DAY + day
        redis: Any = self._redis
        with store_errors("taking from a model budget"):
            used = int(await redis.hincrby(key, field, tokens))
            if limit and used > limit:
                await redis.hincrby(key, field, -tokens)
                return False
            if used == tokens:
                await self._drop_other_days(key, field)
        return True

    async def settle(self, tenant: TenantId, day: str, taken: int, spent: ModelTotals) -> None:
        """Add what a call came to, and give back what it did not use. Raises StoreUnavailable."""
        pipe: Any = self._redis.pipeline(transaction=False)
        key = model_usage(tenant)
        pipe.hincrby(key, _DAY + day, spent.input_tokens + spent.output_tokens - taken)
        for name in ModelTotals.__slots__:
            if amount := getattr(spent, name):
                pipe.hincrby(key, name, amount)
        with store_errors("counting a model's tokens"):
            await pipe.execute()

    async def totals(self, tenant: TenantId) -> ModelTotals:
        """Everything since the tenant's first call."""
        redis: Any = self._redis
        with store_errors("reading a model's use"):
            found = await redis.hmget(model_usage(tenant), list(ModelTotals.__slots__))
        return ModelTotals(*(int(value or 0) for value in found))

    async def _drop_other_days(self, key: str, field: str) -> None:
        redis: Any = self._redis
        old = [name for name in await redis.hkeys(key) if name.startswith(_DAY.encode()) and name != field.encode()]
        if old:
            await redis.hdel(key, *old)
