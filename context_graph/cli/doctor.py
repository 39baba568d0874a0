"""`context-graph doctor`: gathers the facts that `local/checks.py` judges, and prints what it concludes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from context_graph.bootstrap import Resources, open_resources
from context_graph.cli.configuration import find_redis, read_settings
from context_graph.domain.partition import Partition
from context_graph.domain.stages import STAGES, Stage
from context_graph.errors import (
    ArchiveDamaged,
    ArchiveUnavailable,
    ConfigurationError,
    ContextGraphError,
    StoreUnavailable,
)
from context_graph.local.checks import ArchiveFacts, Facts, Finding, IndexFacts, Level, ModelFacts, StageFacts, examine
from context_graph.models.embedder import open_embedder
from context_graph.models.recogniser import open_recogniser
from context_graph.settings import Settings
from context_graph.store.archive_checking import ArchiveChecks
from context_graph.store.readiness import read_redis_facts

_MOST_DEAD_LETTERS = 1_000  # read to tell the stages apart; more than that is said as this many
_STYLES: dict[Level, str] = {"ok": "green", "warn": "yellow", "wrong": "bold red"}


def doctor(
    data: Annotated[Path | None, typer.Option("--data", help="Data folder [default: CG_DATA_DIR]")] = None,
) -> None:
    """Say in plain words what is right and what is wrong, with remedies. Exit code 1 when something is wrong."""
    facts = asyncio.run(gather(read_settings(data)))
    findings = examine(facts)
    _print(Console(highlight=False, soft_wrap=True), findings)
    if any(finding.level == "wrong" for finding in findings):
        raise typer.Exit(1)


async def gather(settings: Settings) -> Facts:
    """Everything the checks look at. What cannot be reached becomes a fact, not an error."""
    facts = Facts(
        data_dir=str(settings.data_dir),
        durability=settings.ledger.durability,
        replicas=settings.ledger.replicas,
        sealed=settings.vault.master_key is not None,
        dimensions=settings.embedding.dimensions,
        stall_seconds=settings.delivery.stall_seconds,
        dead_letter_limit=settings.delivery.dead_letter_limit,
        redis=None,
        redis_problem=None,
        models=(await _try_embedder(settings), await _try_recogniser(settings)),
    )
    try:
        found = find_redis(settings)
        facts = replace(facts, sealed=found.vault.master_key is not None)
        async with open_resources(found) as resources:
            return await _with_store(facts, resources)
    except (ConfigurationError, StoreUnavailable) as error:
        return replace(facts, redis_problem=str(error))


async def _with_store(facts: Facts, resources: Resources) -> Facts:
    facts = replace(facts, redis=await read_redis_facts(resources.ledger_redis))
    tenants = await resources.tenants.all()
    partitions = [partition for tenant in tenants for partition in tenant.partitions]
    dead = await _dead_letters(resources, partitions)
    return replace(
        facts,
        tenants=len(tenants),
        events=sum([await resources.ledger.length(partition) for partition in partitions]),
        archive=await _archive(resources, partitions),
        indexes=await _indexes(resources, partitions) if _has_search(facts) else (),
        stages=tuple([await _stage(resources, partitions, stage, dead) for stage in STAGES]) if partitions else (),
    )


def _has_search(facts: Facts) -> bool:
    return facts.redis is not None and facts.redis.search_version is not None


async def _archive(resources: Resources, partitions: Sequence[Partition]) -> ArchiveFacts | None:
    """What the manifests say; damage and a folder that does not answer are facts too."""
    url = resources.settings.archive.url
    if resources.archive is None or url is None:
        return None
    checks = ArchiveChecks(resources.ledger_redis, resources.archive)
    try:
        reports = [await checks.look(partition) for partition in partitions]
        seconds, _ = await resources.ledger_redis.time()
    except (ArchiveDamaged, ArchiveUnavailable) as error:
        return ArchiveFacts(url, 0, None, (str(error),))
    newest = max((report.end.ms for report in reports if report.end is not None), default=None)
    return ArchiveFacts(
        url,
        sum(report.events for report in reports),
        None if newest is None else seconds * 1000 - newest,
        tuple(problem for report in reports for problem in report.problems),
    )


async def _indexes(resources: Resources, partitions: Sequence[Partition]) -> tuple[IndexFacts, ...]:
    return tuple([IndexFacts(str(p), await resources.index.dimensions_of(p)) for p in partitions])


async def _dead_letters(resources: Resources, partitions: Sequence[Partition]) -> list[str]:
    """The group of each dead letter."""
    return [
        letter.group
        for partition in partitions
        for letter in await resources.dead_letters.listed(partition, limit=_MOST_DEAD_LETTERS)
    ]


async def _stage(
    resources: Resources, partitions: Sequence[Partition], stage: Stage, dead: Sequence[str]
) -> StageFacts:
    groups = [(p, stage.of(await resources.generations.live(p.tenant)).group) for p in partitions]
    states = [await resources.groups.state(partition, group) for partition, group in groups]
    members = [await resources.groups.members(partition, group) for partition, group in groups]
    idle = [found.idle_seconds for found in members if found.idle_seconds is not None]
    return StageFacts(
        group=stage.group,
        worker=stage.worker,
        lag=sum(state.lag for state in states),
        pending=sum(state.pending for state in states),
        idle_seconds=max(idle, default=None),
        living=max((found.living for found in members), default=0),
        dead_letters=sum(group in {stage.group, *(name for _, name in groups)} for group in dead),
    )


async def _try_embedder(settings: Settings) -> ModelFacts:
    name, use = settings.embedding.model, "vectors"
    try:
        async with open_embedder(settings.embedding, settings.data_dir / "models") as embedder:
            vectors = await embedder.embed(["a trial"])
            return ModelFacts(embedder.model_id, use, dimensions=int(vectors.shape[1]))
    except ContextGraphError as error:
        return ModelFacts(name, use, problem=str(error))


async def _try_recogniser(settings: Settings) -> ModelFacts:
    name, use = settings.entities.model, "entities"
    try:
        async with open_recogniser(settings.entities) as recogniser:
            await recogniser.recognise(["A trial in Paris."])
            return ModelFacts(name, use)
    except ContextGraphError as error:
        return ModelFacts(name, use, problem=str(error))


def _print(console: Console, findings: Sequence[Finding]) -> None:
    for finding in findings:
        level = f"[{_STYLES[finding.level]}]{finding.level:<5}[/]"
        remedy = f" -> {escape(finding.remedy)}" if finding.remedy else ""
        console.print(f"{level}  {finding.subject:<12}  {escape(finding.words)}{remedy}")
    wrong = sum(finding.level == "wrong" for finding in findings)
    warnings = sum(finding.level == "warn" for finding in findings)
    console.print(f"\n{'Nothing is wrong' if wrong == 0 else f'Wrong: {wrong}'}; warnings: {warnings}.")
