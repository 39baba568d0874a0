"""The worker `enrichment`: both halves of Stage 2 in one process.

The indexing half starts at once and needs no model. The models are opened beside it. A recogniser that can never work
as configured ends the worker with a message. An embedder that is away, or another than a generation's vectors were made
by, does not: vectors wait (their events are delivered once more, none is buried), while text and entities go on and
other generations are built.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import structlog

from context_graph.bootstrap import Resources
from context_graph.delivery.generations import run_generations
from context_graph.domain.stages import ENRICHMENT, INDEXING
from context_graph.errors import ConfigurationError, ModelUnavailable
from context_graph.models.embedder_pool import EmbedderPool, open_embedders
from context_graph.models.recogniser import Recogniser, open_recogniser
from context_graph.workers import Worker
from enrichment.generation import EnrichmentOf, IndexingOf, Models
from enrichment.known import RememberingRecogniser

log = structlog.get_logger(__name__)


async def run(resources: Resources, stop: asyncio.Event) -> None:
    """Run both stages until `stop` is set. Raises ConfigurationError when the recogniser can never work."""
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_index(resources, stop), name="indexing")
            tasks.create_task(_enrich(resources, stop), name="enrichment")
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


async def _index(resources: Resources, stop: asyncio.Event) -> None:
    def indexing(number: int) -> IndexingOf:
        return IndexingOf(resources, number)

    await run_generations(resources.source, resources.generations, INDEXING, indexing, stop)


async def _enrich(resources: Resources, stop: asyncio.Event) -> None:
    settings = resources.settings
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_embedders(settings.embedding, settings.data_dir / "models"))
        recogniser = await stack.enter_async_context(open_recogniser(settings.entities))
        models = Models(pool, RememberingRecogniser(recogniser), settings.retrieval.embedder_rest_seconds)
        await _warm(pool, recogniser, local=settings.embedding.provider == "fastembed")

        def enriching(number: int) -> EnrichmentOf:
            return EnrichmentOf(resources, models, number)

        def batch(building: bool) -> int:
            """A generation that is being built knows most answers already: larger steps."""
            return settings.delivery.batch_events if building else settings.embedding.batch_events

        await run_generations(resources.source, resources.generations, ENRICHMENT, enriching, stop, batch=batch)


async def _warm(pool: EmbedderPool, recogniser: Recogniser, *, local: bool) -> None:
    """Load both models by using them once, so that a wrong configuration is told before any event is read.

    Raises ConfigurationError where a model of this machine's own is not there: nobody will bring it while this waits.
    """
    await recogniser.recognise(["warm"])
    if local:
        await pool.of(None)
    try:
        embedder = await pool.of(None)
        await embedder.embed(["warm"])
    except (ModelUnavailable, ConfigurationError) as error:
        log.warning("model_unavailable", reason=str(error))
    else:
        log.info("models_loaded", embedder=embedder.model_id)


WORKER = Worker(
    name="enrichment",
    summary="text index, vectors, entities and importance",
    run=run,
)
