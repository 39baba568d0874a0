"""Which embedder the settings name: a row for each provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from context_graph.models.embedder import Embedder, open_fastembed_embedder
from context_graph.models.remote_embedder import open_http_embedder, open_litellm_embedder
from context_graph.settings import EmbeddingSettings

_Opening: TypeAlias = Callable[[EmbeddingSettings, Path], AbstractAsyncContextManager[Embedder]]
PROVIDERS: Mapping[str, _Opening] = {
    "fastembed": open_fastembed_embedder,
    "litellm": lambda settings, _cache_dir: open_litellm_embedder(settings),
    "http": lambda settings, _cache_dir: open_http_embedder(settings),
}


@asynccontextmanager
async def open_embedder(settings: EmbeddingSettings, cache_dir: Path) -> AsyncIterator[Embedder]:
    """The embedder of `settings.provider`; `cache_dir` keeps assembled and downloaded models.

    What is missing is told now (ConfigurationError), the model is loaded or asked at the first `embed`.
    """
    async with PROVIDERS[settings.provider](settings, cache_dir) as embedder:
        yield embedder
