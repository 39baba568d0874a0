"""Tenants and service keys.

The tenant of a request comes from its key and from nowhere else. Keys are kept as SHA-256 digests; the clear key is
returned once, when it is made. A digest of a random 256-bit key needs no salt or stretching: there is no dictionary.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, get_args

import orjson

from context_graph.domain.event import TenantId
from context_graph.domain.partition import TENANT_NAME, Tenant
from context_graph.errors import ConfigurationError
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import API_KEYS, TENANTS

Scope = Literal["ingest", "read", "admin", "tasks"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_PREFIX = "cg_"


@dataclass(frozen=True, slots=True)
class Credential:
    """What a valid key stands for."""

    tenant: TenantId
    name: str
    scopes: frozenset[str]


class Tenants:
    """The registry of tenants: who there is, with how many buckets."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def ensure(self, name: str, buckets: int) -> Tenant:
        """The tenant of that name, made now if it is new. The number of buckets of an old one stays as it was made.

        Raises ConfigurationError on a name that could imitate another tenant's keys, and without a bucket.
        """
        if TENANT_NAME.fullmatch(name) is None:
            raise ConfigurationError(f"{name!r} is no tenant's name: lower-case letters, digits, - and _, up to 63")
        if buckets < 1:
            raise ConfigurationError(f"tenant {name!r} needs at least one bucket, not {buckets}")
        with store_errors("making a tenant"):
            await self._redis.hsetnx(TENANTS, name, orjson.dumps({"buckets": buckets}))
        tenant = await self.get(TenantId(name))
        if tenant is None:
            raise ConfigurationError(f"tenant {name!r} disappeared while it was being made")
        return tenant

    async def get(self, name: TenantId) -> Tenant | None:
        """The tenant of that name, or None."""
        with store_errors("reading a tenant"):
            raw: Any = await self._redis.hget(TENANTS, name)
        return None if raw is None else Tenant(name, int(orjson.loads(raw)["buckets"]))

    async def all(self) -> list[Tenant]:
        """Every tenant, by name."""
        with store_errors("reading the tenants"):
            raw: Any = await self._redis.hgetall(TENANTS)
        found = [Tenant(TenantId(name.decode()), int(orjson.loads(value)["buckets"])) for name, value in raw.items()]
        return sorted(found, key=lambda tenant: tenant.name)


class ApiKeys:
    """Service keys, by digest."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def create(self, tenant: TenantId, *, name: str, scopes: Sequence[str] = SCOPES) -> str:
        """Make a key for a tenant and return it; it cannot be read again. Raises ConfigurationError on a bad scope."""
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown:
            raise ConfigurationError(f"unknown scopes {', '.join(unknown)}; there are {', '.join(SCOPES)}")
        key = _PREFIX + secrets.token_urlsafe(32)
        record = {"tenant": tenant, "name": name, "scopes": sorted(scopes)}
        with store_errors("storing a key"):
            await self._redis.hset(API_KEYS, _digest(key), orjson.dumps(record))
        return key

    async def verify(self, key: str) -> Credential | None:
        """What the key stands for, or None. Looked up by digest, so no comparison leaks the key's bytes by its time."""
        with store_errors("checking a key"):
            raw: Any = await self._redis.hget(API_KEYS, _digest(key))
        if raw is None:
            return None
        record = orjson.loads(raw)
        return Credential(TenantId(record["tenant"]), record["name"], frozenset(record["scopes"]))

    async def any(self) -> bool:
        """Whether any key exists."""
        with store_errors("counting keys"):
            count: Any = await self._redis.hlen(API_KEYS)
        return bool(count)


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()
