"""The consolidation worker: a pass over every partition now and then, or once by command."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import structlog

from context_graph.bootstrap import Resources
from context_graph.errors import TemporaryError
from context_graph.models.language_model import open_language_model
from context_graph.store.model_usage import ModelUsage
from context_graph.workers import Worker
from enrichment.reconsolidation.passes import Passed, Passes
from enrichment.reconsolidation.writing import Writer

_LONGEST_BACKOFF = 30.0  # seconds
_ASK_AGAIN = 300.0  # seconds until sessions that wait for the language model are tried again

log = structlog.get_logger(__name__)


async def run(resources: Resources, stop: asyncio.Event) -> None:
    """A pass every `consolidation.every_seconds`, the first at once, until `stop` is set; between these whatever is
    asked for, and a pass where enough is new.

    A stop lets the session in hand finish. When Redis is away it is tried again after the delivery's backoff, doubling
    up to 30 s.
    """
    settings = resources.settings
    loop = asyncio.get_running_loop()
    pause, due = settings.delivery.backoff_seconds, loop.time()
    passes = Passes(resources, _writer(resources))
    while not stop.is_set():
        try:
            if loop.time() >= due:
                done = await passes.over_all(stop)
                due = loop.time() + settings.consolidation.every_seconds
                if done.summaries.waiting:
                    due = min(due, loop.time() + _ASK_AGAIN)
            await passes.asked(stop)
            await passes.reflect(stop)
            wait, pause = settings.consolidation.look_seconds, settings.delivery.backoff_seconds
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
    passes, total = Passes(resources, _writer(resources)), Passed()
    for partition in await passes.partitions():
        done = await passes.patiently(partition, asyncio.Event())
        total.summaries += done.summaries
        total.forgot += done.forgot
    return total.words


def _writer(resources: Resources) -> Writer | None:
    """What asks the language model that the settings name, if any."""
    llm = resources.settings.llm
    model = open_language_model(llm)
    if model is None:
        return None
    return Writer(model, ModelUsage(resources.ledger_redis), llm, lambda: int(time.time() * 1000))


WORKER = Worker(
    name="consolidation",
    summary="Stage 3: episodes and summaries of sessions, forgetting",
    run=run,
    once=once,
)
