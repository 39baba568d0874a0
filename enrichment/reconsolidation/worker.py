"""The consolidation worker: a pass over every partition now and then, or once by command."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from contextlib import suppress

import structlog

from context_graph.bootstrap import Resources
from context_graph.domain.partition import Partition
from context_graph.errors import TemporaryError
from context_graph.models.language_model import open_language_model
from context_graph.store.model_usage import ModelUsage
from context_graph.workers import Worker
from enrichment.reconsolidation.run import LEASE_MS, Outcome, consolidate
from enrichment.reconsolidation.writing import Writer

_LONGEST_BACKOFF = 30.0  # seconds
_ASK_AGAIN = 300.0  # seconds until sessions that wait for the language model are tried again
_LOOK_AGAIN = 0.2  # seconds between two tries for a lease that somebody holds

log = structlog.get_logger(__name__)


async def run(resources: Resources, stop: asyncio.Event) -> None:
    """A pass every `consolidation.every_seconds`, the first at once, until `stop` is set.

    A stop lets the session in hand finish. When Redis is away the pass is tried again after the delivery's backoff,
    doubling up to 30 s.
    """
    settings = resources.settings
    pause = settings.delivery.backoff_seconds
    writer = _writer(resources)
    while not stop.is_set():
        try:
            outcome = await _pass_over_all(resources, stop, writer)
            wait, pause = settings.consolidation.every_seconds, settings.delivery.backoff_seconds
            if outcome.waiting:
                wait = min(wait, _ASK_AGAIN)
        except TemporaryError as error:
            wait, pause = pause, min(pause * 2, _LONGEST_BACKOFF)
            log.warning("consolidation interrupted", reason=str(error), retry_seconds=wait)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await stop.wait()


async def once(resources: Resources) -> str:
    """One pass over every partition; returns what was done in words.

    A partition that another worker is at is waited for, as long as a lease lives; then this pass finds what that one
    left. Raises TemporaryError when Redis goes away.
    """
    total, writer = Outcome(), _writer(resources)
    for partition in await _partitions(resources):
        total += await _patiently(resources, partition, writer)
    return total.words


async def _patiently(resources: Resources, partition: Partition, writer: Writer | None) -> Outcome:
    holder = _holder()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LEASE_MS / 1000
    outcome = await consolidate(resources, partition, holder, writer=writer)
    while outcome.busy and loop.time() < deadline:
        await asyncio.sleep(_LOOK_AGAIN)
        outcome = await consolidate(resources, partition, holder, writer=writer)
    return outcome


async def _pass_over_all(resources: Resources, stop: asyncio.Event, writer: Writer | None) -> Outcome:
    total = Outcome()
    for partition in await _partitions(resources):
        if not stop.is_set():
            total += await consolidate(resources, partition, _holder(), stop, writer)
    return total


async def _partitions(resources: Resources) -> list[Partition]:
    return [partition for tenant in await resources.tenants.all() for partition in tenant.partitions]


def _writer(resources: Resources) -> Writer | None:
    """What asks the language model that the settings name, if any."""
    llm = resources.settings.llm
    model = open_language_model(llm)
    if model is None:
        return None
    return Writer(model, ModelUsage(resources.ledger_redis), llm, lambda: int(time.time() * 1000))


def _holder() -> str:
    """A name that no other pass has, and that says where to look."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


WORKER = Worker(
    name="consolidation",
    summary="Stage 3: episodes and summaries of sessions",
    run=run,
    once=once,
)
