"""The composition root: settings become opened resources, held in one frozen record and closed in reverse order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from context_graph.delivery.runtime import Source
from context_graph.errors import ConfigurationError
from context_graph.settings import Settings
from context_graph.store.access import ApiKeys, Tenants
from context_graph.store.connection import RedisClient, open_redis
from context_graph.store.dead_letters import DeadLetters
from context_graph.store.graph import Graph
from context_graph.store.groups import Groups
from context_graph.store.index import Index
from context_graph.store.leases import Leases
from context_graph.store.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything a process needs, opened. `ledger_redis` and `derived_redis` may be the same server."""

    settings: Settings
    ledger_redis: RedisClient
    derived_redis: RedisClient
    waiting_redis: RedisClient
    ledger: Ledger
    tenants: Tenants
    api_keys: ApiKeys
    groups: Groups
    dead_letters: DeadLetters
    leases: Leases
    graph: Graph
    index: Index

    @property
    def source(self) -> Source:
        """What the delivery runtime reads from."""
        return Source(self.groups, self.tenants, self.dead_letters, self.settings.delivery)


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Connect to the stores that the settings name. Raises ConfigurationError without an address."""
    if settings.redis_url is None:
        raise ConfigurationError(
            "CG_REDIS_URL is not set: name a Redis with search, or start everything with `context-graph up`"
        )
    url = settings.redis_url.get_secret_value()
    derived_url = settings.derived_redis_url.get_secret_value() if settings.derived_redis_url is not None else url
    async with AsyncExitStack() as stack:
        ledger_redis = await stack.enter_async_context(open_redis(url))
        waiting_redis = await stack.enter_async_context(open_redis(url, waiting=True))
        derived_redis = ledger_redis if derived_url == url else await stack.enter_async_context(open_redis(derived_url))
        yield Resources(
            settings=settings,
            ledger_redis=ledger_redis,
            derived_redis=derived_redis,
            waiting_redis=waiting_redis,
            ledger=Ledger(ledger_redis),
            tenants=Tenants(ledger_redis),
            api_keys=ApiKeys(ledger_redis),
            groups=Groups(ledger_redis, waiting_redis),
            dead_letters=DeadLetters(ledger_redis),
            leases=Leases(ledger_redis),
            graph=Graph(derived_redis),
            index=Index(derived_redis, settings.embedding.dimensions),
        )
