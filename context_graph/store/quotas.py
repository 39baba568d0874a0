"""Quotas in Redis: what each tenant may take, and the token buckets that all API processes draw from.

A bucket is one key of one tenant, outside its partitions, because a batch may span these and is admitted as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from context_graph.domain.event import TenantId
from context_graph.domain.partition import Tenant
from context_graph.domain.quota import Rate
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import PartitionKeys, quota_tokens


@dataclass(frozen=True, slots=True)
class Draw:
    """What is asked of one bucket: `need` or nothing, `want` if it is there, and `back` that was not used."""

    rate: Rate
    need: int
    want: int
    back: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a draw gave: tokens of each bucket in order; or none, the bucket that was `short` and for how many ms.

    `wait_ms` None with a `short`: more was needed than the bucket ever holds.
    """

    taken: tuple[int, ...]
    short: Rate | None = None
    wait_ms: int | None = None


class QuotaStore:
    """Draws from token buckets and counts what is stored."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._take = redis.register_script(files("context_graph.store").joinpath("lua/quota_take.lua").read_text())

    async def draw(self, tenant: TenantId, draws: Sequence[Draw]) -> Drawn:
        """All that is needed or nothing, in one step for all processes. Raises StoreUnavailable."""
        arguments: list[str | int | float] = []
        for draw in draws:
            arguments += (draw.rate.name, draw.rate.capacity, draw.rate.refill, draw.need, draw.want, draw.back)
        with store_errors("drawing from a quota"):
            answer: Any = await self._take(keys=[quota_tokens(tenant)], args=arguments)
        wait, short, *taken = (int(value) for value in answer)
        if short == 0:
            return Drawn(tuple(taken))
        return Drawn(tuple(taken), draws[short - 1].rate, None if wait < 0 else wait)

    async def stored(self, tenant: Tenant) -> int:
        """Events that the tenant's ledger holds, archived ones included. Raises StoreUnavailable."""
        pipe = self._redis.pipeline(transaction=False)
        for partition in tenant.partitions:
            pipe.hlen(PartitionKeys(partition).ids)
        with store_errors("counting stored events"):
            return sum(await pipe.execute())
