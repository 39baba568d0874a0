"""Which generation is read, which are fed: the tenants' tables in Redis, and how a process follows them.

A reader asks for the live number with every query, so it is remembered for `cache_seconds` (1 s): a switch is one
write, and every process goes by it within a second, without a round trip of its own for anybody. Within `steady()` the
first answer holds: a request that began on a generation finishes on it, however many queries it makes. That is why a
generation that is no longer live may be dropped only after `GRACE_SECONDS`.

The tables are on the ledger's side: they belong to the consumer groups, and the loss of what is derived must not make
a process read a generation that nobody fills.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from importlib.resources import files
from typing import Any, TypeAlias, cast

import orjson

from context_graph.domain.event import TenantId
from context_graph.domain.generations import FIRST, Rebuild, Recipe, Table, without_secrets
from context_graph.domain.graph import FOLD_VERSION
from context_graph.domain.text import TEXT_VERSION
from context_graph.errors import StoreUnavailable
from context_graph.settings import Settings
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.documents import INDEX_VERSION
from context_graph.store.keys import generations as table_key

CACHE_SECONDS = 1.0
STEADY_SECONDS = 10.0  # a request that takes longer goes on with what is live then
GRACE_SECONDS = CACHE_SECONDS + STEADY_SECONDS
_TRIES = 50

GenerationOf: TypeAlias = Callable[[TenantId], Awaitable[int]]
"""Which generation of a tenant is meant: the live one, or always the same."""

_STEADY: ContextVar[dict[str, tuple[int, float]] | None] = ContextVar("steady", default=None)


async def first(_tenant: TenantId) -> int:
    """The generation that a tenant begins with."""
    return FIRST


def always(number: int) -> GenerationOf:
    """That very generation, of whatever tenant."""

    async def chosen(_tenant: TenantId) -> int:
        return number

    return chosen


@contextmanager
def steady() -> Iterator[None]:
    """All reads inside, also those of tasks started in it, see one generation of a tenant, for `STEADY_SECONDS`."""
    token = _STEADY.set({})
    try:
        yield
    finally:
        _STEADY.reset(token)


def recipe_of(settings: Settings) -> Recipe:
    """What this code makes with these settings."""
    path = settings.embedding.model_path
    return Recipe(
        fold=FOLD_VERSION,
        text=TEXT_VERSION,
        index=INDEX_VERSION,
        model=settings.embedding.model,
        model_path=None if path is None else str(path),
        dimensions=settings.embedding.dimensions,
        provider="" if settings.embedding.provider == "fastembed" else settings.embedding.provider,
        url=without_secrets(settings.embedding.url),
        recogniser=settings.entities.model,
    )


class Generations:
    """The tables of any tenant. `redis` is the ledger's."""

    def __init__(self, redis: RedisClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._clock = clock
        self._known: dict[str, tuple[Table, float]] = {}
        source = files("context_graph.store").joinpath("lua/replace_if_same.lua").read_text()
        self._replace = redis.register_script(source)

    async def live(self, tenant: TenantId) -> int:
        """The generation to read: within `steady()` always the same one."""
        known = _STEADY.get()
        if known is None:
            return (await self.table(tenant)).live
        held = known.get(tenant)
        if held is None or self._clock() >= held[1]:
            held = known[tenant] = ((await self.table(tenant)).live, self._clock() + STEADY_SECONDS)
        return held[0]

    async def table(self, tenant: TenantId) -> Table:
        """A tenant's table, at most `CACHE_SECONDS` old; older only while Redis is away."""
        known = self._known.get(tenant)
        if known is not None and self._clock() < known[1]:
            return known[0]
        try:
            return await self.read(tenant)
        except StoreUnavailable:
            if known is None:
                raise
            return known[0]

    async def recipe(self, tenant: TenantId, number: int) -> Recipe | None:
        """What a generation is made by, None while nobody has said."""
        recipe = (await self.table(tenant)).recipes.get(number)
        return recipe if recipe is not None else (await self.read(tenant)).recipes.get(number)

    async def read(self, tenant: TenantId) -> Table:
        """A tenant's table as it is now. Raises StoreUnavailable."""
        [table] = await self.tables([tenant])
        return table

    async def tables(self, tenants: Iterable[TenantId]) -> list[Table]:
        """The tables of these tenants as they are now, in order; one round trip."""
        names = list(tenants)
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.get(table_key(name))
        with store_errors("reading the generations"):
            answers: list[Any] = await pipe.execute() if names else []
        return [self._remember(name, decoded(raw)) for name, raw in zip(names, answers, strict=True)]

    async def change(self, tenant: TenantId, change: Callable[[Table], Table]) -> Table:
        """Apply `change` to the newest table and store it, in one step for everybody else; returns the new one.

        `change` may be called again when somebody else was faster. Raises what it raises, and StoreUnavailable.
        """
        key = table_key(tenant)
        for _ in range(_TRIES):
            with store_errors("changing the generations"):
                raw = cast("bytes | None", await self._redis.get(key)) or b""
                table = change(decoded(raw))
                if await self._replace(keys=[key], args=[raw, encoded(table)]):
                    return self._remember(tenant, table)
        raise StoreUnavailable(f"the generations of {tenant} are being changed by too many at once")

    def _remember(self, tenant: str, table: Table) -> Table:
        self._known[tenant] = (table, self._clock() + CACHE_SECONDS)
        return table


def encoded(table: Table) -> bytes:
    """A table as it is stored."""
    values = asdict(table)
    values["recipes"] = {str(number): asdict(recipe) for number, recipe in table.recipes.items()}
    return orjson.dumps(values)


def decoded(raw: bytes | None) -> Table:
    """The inverse of `encoded`; the table of a tenant that never had a rebuild for nothing at all."""
    if not raw:
        return Table()
    values: Mapping[str, Any] = orjson.loads(raw)
    return Table(
        **{
            **values,
            "dropping": tuple(values["dropping"]),
            "recipes": {int(number): Recipe(**recipe) for number, recipe in values["recipes"].items()},
            "rebuilds": tuple(Rebuild(**rebuild) for rebuild in values["rebuilds"]),
        }
    )
