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
from context_graph.cli.configuration import find_redis, read_settings, with_folder_key
from context_graph.domain.findings import Finding, Level
from context_graph.domain.partition import Partition
from context_graph.errors import (
    ArchiveDamaged,
    ArchiveUnavailable,
    ConfigurationError,
    ContextGraphError,
    ModelUnavailable,
    StoreUnavailable,
    WrongDimensions,
)
from context_graph.facts import facts_of, read_embedders, with_service
from context_graph.local.checks import ArchiveFacts, Facts, examine
from context_graph.local.model_checks import ModelFacts
from context_graph.models.embedder_pool import open_embedders
from context_graph.models.opening import open_embedder
from context_graph.models.recogniser import open_recogniser
from context_graph.settings import Settings
from context_graph.store.archive_checking import ArchiveChecks

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
    models = (await _try_embedder(settings), await _try_recogniser(settings))
    keyed = settings if settings.redis_url is not None else with_folder_key(settings)
    facts = replace(facts_of(settings), models=models, sealed=keyed.vault.master_key is not None)
    try:
        found = find_redis(settings)
        async with open_resources(found) as resources:
            return await _with_store(facts, resources)
    except (ConfigurationError, StoreUnavailable) as error:
        return replace(facts, redis_problem=str(error))


async def _with_store(facts: Facts, resources: Resources) -> Facts:
    partitions = [partition for tenant in await resources.tenants.all() for partition in tenant.partitions]
    facts = replace(await with_service(facts, resources), archive=await _archive(resources, partitions))
    settings = resources.settings
    async with open_embedders(settings.embedding, settings.data_dir / "models") as pool:
        return replace(facts, embedders=await read_embedders(resources, pool))


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


async def _try_embedder(settings: Settings) -> ModelFacts:
    tried = ModelFacts(settings.embedding.model, "vectors", remote=settings.embedding.provider != "fastembed")
    try:
        async with open_embedder(settings.embedding, settings.data_dir / "models") as embedder:
            vectors = await embedder.embed(["a trial"])
            return replace(tried, name=embedder.model_id, dimensions=int(vectors.shape[1]))
    except WrongDimensions as error:
        return replace(tried, name=error.model_id, dimensions=error.found)
    except ModelUnavailable as error:
        return replace(tried, away=str(error))
    except ContextGraphError as error:
        return replace(tried, problem=str(error))


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
    unwell = any(finding.level == "warn" and finding.subject in ("stages", "models") for finding in findings)
    verdict = f"Wrong: {wrong}" if wrong else "Not all of it works" if unwell else "Nothing is wrong"
    console.print(f"\n{verdict}; warnings: {warnings}.")
