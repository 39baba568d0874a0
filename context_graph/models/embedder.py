"""Texts to vectors: MiniLM through fastembed, off the event loop.

One thread of its own holds the model; it is loaded at the first use, so that whatever opens an embedder starts at once.
Texts are sorted by length before they are batched, because a batch costs as much as its longest text, and each batch is
its own turn in the thread: a query that arrives during a long backlog waits for one batch, not for all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import structlog
from numpy.typing import NDArray

from context_graph.errors import ConfigurationError, ModelUnavailable, WrongDimensions
from context_graph.models.batches import batches, by_length
from context_graph.models.offline import MODEL_FILE, PACKAGED_MODEL, TOKENIZER_FILES, assemble_packaged, short_digest
from context_graph.settings import EmbeddingSettings

if TYPE_CHECKING:
    from fastembed import TextEmbedding

log = structlog.get_logger(__name__)

Vectors: TypeAlias = NDArray[np.float32]

_WAY_OUT = (
    "Name a folder with the model in CG_EMBEDDING__MODEL_PATH, install the packaged one (extra `models`), "
    "or let this machine reach the model hub"
)


class Embedder(Protocol):
    """Makes unit vectors of texts."""

    @property
    def model_id(self) -> str:
        """The very model: vectors of different ids are not comparable."""
        ...

    @property
    def dimensions(self) -> int: ...

    async def identify(self, *, anew: bool = False) -> str:
        """`model_id`, asked of a server that was not asked before, or `anew`. Raises as `embed` does."""
        ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), dimensions), float32, rows of length 1, in the order of the texts.

        Raises ModelUnavailable when the model fails, ConfigurationError when it cannot be the right one.
        """
        ...


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where the model comes from: a folder, or None for the hub's own download."""

    name: str
    folder: Path | None
    model_id: str


def find_model(settings: EmbeddingSettings, cache_dir: Path) -> ModelSource:
    """The folder that is set, else the packaged model, else the hub. ConfigurationError says what is missing."""
    short = settings.model.rpartition("/")[2]
    if settings.model_path is not None:
        folder = settings.model_path
        missing = [name for name in TOKENIZER_FILES if not (folder / name).is_file()]
        models = sorted(folder.rglob("*.onnx"), key=lambda file: (file.name != MODEL_FILE, str(file)))
        missing += [] if models else [MODEL_FILE]
        if missing:
            raise ConfigurationError(f"CG_EMBEDDING__MODEL_PATH: {folder} lacks {', '.join(missing)}")
        return ModelSource(settings.model, folder, f"{short}/{short_digest(models[0])}")
    packaged = assemble_packaged(cache_dir) if settings.model == PACKAGED_MODEL else None
    if packaged is not None:
        return ModelSource(settings.model, packaged.folder, packaged.model_id)
    return ModelSource(settings.model, None, f"{short}/hub")


class Pace:
    """Says in the log, once a minute of work at most, how many texts a second a model embeds."""

    def __init__(self, model_id: str, every: float = 60.0) -> None:
        self._model_id = model_id
        self._every = every
        self._since: float | None = None
        self._texts = 0
        self._busy = 0.0

    def add(self, texts: int, began: float, ended: float) -> None:
        """A call is over. Times in seconds of one clock."""
        self._since = began if self._since is None else self._since
        self._texts += texts
        self._busy += ended - began
        if ended - self._since >= self._every:
            rate = round(self._texts / max(self._busy, 1e-9), 1)
            log.info("embedder_pace", model=self._model_id, texts=self._texts, texts_per_second=rate)
            self._since, self._texts, self._busy = None, 0, 0.0


class FastembedEmbedder:
    """The default: fastembed over onnxruntime."""

    def __init__(
        self, source: ModelSource, settings: EmbeddingSettings, cache_dir: Path, thread: ThreadPoolExecutor
    ) -> None:
        self._source = source
        self._settings = settings
        self._cache_dir = cache_dir
        self._thread = thread  # a single one: it alone touches the model
        self._model: TextEmbedding | None = None
        self._clock = time.monotonic
        self._pace = Pace(source.model_id)

    @property
    def model_id(self) -> str:
        return self._source.model_id

    @property
    def dimensions(self) -> int:
        return self._settings.dimensions

    async def identify(self, *, anew: bool = False) -> str:
        """The digest of the file."""
        return self._source.model_id

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`. An empty text is embedded as a space."""
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        loop = asyncio.get_running_loop()
        for rows in batches(by_length(texts), texts, self._settings.batch_texts):
            batch = [texts[row] or " " for row in rows]
            began = self._clock()
            vectors[rows] = await loop.run_in_executor(self._thread, self._embed_batch, batch)
            self._pace.add(len(rows), began, self._clock())
        return vectors

    def _embed_batch(self, texts: list[str]) -> Vectors:
        model = self._loaded()
        try:
            return np.asarray(list(model.embed(texts, batch_size=len(texts))), dtype=np.float32)
        except Exception as error:  # onnxruntime's and tokenizers' failures share no root below Exception
            raise ModelUnavailable(f"the embedder {self.model_id} failed: {error}") from error

    def _loaded(self) -> TextEmbedding:
        if self._model is None:
            model = self._load()
            self._refuse_other_dimensions(model)
            self._model = model
        return self._model

    def _load(self) -> TextEmbedding:
        # Half a second of imports and a tenth of loading: at the first use, in this thread, not at start.
        from fastembed import TextEmbedding  # noqa: PLC0415

        folder = self._source.folder
        known = {str(row["model"]).lower() for row in TextEmbedding.list_supported_models()}
        if self._source.name.lower() not in known:
            raise ConfigurationError(f"CG_EMBEDDING__MODEL: fastembed has no model {self._source.name!r}")
        try:
            model = TextEmbedding(
                self._source.name,
                cache_dir=str(self._cache_dir),
                threads=self._settings.threads,
                specific_model_path=None if folder is None else str(folder),
            )
        except Exception as error:  # a hub that is away, a folder with other files: fastembed raises what it meets
            if folder is None:
                raise ModelUnavailable(f"{self._source.name} could not be downloaded ({error}). {_WAY_OUT}") from error
            raise ConfigurationError(f"the model in {folder} does not load: {error}") from error
        _shorten(model, self._settings.max_tokens)
        return model

    def _refuse_other_dimensions(self, model: TextEmbedding) -> None:
        found = len(next(iter(model.embed(["dimensions"]))))
        if found != self.dimensions:
            raise WrongDimensions(self.model_id, found, self.dimensions)


def _shorten(model: TextEmbedding, max_tokens: int) -> None:
    """Lower the tokenizer's limit; never raise it above what the model was made for."""
    tokenizer: Any = getattr(model.model, "tokenizer", None)
    limit = tokenizer.truncation if tokenizer is not None else None
    if limit and max_tokens < limit["max_length"]:
        tokenizer.enable_truncation(max_length=max_tokens, direction=limit["direction"])


@asynccontextmanager
async def open_fastembed_embedder(settings: EmbeddingSettings, cache_dir: Path) -> AsyncIterator[Embedder]:
    """The local model that the settings name; `cache_dir` keeps assembled and downloaded models.

    Files are looked for now (ConfigurationError names what is missing), the model is loaded at the first `embed`.
    """
    source = await asyncio.to_thread(find_model, settings, cache_dir)
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")
    try:
        yield FastembedEmbedder(source, settings, cache_dir, thread)
    finally:
        # Not waited for on the loop: what runs is one batch at most, and nobody wants it any more.
        thread.shutdown(wait=False, cancel_futures=True)
