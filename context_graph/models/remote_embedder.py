"""Embedders that are somewhere else: an HTTP server in the OpenAI form, or whatever litellm reaches.

Both answer the same question with the same promises as the local one: unit vectors of the dimensions that are set, in
the order of the texts. What comes back is checked before it is believed: the right number of vectors, each index once,
finite numbers. A server that is away, overloaded, slow or talks nonsense is ModelUnavailable, which the delivery loop
waits out while events are found by their text; one that refuses us is ConfigurationError, which no retry mends.

Our own server says which model it has by the digest of its file, so vectors of a local model and those of a server that
has the same one are the same. Of other servers no more is known than the name that their answers give.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any, Protocol

import httpx2
import numpy as np

from context_graph.errors import ConfigurationError, ModelMissing, ModelUnavailable, PermanentError, WrongDimensions
from context_graph.models.batches import batches, by_length
from context_graph.models.embedder import Vectors
from context_graph.settings import EmbeddingSettings

_REFUSES_US = (401, 403, 404, 405)
_REFUSES_IT = (400, 413, 422)
_FIRST_PAUSE = 0.2  # seconds; doubles


class Asking(Protocol):
    """One request for the vectors of a few texts: the answer's `data` in the OpenAI form, and the model it names."""

    async def __call__(self, texts: list[str]) -> tuple[Any, str]: ...


class RemoteEmbedder:
    """Texts by way of `ask`, which raises our errors."""

    def __init__(self, settings: EmbeddingSettings, model_id: str, ask: Asking) -> None:
        self._settings = settings
        self._unasked = model_id
        self._told: str | None = None
        self._ask = ask

    @property
    def model_id(self) -> str:
        return self._told or self._unasked

    @property
    def dimensions(self) -> int:
        return self._settings.dimensions

    async def identify(self, *, anew: bool = False) -> str:
        """See `Embedder.identify`: what the server's newest answer said."""
        if anew or self._told is None:
            data, named = await self._ask(["which model"])
            self._checked(data, 1, named)
            self._told = self._identity(named)
        return self.model_id

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`. An empty text is embedded as a space."""
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for rows in batches(by_length(texts), texts, self._settings.batch_texts):
            data, named = await self._ask([texts[row] or " " for row in rows])
            vectors[rows] = self._checked(data, len(rows), named)
            before, self._told = self._told, self._identity(named)
            if before not in (None, self._told):
                raise ModelMissing(f"the embedder had {before} and now has {self._told}: their vectors do not compare")
        return vectors

    def _identity(self, named: str) -> str:
        """The model that an answer names; with a digest behind ours, as `worker embedder` has it, that very file."""
        model, provider = self._unasked.split("/")
        if named.startswith(f"{model}/"):
            return named
        return f"{named.rpartition('/')[2] or model}/{provider}"

    def _checked(self, data: Any, count: int, named: str) -> Vectors:
        """The vectors in the order asked, of length 1. Raises ModelUnavailable for what is no answer.

        `named`: the model as the answer names it.
        """
        try:
            found = {int(item["index"]): _numbers(item["embedding"]) for item in data}
        except (TypeError, KeyError, ValueError) as error:
            raise self._nonsense(f"a vector cannot be read ({error!r})") from error
        if sorted(found) != list(range(count)) or len(data) != count:
            raise self._nonsense(f"{len(data)} vectors for {count} texts, or not each index once")
        lengths = {vector.size for vector in found.values()}
        if lengths != {self.dimensions}:
            raise WrongDimensions(self._identity(named), max(lengths - {self.dimensions}), self.dimensions)
        vectors = np.stack([found[row] for row in range(count)])
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or (norms == 0).any():
            raise self._nonsense("a vector without a direction")
        return np.asarray(vectors / norms, dtype=np.float32)

    def _nonsense(self, what: str) -> ModelUnavailable:
        return ModelUnavailable(f"{self.model_id} answered what is no answer: {what}")


def _numbers(embedding: Any) -> Vectors:
    """A list of numbers, or base64 of little-endian float32."""
    if isinstance(embedding, str):
        return np.frombuffer(b64decode(embedding, validate=True), dtype="<f4").astype(np.float32)
    return np.asarray(embedding, dtype=np.float32)


class _HttpAsking:
    """POST {url}/embeddings, again after what may pass."""

    def __init__(self, settings: EmbeddingSettings, client: httpx2.AsyncClient, url: str) -> None:
        self._settings = settings
        self._client = client
        self._url = f"{url.rstrip('/')}/embeddings"

    async def __call__(self, texts: list[str]) -> tuple[Any, str]:
        body = {"model": self._settings.model, "input": texts, "encoding_format": "base64"}
        pause = _FIRST_PAUSE
        for left in reversed(range(self._settings.retries + 1)):
            try:
                return await self._once(body)
            except ModelUnavailable:
                if left == 0:
                    raise
                await asyncio.sleep(pause)
                pause *= 2
        raise AssertionError("the last try returns or raises")

    async def _once(self, body: dict[str, Any]) -> tuple[Any, str]:
        try:
            answer = await self._client.post(self._url, json=body)
        except httpx2.HTTPError as error:
            raise ModelUnavailable(f"the embedder at {self._url} did not answer: {error!r}") from error
        if answer.status_code != 200:
            raise refusal(f"the embedder at {self._url}", answer.status_code, answer.text[:200])
        try:
            said = answer.json()
            return said["data"], str(said.get("model", ""))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelUnavailable(f"the embedder at {self._url} answered what is no answer: {error!r}") from error


def refusal(who: str, status: int | None, said: str) -> Exception:
    """Our error for an HTTP status other than 200; None: there was no answer."""
    if status in _REFUSES_US:
        return ConfigurationError(
            f"{who} refuses us ({status}: {said}): "
            "check CG_EMBEDDING__URL, CG_EMBEDDING__MODEL and CG_EMBEDDING__API_KEY"
        )
    if status in _REFUSES_IT:
        return PermanentError(f"{who} cannot take these texts ({status}: {said})")
    return ModelUnavailable(f"{who} is not available ({status}: {said})")


@asynccontextmanager
async def open_http_embedder(settings: EmbeddingSettings) -> AsyncIterator[RemoteEmbedder]:
    """The server at CG_EMBEDDING__URL; nothing is asked of it yet."""
    if settings.url is None:
        raise ConfigurationError("CG_EMBEDDING__PROVIDER is http: set CG_EMBEDDING__URL, as http://host:8090/v1")
    key = settings.api_key.get_secret_value() if settings.api_key else None
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx2.AsyncClient(timeout=settings.timeout_seconds, headers=headers) as client:
        yield RemoteEmbedder(settings, _named(settings, "http"), _HttpAsking(settings, client, settings.url))


@asynccontextmanager
async def open_litellm_embedder(settings: EmbeddingSettings) -> AsyncIterator[RemoteEmbedder]:
    """The model that litellm knows by CG_EMBEDDING__MODEL; nothing is asked of it yet."""
    load: Callable[[], ModuleType] = _litellm

    async def ask(texts: list[str]) -> tuple[Any, str]:
        litellm = await asyncio.to_thread(load)
        key = settings.api_key.get_secret_value() if settings.api_key else ("none" if settings.url else None)
        try:
            answer: Any = await litellm.aembedding(
                model=settings.model,
                input=texts,
                api_base=settings.url,
                api_key=key,
                timeout=settings.timeout_seconds,
                max_retries=settings.retries,
                encoding_format="float",
            )
        except Exception as error:
            raise refusal(settings.model, getattr(error, "status_code", None), str(error)[:200]) from error
        return [item if isinstance(item, dict) else item.model_dump() for item in answer.data], ""

    yield RemoteEmbedder(settings, _named(settings, "litellm"), ask)


def _named(settings: EmbeddingSettings, provider: str) -> str:
    return f"{settings.model.rpartition('/')[2]}/{provider}"


def _litellm() -> ModuleType:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' deprecations are not ours to mend
        import litellm  # noqa: PLC0415 - seconds of imports: at the first use, in a thread
    litellm.suppress_debug_info = True  # it would print advertisements on every error
    module: ModuleType = litellm
    return module
