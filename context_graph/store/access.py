"""Service keys.

The tenant of a request comes from its key and from nowhere else. Keys are kept as SHA-256 digests; the clear key is
returned once, when it is made. A digest of a random 256-bit key needs no salt or stretching: there is no dictionary.

A key's id, by which it is listed, rotated and revoked, is the beginning of its digest: it says nothing of the key. A
key with an end is a hash field that expires, so the server itself removes it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.resources import files
from typing import Any, Literal

import orjson
import structlog

from context_graph.domain.event import TenantId
from context_graph.errors import ConfigurationError, StoreUnavailable, UnknownThing
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import API_KEYS, API_KEYS_USED

Scope = Literal["ingest", "read", "admin", "tasks", "operator"]
SCOPES: tuple[Scope, ...] = ("ingest", "read", "admin", "tasks")
"""What a key may do within its own tenant."""
OPERATOR: Scope = "operator"
"""Makes tenants, and keys of any tenant: only an operator, or somebody on the server itself, can grant it."""
GRANTABLE: tuple[Scope, ...] = (*SCOPES, OPERATOR)

_PREFIX = "cg_"
_ID_LENGTH = 16  # hex digits of the digest: 64 bits, so two keys never share an id
_USED_EVERY_MS = 60_000  # how coarse `last_used_at` is: one write a minute and key, not one a request
_USED_KEPT_SECONDS = 366 * 86_400  # after a year without use there is nothing to show, nor anything left of ended keys
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a valid key stands for."""

    tenant: TenantId
    name: str
    scopes: frozenset[str]
    expires_at: int | None = None
    """ms UTC; None: valid until revoked."""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key as it is listed: everything but the key. Times are ms UTC; `created_at` None: made before it was kept."""

    id: str
    tenant: TenantId
    name: str
    scopes: tuple[str, ...]
    created_at: int | None
    expires_at: int | None
    last_used_at: int | None


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key, in clear for the only time."""

    key: str
    info: KeyInfo


class ApiKeys:
    """Service keys, by digest. `now_ms` is the clock that ends keys."""

    def __init__(self, redis: RedisClient, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._redis = redis
        self.now_ms = now_ms
        self._rotate = redis.register_script(files("context_graph.store").joinpath("lua/key_rotate.lua").read_text())

    async def create(self, tenant: TenantId, *, name: str, scopes: Sequence[str] = SCOPES) -> str:
        """Make a key for a tenant and return it; it cannot be read again. Raises ConfigurationError on a bad scope."""
        return (await self.make(tenant, name=name, scopes=scopes)).key

    async def make(
        self, tenant: TenantId, *, name: str, scopes: Sequence[str] = SCOPES, expires_at: int | None = None
    ) -> MadeKey:
        """Make a key that ends at `expires_at` (ms UTC; None: never). Raises ConfigurationError on a bad scope."""
        unknown = sorted(set(scopes) - set(GRANTABLE))
        if unknown:
            raise ConfigurationError(f"unknown scopes {', '.join(unknown)}; there are {', '.join(GRANTABLE)}")
        made = self._new(tenant, name, scopes, expires_at)
        digest = _digest(made.key)
        pipe = self._redis.pipeline(transaction=True)
        pipe.hset(API_KEYS, digest, _record(made.info))
        if expires_at is not None:
            pipe.hpexpireat(API_KEYS, expires_at, digest)
        with store_errors("storing a key"):
            await pipe.execute()
        return made

    async def verify(self, key: str) -> Credential | None:
        """What the key stands for, or None. Looked up by digest, so no comparison leaks the key's bytes by its time."""
        digest = _digest(key)
        pipe = self._redis.pipeline(transaction=False)
        pipe.hget(API_KEYS, digest)
        pipe.hget(API_KEYS_USED, digest)
        with store_errors("checking a key"):
            raw, used = await pipe.execute()
        if raw is None:
            return None
        info = _info(digest, raw, used)
        now = self.now_ms()
        if info.expires_at is not None and info.expires_at <= now:
            return None
        if info.last_used_at is None or now - info.last_used_at >= _USED_EVERY_MS:
            await self._remember_use(digest, now)
        return Credential(info.tenant, info.name, frozenset(info.scopes), info.expires_at)

    async def listed(self, tenant: TenantId | None = None) -> list[KeyInfo]:
        """Keys of a tenant (None: of all), by tenant, name and age; never the keys themselves."""
        found = [_info(digest, raw, used) for digest, raw, used in await self._all()]
        mine = [info for info in found if tenant in (None, info.tenant)]
        return sorted(mine, key=lambda info: (info.tenant, info.name, info.created_at or 0, info.id))

    async def revoke(self, key_id: str, tenant: TenantId | None = None) -> KeyInfo:
        """End a key now. `tenant`: only if it is that tenant's. Raises UnknownThing."""
        digest, raw = await self._find(key_id, tenant)
        with store_errors("revoking a key"):
            await self._redis.hdel(API_KEYS, digest)
            await self._redis.hdel(API_KEYS_USED, digest)
        return _info(digest, raw, None)

    async def rotate(self, key_id: str, tenant: TenantId | None = None, *, grace_ms: int = 0) -> MadeKey:
        """A new key with the old one's name, scopes and end; the old one works for `grace_ms` more.

        Raises UnknownThing, also when the key is revoked or rotated by somebody else at the same moment.
        """
        digest, raw = await self._find(key_id, tenant)
        old = _info(digest, raw, None)
        made = self._new(old.tenant, old.name, old.scopes, old.expires_at)
        end = self.now_ms() + grace_ms
        if old.expires_at is not None:
            end = min(end, old.expires_at)
        ending = _record(replace(old, expires_at=end)) if grace_ms > 0 else b""
        arguments = (digest, raw, ending, end, _digest(made.key), _record(made.info), old.expires_at or "")
        with store_errors("rotating a key"):
            done: Any = await self._rotate(keys=[API_KEYS], args=arguments)
        if not done:
            raise UnknownThing("key", key_id)
        return made

    async def any(self) -> bool:
        """Whether any key exists."""
        with store_errors("counting keys"):
            count: Any = await self._redis.hlen(API_KEYS)
        return bool(count)

    def _new(self, tenant: TenantId, name: str, scopes: Sequence[str], expires_at: int | None) -> MadeKey:
        key = _PREFIX + secrets.token_urlsafe(32)
        key_id = _digest(key)[:_ID_LENGTH]
        return MadeKey(key, KeyInfo(key_id, tenant, name, tuple(sorted(scopes)), self.now_ms(), expires_at, None))

    async def _all(self) -> Sequence[tuple[str, bytes, bytes | None]]:
        pipe = self._redis.pipeline(transaction=False)
        pipe.hgetall(API_KEYS)
        pipe.hgetall(API_KEYS_USED)
        with store_errors("listing keys"):
            records, used = await pipe.execute()
        return [(digest.decode(), raw, used.get(digest)) for digest, raw in records.items()]

    async def _find(self, key_id: str, tenant: TenantId | None) -> tuple[str, bytes]:
        for digest, raw, _ in await self._all():
            if digest[:_ID_LENGTH] == key_id and tenant in (None, _info(digest, raw, None).tenant):
                return digest, raw
        raise UnknownThing("key", key_id)

    async def _remember_use(self, digest: str, now: int) -> None:
        pipe = self._redis.pipeline(transaction=True)
        pipe.hset(API_KEYS_USED, digest, now)
        pipe.hexpire(API_KEYS_USED, _USED_KEPT_SECONDS, digest)
        try:
            with store_errors("noting a key's use"):
                await pipe.execute()
        except StoreUnavailable as error:  # Redis that takes no writes still answers reads, and so does the API
            log.warning("key_use_not_noted", key_id=digest[:_ID_LENGTH], reason=str(error))


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def _record(info: KeyInfo) -> bytes:
    record: dict[str, Any] = {"tenant": info.tenant, "name": info.name, "scopes": info.scopes}
    record |= {"created_at": info.created_at, "expires_at": info.expires_at}
    return orjson.dumps(record)


def _info(digest: str, raw: bytes, used: bytes | None) -> KeyInfo:
    record = orjson.loads(raw)
    return KeyInfo(
        id=digest[:_ID_LENGTH],
        tenant=TenantId(record["tenant"]),
        name=record["name"],
        scopes=tuple(record["scopes"]),
        created_at=record.get("created_at"),
        expires_at=record.get("expires_at"),
        last_used_at=None if used is None else int(used),
    )
