"""The registry of tenants: who there is, with how many buckets, and what each may take.

The quotas are kept beside the tenant's own record: changing them never rewrites what was fixed when it was made.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson

from context_graph.domain.event import TenantId
from context_graph.domain.partition import TENANT_NAME, Tenant
from context_graph.domain.quota import UNLIMITED, Quotas
from context_graph.errors import ConfigurationError, UnknownThing
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import QUOTAS, TENANTS


class Tenants:
    """The tenants of a ledger."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def ensure(self, name: str, buckets: int) -> Tenant:
        """The tenant of that name, made now if it is new. The number of buckets of an old one stays as it was made.

        Raises ConfigurationError on a name that could imitate another tenant's keys, and without a bucket.
        """
        await self.create(name, buckets)
        tenant = await self.get(TenantId(name))
        if tenant is None:
            raise ConfigurationError(f"tenant {name!r} disappeared while it was being made")
        return tenant

    async def create(self, name: str, buckets: int, quotas: Quotas = UNLIMITED) -> bool:
        """Make a tenant with its quotas; False, and nothing changed, when there is one of that name.

        Raises ConfigurationError on a name that could imitate another tenant's keys, and without a bucket.
        """
        if TENANT_NAME.fullmatch(name) is None:
            raise ConfigurationError(f"{name!r} is no tenant's name: lower-case letters, digits, - and _, up to 63")
        if buckets < 1:
            raise ConfigurationError(f"tenant {name!r} needs at least one bucket, not {buckets}")
        with store_errors("making a tenant"):
            made = bool(await self._redis.hsetnx(TENANTS, name, orjson.dumps({"buckets": buckets})))
            if made and quotas.limited:
                await self._redis.hset(QUOTAS, name, _packed(quotas))
        return made

    async def set_quotas(self, name: TenantId, quotas: Quotas) -> Tenant:
        """Replace a tenant's quotas; every API process goes by them within a second. Raises UnknownThing."""
        tenant = await self.get(name)
        if tenant is None:
            raise UnknownThing("tenant", name)
        with store_errors("setting quotas"):
            await self._redis.hset(QUOTAS, name, _packed(quotas))
        return Tenant(tenant.name, tenant.buckets, quotas)

    async def get(self, name: TenantId) -> Tenant | None:
        """The tenant of that name, or None."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hget(TENANTS, name)
        pipe.hget(QUOTAS, name)
        with store_errors("reading a tenant"):
            raw, quotas = await pipe.execute()
        return None if raw is None else _tenant(name, raw, quotas)

    async def all(self) -> list[Tenant]:
        """Every tenant, by name."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hgetall(TENANTS)
        pipe.hgetall(QUOTAS)
        with store_errors("reading the tenants"):
            raws, quotas = await pipe.execute()
        return [_tenant(name.decode(), raw, quotas.get(name)) for name, raw in sorted(raws.items())]


def _packed(quotas: Quotas) -> bytes:
    return orjson.dumps({name: value for name, value in asdict(quotas).items() if value is not None})


def _tenant(name: str, raw: bytes, quotas: Any) -> Tenant:
    buckets = int(orjson.loads(raw)["buckets"])
    return Tenant(TenantId(name), buckets, UNLIMITED if quotas is None else Quotas(**orjson.loads(quotas)))
