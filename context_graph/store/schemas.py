"""The registry of payload schemas as Redis keeps it: one hash a tenant, on the ledger's side.

Bytes only: what a schema means, and whether an event satisfies it, is decided in `ingest/`. A stored version is never
changed. Every change counts the `revision` up, so that an API process sees with one small read that nothing is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, cast

from context_graph.domain.event import TenantId
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import schemas

SchemaMode = Literal["lenient", "strict"]
PutStatus = Literal["created", "same", "conflict", "full"]
_MODE, _REVISION = "mode", "revision"  # an event type has a dot, so no schema's field is named like these


@dataclass(frozen=True, slots=True)
class RegistryState:
    """What decides whether a compiled registry is still the stored one."""

    mode: SchemaMode
    revision: int


class SchemaStore:
    """Schemas of any tenant, by event type and version."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        # redis-py's Script sends EVALSHA and loads the source again after NOSCRIPT (restart, SCRIPT FLUSH).
        self._put = redis.register_script(files("context_graph.store").joinpath("lua/schema_put.lua").read_text())

    async def state(self, tenant: TenantId) -> RegistryState:
        """Mode and revision; lenient and 0 for a tenant that never set anything. Raises StoreUnavailable."""
        with store_errors("reading the schemas' revision"):
            mode, revision = cast("list[bytes | None]", await self._redis.hmget(schemas(tenant), [_MODE, _REVISION]))
        return RegistryState("strict" if mode == b"strict" else "lenient", int(revision or 0))

    async def all(self, tenant: TenantId) -> Mapping[tuple[str, int], bytes]:
        """Every stored schema by event type and version, as canonical JSON."""
        with store_errors("reading the schemas"):
            raw: Any = await self._redis.hgetall(schemas(tenant))
        fields = {name.decode(): body for name, body in raw.items()}
        return {_parsed(name): body for name, body in sorted(fields.items()) if name not in (_MODE, _REVISION)}

    async def put(self, tenant: TenantId, event_type: str, version: int, body: bytes, *, most: int) -> PutStatus:
        """Store a version unless it is there; `full` when the tenant has `most` schemas already."""
        with store_errors("storing a schema"):
            answer = await self._put(keys=[schemas(tenant)], args=[f"{event_type}@{version}", body, most])
        return cast("PutStatus", cast("bytes", answer).decode())

    async def set_mode(self, tenant: TenantId, mode: SchemaMode) -> None:
        """Strict or lenient from now on."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.hset(schemas(tenant), _MODE, mode)
        pipe.hincrby(schemas(tenant), _REVISION, 1)
        with store_errors("setting the schemas' mode"):
            await pipe.execute()


def _parsed(field: str) -> tuple[str, int]:
    event_type, _, version = field.rpartition("@")
    return event_type, int(version)
