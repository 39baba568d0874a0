"""One embedder for each model that a generation of this process' tenants is made by, opened at its first use.

Vectors of different models cannot be compared, so whatever embeds for a generation, a text or a query, asks here for
the model that is written in that generation's recipe. What the settings name is for generations that say nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from context_graph.domain.generations import Recipe
from context_graph.errors import ConfigurationError, ModelMissing
from context_graph.models.embedder import Embedder
from context_graph.models.gathering import gathering
from context_graph.models.opening import open_embedder
from context_graph.settings import EmbeddingSettings

_Key = tuple[str, Path | None, int]


class EmbedderPool:
    """Embedders by recipe; at most one of each model."""

    def __init__(self, settings: EmbeddingSettings, cache_dir: Path, stack: AsyncExitStack) -> None:
        self._settings = settings
        self._cache_dir = cache_dir
        self._stack = stack
        self._opened: dict[_Key, Embedder] = {}
        self._opening = asyncio.Lock()

    async def of(self, recipe: Recipe | None) -> Embedder:
        """The embedder of a generation, not yet loaded. None: what the settings name.

        Raises ModelMissing when this process cannot open that model, or finds another one in its place.
        """
        settings = self._settings if recipe is None else _settings_of(recipe, self._settings)
        key = (settings.model, settings.model_path, settings.dimensions)
        embedder = self._opened.get(key)
        if embedder is None:
            async with self._opening:
                embedder = self._opened.get(key)
                if embedder is None:
                    embedder = self._opened[key] = await self._open(settings, recipe)
        if recipe is not None and recipe.model_id not in ("", embedder.model_id):
            raise ModelMissing(
                f"the vectors of this generation were made by {recipe.model_id}, this process has {embedder.model_id} "
                "under that name: put the old model back, or make a generation with the new one "
                "(`context-graph rebuild --model-path FOLDER`)"
            )
        return embedder

    async def _open(self, settings: EmbeddingSettings, recipe: Recipe | None) -> Embedder:
        try:
            embedder = await self._stack.enter_async_context(open_embedder(settings, self._cache_dir))
            return await self._stack.enter_async_context(gathering(embedder))
        except ConfigurationError as error:
            if recipe is None:
                raise
            raise ModelMissing(
                f"the generation's vectors are made by {recipe.model_id or recipe.model}, which this process cannot "
                f"load: {error}"
            ) from error


@asynccontextmanager
async def open_embedders(settings: EmbeddingSettings, cache_dir: Path) -> AsyncIterator[EmbedderPool]:
    """A pool; everything it opened is closed at the end. `cache_dir` keeps assembled and downloaded models."""
    async with AsyncExitStack() as stack:
        yield EmbedderPool(settings, cache_dir, stack)


def _settings_of(recipe: Recipe, settings: EmbeddingSettings) -> EmbeddingSettings:
    path = None if recipe.model_path is None else Path(recipe.model_path)
    changes = {"model": recipe.model, "model_path": path, "dimensions": recipe.dimensions}
    return settings.model_copy(update=changes)
