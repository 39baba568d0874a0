"""The composition root: settings become opened resources, held in one frozen record and closed in reverse order."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import time

from context_graph.delivery.erasing import Eraser
from context_graph.delivery.rebuilds import Rebuilds
from context_graph.delivery.source import Source
from context_graph.errors import ConfigurationError
from context_graph.settings import Settings
from context_graph.store.access import ApiKeys
from context_graph.store.again import Again
from context_graph.store.archive import Archive
from context_graph.store.archive_continuity import ArchiveWatch
from context_graph.store.archive_files import open_files
from context_graph.store.archive_keys import ArchivedKeys
from context_graph.store.connection import RedisClient, open_redis
from context_graph.store.dead_letters import DeadLetters
from context_graph.store.erasures import Erasures
from context_graph.store.gaps import Gaps
from context_graph.store.generations import Generations, recipe_of
from context_graph.store.graph import Graph
from context_graph.store.groups import Groups
from context_graph.store.hiding import Hiding
from context_graph.store.history import History
from context_graph.store.idempotency import IdempotencyKeys
from context_graph.store.index import Index
from context_graph.store.leases import Leases
from context_graph.store.ledger import Ledger
from context_graph.store.parking import Parking
from context_graph.store.quotas import QuotaStore
from context_graph.store.replication import replication_of
from context_graph.store.schemas import SchemaStore
from context_graph.store.sweeping import Sweeper
from context_graph.store.tenants import Tenants
from context_graph.store.vault import Vault
from context_graph.store.worker_reports import WorkerReports


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything a process needs, opened. `ledger_redis` and `derived_redis` may be the same server."""

    settings: Settings
    ledger_redis: RedisClient
    derived_redis: RedisClient
    waiting_redis: RedisClient
    ledger: Ledger
    vault: Vault
    archive: Archive | None
    archive_watch: ArchiveWatch | None
    tenants: Tenants
    api_keys: ApiKeys
    quotas: QuotaStore
    schemas: SchemaStore
    groups: Groups
    dead_letters: DeadLetters
    leases: Leases
    generations: Generations
    graph: Graph
    index: Index

    @property
    def erasures(self) -> Erasures:
        """The records of erasures."""
        return Erasures(self.ledger_redis, self.vault, self.ledger)

    @property
    def idempotency(self) -> IdempotencyKeys:
        """Answers kept by `Idempotency-Key`."""
        seconds = self.settings.reads.idempotency_seconds
        return IdempotencyKeys(self.ledger_redis, seconds, lambda: secrets.token_hex(8))

    @property
    def sweeper(self) -> Sweeper:
        """What takes away what was derived from somebody erased."""
        return Sweeper(self.ledger_redis, self.derived_redis, self.generations)

    @property
    def hiding(self) -> Hiding:
        """What an erasure does before it is answered."""
        again = self.settings.delivery.again_seconds
        return Hiding(self.erasures, self.sweeper, self.groups, self.vault.cache_seconds, again)

    @property
    def eraser(self) -> Eraser:
        """What finishes erasures."""
        servers = [("ledger", self.ledger_redis)]
        if self.derived_redis is not self.ledger_redis:
            servers.append(("derived", self.derived_redis))
        return Eraser(
            self.erasures, self.sweeper, self.groups, self.leases, self.tenants, self.vault, tuple(servers),
            History(self.ledger_redis, self.archive), self.idempotency, self.generations,
            self.settings.delivery.again_seconds,
            None if self.archive is None else ArchivedKeys(self.ledger_redis, self.archive),
        )  # fmt: skip

    @property
    def source(self) -> Source:
        """What the delivery runtime reads from."""
        redis = self.ledger_redis
        return Source(
            groups=self.groups,
            tenants=self.tenants,
            dead_letters=self.dead_letters,
            settings=self.settings.delivery,
            ledger=self.ledger,
            again=Again(redis),
            parking=Parking(redis),
            gaps=Gaps(redis),
            leases=self.leases,
            reports=WorkerReports(redis),
            vault=self.vault,
        )

    @property
    def rebuilds(self) -> Rebuilds:
        """Rebuilds of any tenant."""
        return Rebuilds(self.generations, self.ledger, self.groups, recipe_of(self.settings), _now_ms)


def _now_ms() -> int:
    return int(time() * 1000)


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Connect to the stores that the settings name. Raises ConfigurationError without an address."""
    if settings.redis_url is None:
        raise ConfigurationError(
            "CG_REDIS_URL is not set: name a Redis with search, or start everything with `context-graph up`"
        )
    url = settings.redis_url.get_secret_value()
    derived_url = settings.derived_redis_url.get_secret_value() if settings.derived_redis_url is not None else url
    archive = _archive(settings)
    async with AsyncExitStack() as stack:
        ledger_redis = await stack.enter_async_context(open_redis(url))
        waiting_redis = await stack.enter_async_context(open_redis(url, waiting=True))
        derived_redis = ledger_redis if derived_url == url else await stack.enter_async_context(open_redis(derived_url))
        vault = Vault(ledger_redis, settings.vault)
        watch = None if archive is None else ArchiveWatch(ledger_redis, archive)
        generations = Generations(ledger_redis)
        yield Resources(
            settings=settings,
            ledger_redis=ledger_redis,
            derived_redis=derived_redis,
            waiting_redis=waiting_redis,
            ledger=Ledger(ledger_redis, replication_of(settings.ledger), archive=archive, vault=vault, watch=watch),
            vault=vault,
            archive=archive,
            archive_watch=watch,
            tenants=Tenants(ledger_redis),
            api_keys=ApiKeys(ledger_redis),
            quotas=QuotaStore(ledger_redis),
            schemas=SchemaStore(ledger_redis),
            groups=Groups(ledger_redis, waiting_redis),
            dead_letters=DeadLetters(ledger_redis),
            leases=Leases(ledger_redis),
            generations=generations,
            graph=Graph(derived_redis, generations.live),
            index=Index(derived_redis, settings.embedding.dimensions, generations.live, settings.vectors),
        )


def _archive(settings: Settings) -> Archive | None:
    """The archive that the settings name, if any. Nothing is read before it is asked for something."""
    url = settings.archive.url
    return None if url is None else Archive(open_files(url), settings.archive.cache_bytes)
