"""The facts of a running service, gathered once for everybody who judges it: readiness, `doctor`, `/metrics`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from context_graph.bootstrap import Resources
from context_graph.delivery.progress import limits_of, read_progress
from context_graph.domain.generations import Recipe
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.stages import StageProgress, stages_of
from context_graph.errors import ConfigurationError, ModelUnavailable
from context_graph.local.checks import EmbedderFacts, Facts, IndexFacts, RebuildFacts
from context_graph.models.embedder_pool import EmbedderPool
from context_graph.settings import Settings
from context_graph.store.readiness import read_redis_facts

_EMBEDDER_SECONDS = 2.0


def facts_of(settings: Settings) -> Facts:
    """What the settings alone say: no Redis, no models."""
    return Facts(
        data_dir=str(settings.data_dir),
        durability=settings.ledger.durability,
        replicas=settings.ledger.replicas,
        sealed=settings.vault.master_key is not None,
        dimensions=settings.embedding.dimensions,
        limits=limits_of(settings.delivery),
        redis=None,
        redis_problem=None,
        models=(),
    )


async def read_indexes(resources: Resources, tenants: list[Tenant]) -> tuple[IndexFacts, ...]:
    """The vector index of each partition, live generations. Raises StoreUnavailable."""
    found: list[IndexFacts] = []
    for tenant in tenants:
        recipe = await resources.generations.recipe(tenant.name, await resources.generations.live(tenant.name))
        expected = None if recipe is None else recipe.dimensions
        for partition in tenant.partitions:
            found.append(IndexFacts(str(partition), await resources.index.dimensions_of(partition), expected))
    return tuple(found)


async def read_embedders(resources: Resources, pool: EmbedderPool) -> tuple[EmbedderFacts, ...]:
    """Whether each tenant's live generation has its model here, and whether a server of it answers."""
    found: list[EmbedderFacts] = []
    known: dict[Recipe | None, EmbedderFacts] = {}
    for tenant in await resources.tenants.all():
        recipe = await resources.generations.recipe(tenant.name, await resources.generations.live(tenant.name))
        if recipe not in known:
            known[recipe] = await _embedder(resources, pool, recipe)
        found.append(replace(known[recipe], tenant=tenant.name))
    return tuple(found)


async def _embedder(resources: Resources, pool: EmbedderPool, recipe: Recipe | None) -> EmbedderFacts:
    try:
        async with asyncio.timeout(_EMBEDDER_SECONDS):
            embedder = await pool.of(recipe)
            if resources.settings.embedding.provider == "http":  # litellm's may cost money
                await embedder.identify(anew=True)
                await pool.of(recipe)
    except ConfigurationError as error:
        return EmbedderFacts("", wrong=str(error))
    except ModelUnavailable as error:
        return EmbedderFacts("", away=str(error))
    except TimeoutError:
        return EmbedderFacts("", away=f"the embedder did not answer in {_EMBEDDER_SECONDS:.0f} s")
    return EmbedderFacts("")


async def read_stages(resources: Resources, tenants: list[Tenant]) -> tuple[StageProgress, ...]:
    """Every stage of the live generations in every partition. Raises StoreUnavailable."""
    found: list[StageProgress] = []
    for tenant in tenants:
        stages = stages_of(await resources.generations.live(tenant.name))
        for partition in tenant.partitions:
            found += await read_progress(resources.source, partition, stages)
    return tuple(found)


async def fed_stages(resources: Resources, tenant: Tenant) -> AsyncIterator[tuple[Partition, list[StageProgress]]]:
    """Every stage of every generation that the tenant feeds, partition by partition. Raises StoreUnavailable."""
    table = await resources.generations.table(tenant.name)
    stages = [stage for number in table.fed for stage in stages_of(number)]
    for partition in tenant.partitions:
        yield partition, await read_progress(resources.source, partition, stages)


async def read_rebuilds(resources: Resources, tenants: list[Tenant]) -> tuple[RebuildFacts, ...]:
    """Each tenant's newest rebuild while it runs, or when it failed. Raises StoreUnavailable."""
    found: list[RebuildFacts] = []
    now = resources.rebuilds.now_ms()
    for tenant in tenants:
        table = await resources.generations.table(tenant.name)
        newest = table.rebuilds[0] if table.rebuilds else None
        if newest is None or not (newest.runs or newest.state == "failed"):
            continue
        unfed: list[str] = []
        for partition in tenant.partitions if newest.runs else ():
            stages = await read_progress(resources.source, partition, stages_of(newest.number))
            unfed += [progress.stage.group for progress in stages if not progress.living]
        seconds = (now - (newest.built_at or newest.started_at)) / 1000
        facts = RebuildFacts(tenant.name, newest.id, newest.state, newest.problem, seconds, tuple(dict.fromkeys(unfed)))
        found.append(facts)
    return tuple(found)


async def with_service(facts: Facts, resources: Resources) -> Facts:
    """The same with what Redis says of itself, of the stages and of the indexes. Raises StoreUnavailable."""
    redis = await read_redis_facts(resources.ledger_redis)
    tenants = await resources.tenants.all()
    partitions = [partition for tenant in tenants for partition in tenant.partitions]
    watch = resources.archive_watch
    return replace(
        facts,
        behind=() if watch is None else await watch.problems(partitions),
        redis=redis,
        tenants=len(tenants),
        events=sum([await resources.ledger.length(partition) for partition in partitions]),
        indexes=await read_indexes(resources, tenants) if redis.search_version is not None else (),
        stages=await read_stages(resources, tenants),
        rebuilds=await read_rebuilds(resources, tenants),
    )
