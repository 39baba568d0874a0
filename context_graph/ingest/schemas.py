"""The use case behind `/v1/schemas`, and the rules that ingest holds events against.

A tenant's rules are compiled once and kept. Once a second of use their revision is looked up, so that a change in one
API process is in force in all of them within that second, and the look-up costs nothing beside the appends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from context_graph.domain.event import TenantId
from context_graph.errors import FieldProblem, InvalidInput, SchemaConflict, UnknownThing
from context_graph.ingest.builtin_schemas import RESERVED_TYPES, builtin_schemas
from context_graph.ingest.schema_rules import PayloadSchema, SchemaRules, compile_schema
from context_graph.store.schemas import RegistryState, SchemaMode, SchemaStore

MOST_SCHEMAS = 1000  # of one tenant, versions counted
_REMEMBER_SECONDS = 1.0
_REMEMBER_TENANTS = 1000


@dataclass(frozen=True, slots=True)
class _Known:
    until: float
    state: RegistryState
    rules: SchemaRules


class Schemas:
    """The registry of any tenant. `clock` is monotonic, in seconds."""

    def __init__(self, store: SchemaStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._builtin = builtin_schemas()
        self._known: dict[TenantId, _Known] = {}

    async def rules(self, tenant: TenantId) -> SchemaRules:
        """What the tenant's events are held against, at most a second old. Raises StoreUnavailable."""
        known = self._known.get(tenant)
        now = self._clock()
        if known is not None and known.until > now:
            return known.rules
        if known is not None:  # others need not look while this one does
            self._known[tenant] = _Known(now + _REMEMBER_SECONDS, known.state, known.rules)
        return (await self._load(tenant, known)).rules

    async def _load(self, tenant: TenantId, known: _Known | None) -> _Known:
        state = await self._store.state(tenant)
        if known is None or known.state != state:
            rules = SchemaRules(state.mode, await self._schemas(tenant) if state.revision else self._builtin)
        else:
            rules = known.rules
        if len(self._known) >= _REMEMBER_TENANTS:
            self._known.clear()
        self._known[tenant] = loaded = _Known(self._clock() + _REMEMBER_SECONDS, state, rules)
        return loaded

    async def _schemas(self, tenant: TenantId) -> dict[str, dict[int, PayloadSchema]]:
        found = {event_type: dict(versions) for event_type, versions in self._builtin.items()}
        for (event_type, version), body in (await self._store.all(tenant)).items():
            compiled = compile_schema(event_type, version, orjson.loads(body), "tenant")
            found.setdefault(event_type, {})[version] = compiled
        return found

    async def fresh(self, tenant: TenantId) -> SchemaRules:
        """The rules as they are stored now."""
        return (await self._load(tenant, self._known.get(tenant))).rules

    async def get(self, tenant: TenantId, event_type: str, version: int) -> PayloadSchema:
        """One version. Raises UnknownThing."""
        found = (await self.versions(tenant, event_type)).get(version)
        if found is None:
            raise UnknownThing("schema", f"{event_type}/{version}")
        return found

    async def versions(self, tenant: TenantId, event_type: str) -> dict[int, PayloadSchema]:
        """Every version of a type, oldest first. Raises UnknownThing."""
        found = (await self.fresh(tenant)).schemas.get(event_type)
        if found is None:
            raise UnknownThing("schema", event_type)
        return dict(sorted(found.items()))

    async def put(self, tenant: TenantId, event_type: str, version: int, raw: object) -> tuple[PayloadSchema, bool]:
        """Store a version; returns it and whether it is new.

        Raises InvalidInput (no schema, a reserved type, too many), SchemaConflict when it is there with other content.
        """
        if event_type in RESERVED_TYPES:
            problem = FieldProblem("/event_type", f"{event_type} is the service's own", "use another type", "reserved")
            raise InvalidInput([problem])
        schema = compile_schema(event_type, version, raw, "tenant")
        status = await self._store.put(tenant, event_type, version, schema.body, most=MOST_SCHEMAS)
        if status == "conflict":
            raise SchemaConflict(event_type, version)
        if status == "full":
            detail = f"this tenant has {MOST_SCHEMAS:,} schemas, the most there can be"
            raise InvalidInput([FieldProblem("", detail, "describe fewer types and versions", "too-many")])
        self._known.pop(tenant, None)
        return schema, status == "created"

    async def set_mode(self, tenant: TenantId, mode: SchemaMode) -> None:
        """Strict: what no schema describes, or what violates its schema, is refused. Lenient: it is taken and told."""
        await self._store.set_mode(tenant, mode)
        self._known.pop(tenant, None)
