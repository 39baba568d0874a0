"""`context-graph archive`: what is archived, whether it is sound, one pass by hand, and the way back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from context_graph.bootstrap import Resources, open_resources
from context_graph.cli.configuration import embeddable_durability, find_redis, read_settings, with_folder_key
from context_graph.cli.run import DataOption
from context_graph.domain.event import iso
from context_graph.domain.partition import Partition
from context_graph.errors import ConfigurationError
from context_graph.local.redis_server import embedded_redis, running_url
from context_graph.observability.logging import configure_logging
from context_graph.settings import Settings
from context_graph.store.archive import Archive
from context_graph.store.archive_checking import ArchiveChecks, ArchiveReport
from context_graph.store.archive_restoring import Restore
from context_graph.workers import load_worker

Answer = TypeVar("Answer")
_NO_ARCHIVE = "there is no archive: set CG_ARCHIVE__URL, as file:///var/lib/cg or s3://bucket/prefix"

archive = typer.Typer(name="archive", help="Old events outside Redis.", no_args_is_help=True)


@archive.command("list")
def list_archive(data: DataOption = None) -> None:
    """What the archive holds of each partition, by its manifests."""
    reports = _with_archive(data, lambda resources, found: _reports(resources, found, deep=False))
    _print(reports)
    _tell(reports)


@archive.command("verify")
def verify(data: DataOption = None) -> None:
    """Read every byte: manifests, checksums, counts, continuity with the stream. Exit code 1 if a thing is wrong."""
    reports = _with_archive(data, lambda resources, found: _reports(resources, found, deep=True))
    _print(reports)
    _tell(reports)
    if any(report.problems for report in reports):
        raise typer.Exit(1)
    typer.echo("Nothing is wrong.")


@archive.command("run")
def run(data: DataOption = None) -> None:
    """One pass: archive what is ready, trim what the archive holds, every stage has finished and retention lets go."""

    async def one_pass(resources: Resources, _: Archive) -> str:
        worker = load_worker("archive")
        if worker.once is None:
            raise ConfigurationError("the worker `archive` has no single pass")
        return await worker.once(resources)

    typer.echo(_with_archive(data, one_pass))


@archive.command("restore")
def restore(data: DataOption = None) -> None:
    """Put every archived event back into an empty Redis, with ids, sessions and data keys. Interrupted: run it again.

    Stop the API and the workers first. Without CG_REDIS_URL the data folder's Redis is started for it, and stopped.
    """

    async def every_partition(resources: Resources, found: Archive) -> None:
        restoring = Restore(resources.ledger_redis, found, resources.tenants, resources.vault)
        partitions = await found.files.partitions()
        for partition in partitions:
            done = await restoring.run(partition)
            typer.echo(f"{partition}: {done.words}")
        if not partitions:
            typer.echo("the archive is empty")

    settings = read_settings(data)
    _quiet(settings)
    if settings.redis_url is not None or running_url(settings.data_dir) is not None:
        asyncio.run(_opened(find_redis(settings), every_partition))
    else:
        asyncio.run(_embedded(settings, every_partition))


def _with_archive(data: Path | None, work: Callable[[Resources, Archive], Awaitable[Answer]]) -> Answer:
    """What `work` answers, on the settings' Redis and archive. Raises ConfigurationError when there is no archive."""

    settings = find_redis(read_settings(data))
    _quiet(settings)
    return asyncio.run(_opened(settings, work))


def _quiet(settings: Settings) -> None:
    configure_logging(settings.model_copy(update={"log_level": "warning", "log_format": "console"}))


async def _opened(settings: Settings, work: Callable[[Resources, Archive], Awaitable[Answer]]) -> Answer:
    async with open_resources(settings) as resources:
        if resources.archive is None:
            raise ConfigurationError(_NO_ARCHIVE)
        return await work(resources, resources.archive)


async def _embedded(settings: Settings, work: Callable[[Resources, Archive], Awaitable[Answer]]) -> Answer:
    """The same on the data folder's own Redis, which runs as long as the work does, with the folder's master key."""
    if settings.archive.url is None:
        raise ConfigurationError(_NO_ARCHIVE)
    durability = embeddable_durability(settings)
    async with embedded_redis(settings.data_dir, durability=durability) as server:
        keyed = with_folder_key(settings).model_copy(update={"redis_url": SecretStr(server.url)})
        return await _opened(keyed, work)


async def _reports(resources: Resources, found: Archive, *, deep: bool) -> list[ArchiveReport]:
    checks = ArchiveChecks(resources.ledger_redis, found)
    tenants = await resources.tenants.all()
    known: set[Partition] = {partition for tenant in tenants for partition in tenant.partitions}
    partitions = sorted(known | set(await found.files.partitions()))
    return [await (checks.verify if deep else checks.look)(partition) for partition in partitions]


def _print(reports: list[ArchiveReport]) -> None:
    table = Table("partition", "segments", "events", "bytes", "compressed", "archived up to", "in Redis", box=None)
    for report in reports:
        table.add_row(
            str(report.partition),
            f"{report.segments:,}",
            f"{report.events:,}",
            f"{report.uncompressed_bytes:,}",
            f"{report.compressed_bytes:,}",
            "-" if report.end is None else f"{report.end} ({iso(report.end.ms)})",
            f"{report.hot:,}",
        )
    Console(highlight=False, soft_wrap=True).print(table)


def _tell(reports: list[ArchiveReport]) -> None:
    for report in reports:
        for note in report.notes:
            typer.echo(f"note   {report.partition}: {note}")
        for problem in dict.fromkeys(report.problems):
            typer.echo(f"wrong  {report.partition}: {problem}")
