"""Stage 2 of one generation: each tenant's by the models and dimensions that its recipe names.

The first worker that meets a generation without a recipe writes down what it makes it by. From then on that generation
stays with these models, whatever the settings say later: another model is another generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from context_graph.bootstrap import Resources
from context_graph.delivery.forgetting import ForgettingHandler
from context_graph.domain.document import Document
from context_graph.domain.event import LedgerEvent, TenantId
from context_graph.domain.generations import Recipe, Table
from context_graph.domain.partition import Partition
from context_graph.errors import ConfigurationError, ModelUnavailable, PartlyDone
from context_graph.models.embedder import Embedder
from context_graph.models.embedder_pool import EmbedderPool
from context_graph.models.language_model import Breaker
from context_graph.store.forgotten import Forgotten
from context_graph.store.generations import recipe_of
from context_graph.store.index import Index
from enrichment.enrich import EnrichmentHandler, embedded_text, passages_of, text_hash
from enrichment.found import Found
from enrichment.indexing import IndexingHandler
from enrichment.known import AwayEmbedder, RememberingEmbedder, RememberingRecogniser, recall

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class IndexingOf:
    """The indexing half of a generation."""

    resources: Resources
    number: int
    _indexes: dict[tuple[int, bool], Index] = field(default_factory=dict)

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        """See `IndexingHandler`."""
        recipe = await self.resources.generations.recipe(partition.tenant, self.number)
        dimensions = self.resources.settings.embedding.dimensions if recipe is None else recipe.dimensions
        fresh = await _is_building(self.resources, partition.tenant, self.number)
        index = self._indexes.get((dimensions, fresh))
        if index is None:
            index = self.resources.index.at(self.number, dimensions, fresh=fresh)
            self._indexes[dimensions, fresh] = index
        await self._forgetting(IndexingHandler(index)).handle(partition, events)

    def _forgetting(self, inner: IndexingHandler) -> ForgettingHandler:
        forgotten = Forgotten(self.resources.derived_redis, self.resources.graph.at(self.number))
        summaries = partial(forgotten.remove_summaries, vectors=False)
        ledger, remove = self.resources.ledger, forgotten.remove_documents
        return ForgettingHandler(inner, forgotten, ledger, remove, spares=True, remove_summaries=summaries)


@dataclass(slots=True)
class Models:
    """The models of this process with what they said last; shared by all generations."""

    pool: EmbedderPool
    recogniser: RememberingRecogniser
    rest_seconds: float
    """For so long an embedder that did not answer for a tenant is not asked: entities do not wait for its timeouts."""
    _embedders: dict[str, RememberingEmbedder] = field(default_factory=dict)
    _breakers: dict[TenantId, Breaker] = field(default_factory=dict)

    def breaker(self, tenant: TenantId) -> Breaker:
        """By tenant: which model it is may be what the server did not say."""
        return self._breakers.setdefault(tenant, Breaker(1, self.rest_seconds))

    async def embedder(self, recipe: Recipe | None) -> RememberingEmbedder:
        """Raises ConfigurationError where the recipe's model cannot be opened."""
        found: Embedder = await self.pool.of(recipe)
        known = self._embedders.get(found.model_id)
        if known is None:
            known = self._embedders[found.model_id] = RememberingEmbedder(found)
        return known


@dataclass(slots=True)
class EnrichmentOf:
    """The enrichment of a generation. What the live one knows already is not asked again."""

    resources: Resources
    models: Models
    number: int
    _handlers: dict[tuple[str, bool], ForgettingHandler] = field(default_factory=dict)

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        """See `EnrichmentHandler`. Raises PartlyDone where the model of a generation that is in use is not here.

        Then its vectors wait for it. Of one that is being built all waits; ConfigurationError ends the rebuild.
        """
        if await _is_building(self.resources, partition.tenant, self.number):
            await self._enrich(partition, events, fresh=True)
            return
        breaker = self.models.breaker(partition.tenant)
        if not breaker.lets_through():
            await self._without_vectors(partition, events)
            return
        try:
            await self._enrich(partition, events, fresh=False)
        except PartlyDone:
            breaker.failed()
            raise
        except (ModelUnavailable, ConfigurationError) as error:
            breaker.failed()
            log.warning("embedder_away", tenant=partition.tenant, generation=self.number, reason=str(error))
            await self._without_vectors(partition, events)
        else:
            breaker.succeeded()

    async def _without_vectors(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        """Entities alone. Raises PartlyDone, ModelUnavailable where the recogniser cannot work either."""
        recipe = await self.resources.generations.recipe(partition.tenant, self.number)
        dimensions = self.resources.settings.embedding.dimensions if recipe is None else recipe.dimensions
        away = AwayEmbedder(dimensions)
        key = (f"{away.model_id}/{dimensions}", False)
        if key not in self._handlers:
            self._handlers[key] = self._handler(RememberingEmbedder(away), fresh=False)
        try:
            await self._handlers[key].handle(partition, events)
        except ConfigurationError as error:
            raise ModelUnavailable(str(error)) from error

    async def _enrich(self, partition: Partition, events: Sequence[LedgerEvent], *, fresh: bool) -> None:
        recipe = await self._recipe(partition.tenant)
        embedder = await self.models.embedder(recipe)
        handler = self._handlers.get((embedder.model_id, fresh))
        if handler is None:
            handler = self._handler(embedder, fresh=fresh)
            self._handlers[embedder.model_id, fresh] = handler
        await handler.handle(partition, events)

    def _handler(self, embedder: RememberingEmbedder, *, fresh: bool) -> ForgettingHandler:
        passages = self.resources.settings.embedding.passages

        async def remind(partition: Partition, documents: Sequence[Document]) -> dict[str, Found]:
            live = await self.resources.generations.live(partition.tenant)
            found: dict[str, Found] = {}
            if live == self.number:
                return found
            index = self.resources.index.at(live)
            texts = [(document, (embedded_text(document), *passages_of(document, passages))) for document in documents]
            for chunk in range(max((len(parts) for _, parts in texts), default=0)):
                asked = [(d, parts[chunk], text_hash(parts[chunk])) for d, parts in texts if chunk < len(parts)]
                known = await recall(index, partition, asked, embedder, self.models.recogniser, chunk=chunk)
                found = found if chunk else known
            return found

        index = self.resources.index.at(self.number, embedder.dimensions, fresh=fresh)
        inner = EnrichmentHandler(index, embedder, self.models.recogniser, remind, passages=passages, waits=fresh)
        forgotten = Forgotten(self.resources.derived_redis, self.resources.graph.at(self.number))
        summaries = partial(forgotten.remove_summaries, vectors=True)
        ledger, remove = self.resources.ledger, forgotten.remove_enrichments
        return ForgettingHandler(inner, forgotten, ledger, remove, spares=True, remove_summaries=summaries)

    async def _recipe(self, tenant: TenantId) -> Recipe:
        known = await self.resources.generations.recipe(tenant, self.number)
        if known is not None and known.model_id:
            return known
        asked = recipe_of(self.resources.settings) if known is None else known
        embedder = await self.models.embedder(known)
        await embedder.embed(["dimensions"])  # one of other dimensions than it is set to must not be written down
        recipe = replace(asked, model_id=embedder.model_id, recogniser=self.models.recogniser.recogniser_id)

        def named(table: Table) -> Table:
            there = table.recipes.get(self.number)
            return table if there is not None and there.model_id else table.named(self.number, recipe)

        table = await self.resources.generations.change(tenant, named)
        log.info("generation_named", tenant=tenant, generation=self.number, model=embedder.model_id)
        return table.recipes[self.number]


async def _is_building(resources: Resources, tenant: TenantId, number: int) -> bool:
    """Whether a generation of the tenant is being built: then nothing of it is older than its indexes."""
    return (await resources.generations.table(tenant)).building == number
