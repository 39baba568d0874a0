"""The archive worker: a pass over every partition now and then, or once by command.

It moves old events from Redis to the archive (`store/archive_writing.py` says in which order and why that is safe). A
partition whose archive is damaged is left alone and told of at every pass; the others go on.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress

import structlog

from context_graph.bootstrap import Resources
from context_graph.domain.partition import Partition, Tenant
from context_graph.errors import ArchiveDamaged, ConfigurationError, TemporaryError
from context_graph.settings import ArchiveSettings
from context_graph.store.archive_writing import Archived, Archiver, Retention
from context_graph.workers import Worker

_LONGEST_BACKOFF = 30.0  # seconds

log = structlog.get_logger(__name__)


async def run(resources: Resources, stop: asyncio.Event) -> None:
    """A pass every `archive.every_seconds`, the first at once, until `stop` is set.

    A stop lets the segment in hand finish. When Redis or the archive is away the pass is tried again after the
    delivery's backoff, doubling up to 30 s. Raises ConfigurationError without an archive.
    """
    archiver = open_archiver(resources)
    pause = resources.settings.delivery.backoff_seconds
    while not stop.is_set():
        try:
            _, damaged = await pass_over_all(resources, archiver, stop, flush=False)
            for problem in damaged:
                log.error("archive_damaged", problem=problem)
            wait, pause = resources.settings.archive.every_seconds, resources.settings.delivery.backoff_seconds
        except TemporaryError as error:
            wait, pause = pause, min(pause * 2, _LONGEST_BACKOFF)
            log.warning("archiving_interrupted", reason=str(error), retry_in_seconds=wait)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):  # `wait_for` swallows cancellations on Python 3.11
                await stop.wait()


async def once(resources: Resources) -> str:
    """One pass that leaves no event waiting for a full segment; returns what was done in words.

    Raises ArchiveDamaged when a partition's archive is; the others are done then.
    """
    archiver = open_archiver(resources)
    done, damaged = await pass_over_all(resources, archiver, asyncio.Event(), flush=True)
    if damaged:
        raise ArchiveDamaged("\n".join([*damaged, f"the rest: {done.words}"]))
    return done.words


async def pass_over_all(
    resources: Resources, archiver: Archiver, stop: asyncio.Event, *, flush: bool
) -> tuple[Archived, list[str]]:
    """What was done over all partitions, and what is damaged in words. Raises TemporaryError."""
    done = Archived()
    damaged: list[str] = []
    for tenant, partition in await _partitions(resources):
        if stop.is_set():
            break
        try:
            done += await archiver.run(tenant, partition, _holder(), stop, flush=flush)
        except ArchiveDamaged as error:
            damaged.append(str(error))
    return done, damaged


def open_archiver(resources: Resources) -> Archiver:
    """The archiver that the settings describe. Raises ConfigurationError when they name no archive."""
    if resources.archive is None:
        raise ConfigurationError(
            "there is no archive: set CG_ARCHIVE__URL, as file:///var/lib/cg or s3://bucket/prefix"
        )
    return Archiver(
        resources.ledger_redis, resources.archive, resources.leases, retention_of(resources.settings.archive)
    )


def retention_of(settings: ArchiveSettings) -> Retention:
    """The settings in the store's units."""
    return Retention(
        segment_events=settings.segment_events,
        segment_bytes=settings.segment_bytes,
        segment_age_ms=int(settings.segment_seconds * 1000),
        settle_ms=int(settings.settle_seconds * 1000),
        keep_ms=int(settings.keep_hours * 3_600_000),
        keep_events=settings.keep_events,
    )


async def _partitions(resources: Resources) -> Sequence[tuple[Tenant, Partition]]:
    return [(tenant, partition) for tenant in await resources.tenants.all() for partition in tenant.partitions]


def _holder() -> str:
    """A name that no other pass has, and that says where to look."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


WORKER = Worker(name="archive", summary="Old events to the archive, and out of Redis", run=run, once=once)
