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
from context_graph.errors import ConfigurationError, ContextGraphError, ModelMissing, ModelUnavailable
from context_graph.models.embedder import Embedder
from context_graph.models.gathering import gathering
from context_graph.models.opening import open_embedder
from context_graph.settings import EmbeddingSettings

_Key = tuple[str, str | None, str, Path | None, int]


class EmbedderPool:
    """Embedders by recipe; at most one of each model and place."""

    def __init__(self, settings: EmbeddingSettings, cache_dir: Path, stack: AsyncExitStack) -> None:
        self._settings = settings
        self._cache_dir = cache_dir
        self._stack = stack
        self._opened: dict[_Key, Embedder] = {}
        self._opening = asyncio.Lock()

    async def of(self, recipe: Recipe | None, *, anew: bool = False) -> Embedder:
        """The embedder of a generation, not yet loaded. None: what the settings name. `anew`: ask a server again.

        Raises ModelMissing when this process cannot open that model, or finds another one in its place, and
        ModelUnavailable when the server that has it does not say which one it has.
        """
        failures: list[ContextGraphError] = []
        for settings in _ways(recipe, self._settings):
            try:
                return await self._same(settings, recipe, anew)
            except (ModelMissing, ModelUnavailable) as error:
                failures.append(error)
        raise failures[0]

    async def _same(self, settings: EmbeddingSettings, recipe: Recipe | None, anew: bool) -> Embedder:
        """The embedder that is there, if it is the one that the recipe names."""
        key = (settings.provider, settings.url, settings.model, settings.model_path, settings.dimensions)
        embedder = self._opened.get(key)
        if embedder is None:
            async with self._opening:
                embedder = self._opened.get(key)
                if embedder is None:
                    embedder = self._opened[key] = await self._open(settings, recipe)
        try:
            found = await embedder.identify(anew=anew)
            if recipe is not None and not _matches(recipe, found):
                found = await embedder.identify(anew=True)  # the right one may have been put back
        except ModelMissing:
            raise
        except ConfigurationError as error:
            raise _missing(recipe, settings, error) from error
        if recipe is not None and not _matches(recipe, found):
            raise ModelMissing(
                f"the vectors of this generation were made by {recipe.model_id}, this process has {found} "
                f"in its place ({_place(settings)}): put the old model back, or make a generation with the new one "
                f"(`context-graph rebuild {_options(settings)}`)"
            )
        return embedder

    async def _open(self, settings: EmbeddingSettings, recipe: Recipe | None) -> Embedder:
        try:
            embedder = await self._stack.enter_async_context(open_embedder(settings, self._cache_dir))
            return await self._stack.enter_async_context(gathering(embedder))
        except ConfigurationError as error:
            raise _missing(recipe, settings, error) from error


@asynccontextmanager
async def open_embedders(settings: EmbeddingSettings, cache_dir: Path) -> AsyncIterator[EmbedderPool]:
    """A pool; everything it opened is closed at the end. `cache_dir` keeps assembled and downloaded models."""
    async with AsyncExitStack() as stack:
        yield EmbedderPool(settings, cache_dir, stack)


def _ways(recipe: Recipe | None, settings: EmbeddingSettings) -> list[EmbeddingSettings]:
    """Where a generation's model may be: where the settings say, then where the recipe says.

    A generation that nobody has made anything of yet is made where its recipe says.
    """
    if recipe is None:
        return [settings]
    path = None if recipe.model_path is None else Path(recipe.model_path)
    here = settings.model_copy(update={"model": recipe.model, "model_path": path, "dimensions": recipe.dimensions})
    if recipe.provider in ("", settings.provider):
        return [here.model_copy(update={"url": settings.url or recipe.url})]
    there = here.model_copy(update={"provider": recipe.provider, "url": recipe.url})
    return [here, there] if recipe.model_id else [there]


def _matches(recipe: Recipe, found: str) -> bool:
    """Whether vectors of `found` are those of the recipe. Before servers told their file, it was named by the model."""
    return recipe.model_id in ("", found) or recipe.model_id == f"{found.partition('/')[0]}/http" != found


def _missing(recipe: Recipe | None, settings: EmbeddingSettings, error: ConfigurationError) -> ModelMissing:
    made_by = settings.model if recipe is None else recipe.model_id or recipe.model
    return ModelMissing(
        f"vectors are made by {made_by}, which this process cannot use ({_place(settings)}): {error}; put the right "
        f"model there, or make a generation with another one (`context-graph rebuild {_options(settings)}`)"
    )


def _place(settings: EmbeddingSettings) -> str:
    return "in this process" if settings.provider == "fastembed" else f"by {settings.provider}"


def _options(settings: EmbeddingSettings) -> str:
    if settings.provider == "fastembed":
        return "--model-path FOLDER"
    return f"--provider {settings.provider} --dimensions N"
