"""The facts of a running service, gathered once for everybody who judges it: readiness, `doctor`, `/metrics`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from context_graph.bootstrap import Resources
from context_graph.delivery.progress import limits_of, read_progress
from context_graph.domain.generations import Recipe
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.stages import Stage, StageProgress, stages_of
from context_graph.errors import ModelUnavailable, PermanentError
from context_graph.local.checks import Facts, IndexFacts, RebuildFacts
from context_graph.local.model_checks import EmbedderFacts
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
    asked: list[tuple[Partition, int | None]] = []
    for tenant in tenants:
        recipe = await resources.generations.recipe(tenant.name, await resources.generations.live(tenant.name))
        expected = None if recipe is None else recipe.dimensions
        asked += [(partition, expected) for partition in tenant.partitions]
    found = await resources.index.dimensions_of([partition for partition, _ in asked])
    return tuple(
        IndexFacts(str(partition), dimensions, expected)
        for (partition, expected), dimensions in zip(asked, found, strict=True)
    )


async def read_embedders(resources: Resources, pool: EmbedderPool) -> tuple[EmbedderFacts, ...]:
    """Whether each tenant's live generation has its model here, and whether a server of it answers."""
    found: list[EmbedderFacts] = []
    known: dict[Recipe | None, EmbedderFacts] = {}
    for tenant in await resources.tenants.all():
        recipe = await resources.generations.recipe(tenant.name, await resources.generations.live(tenant.name))
        if recipe not in known:
            known[recipe] = await ask_embedder(resources, pool, recipe)
        found.append(replace(known[recipe], tenant=tenant.name))
    return tuple(found)


async def ask_embedder(resources: Resources, pool: EmbedderPool, recipe: Recipe | None) -> EmbedderFacts:
    """The same of one recipe, of no tenant. What goes wrong is in the answer."""
    try:
        async with asyncio.timeout(_EMBEDDER_SECONDS):
            await pool.of(recipe, anew=resources.settings.embedding.provider == "http")  # litellm's may cost money
    except PermanentError as error:
        return EmbedderFacts("", wrong=str(error))
    except ModelUnavailable as error:
        return EmbedderFacts("", away=str(error))
    except TimeoutError:
        return EmbedderFacts("", away=f"the embedder did not answer in {_EMBEDDER_SECONDS:.0f} s")
    return EmbedderFacts("")


async def read_stages(resources: Resources, tenants: list[Tenant]) -> tuple[StageProgress, ...]:
    """Every stage of the live generations in every partition. Raises StoreUnavailable."""
    asked: list[tuple[Partition, Stage]] = []
    for tenant in tenants:
        stages = stages_of(await resources.generations.live(tenant.name))
        asked += [(partition, stage) for partition in tenant.partitions for stage in stages]
    return tuple(await read_progress(resources.source, asked))


async def read_other_stages(resources: Resources, tenants: list[Tenant]) -> list[StageProgress]:
    """The same of the other generations that are fed: being built, or kept to go back to."""
    asked: list[tuple[Partition, Stage]] = []
    for tenant in tenants:
        table = await resources.generations.table(tenant.name)
        stages = [stage for number in table.fed if number != table.live for stage in stages_of(number)]
        asked += [(partition, stage) for partition in tenant.partitions for stage in stages]
    return await read_progress(resources.source, asked)


async def read_rebuilds(resources: Resources, tenants: list[Tenant]) -> tuple[RebuildFacts, ...]:
    """Each tenant's newest rebuild while it runs, or when it failed. Raises StoreUnavailable."""
    found: list[RebuildFacts] = []
    now = resources.rebuilds.now_ms()
    for tenant in tenants:
        table = await resources.generations.table(tenant.name)
        newest = table.rebuilds[0] if table.rebuilds else None
        if newest is None or not (newest.runs or newest.state == "failed"):
            continue
        stages = stages_of(newest.number) if newest.runs else ()
        asked = [(partition, stage) for partition in tenant.partitions for stage in stages]
        unfed = [told.stage.group for told in await read_progress(resources.source, asked) if not told.living]
        seconds = (now - (newest.built_at or newest.started_at)) / 1000
        facts = RebuildFacts(tenant.name, newest.id, newest.state, newest.problem, seconds, tuple(dict.fromkeys(unfed)))
        found.append(facts)
    return tuple(found)


async def with_service(facts: Facts, resources: Resources) -> Facts:
    """The same with what Redis says of itself, of the stages and of the indexes. Raises StoreUnavailable."""
    redis = await read_redis_facts(resources.ledger_redis)
    tenants = await resources.tenants.all()
    await resources.generations.tables([tenant.name for tenant in tenants])  # and remembered for what follows
    partitions = [partition for tenant in tenants for partition in tenant.partitions]
    watch = resources.archive_watch
    return replace(
        facts,
        behind=() if watch is None else await watch.problems(partitions),
        redis=redis,
        tenants=len(tenants),
        events=await resources.ledger.length(*partitions),
        indexes=await read_indexes(resources, tenants) if redis.search_version is not None else (),
        stages=await read_stages(resources, tenants),
        rebuilds=await read_rebuilds(resources, tenants),
    )
