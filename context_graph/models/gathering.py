"""Short texts of several callers in one call of the model.

A query is embedded alone while nobody else asks; those that arrive while the model works wait for it together and go
into its next call: eight short texts at once take two thirds of what they take one by one. Long texts go by
themselves, because a batch costs as much as its longest. What comes as many texts already is passed on as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from context_graph.models.embedder import Embedder, Vectors

_SHORT = 200  # characters: some 40 tokens, so that padding to the longest costs little
_MOST = 16  # texts of one call, so that nobody waits for a crowd


class Gathering:
    """An embedder that embeds single texts of its callers together."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._waiting: list[tuple[str, asyncio.Future[Vectors]]] = []
        self._working: asyncio.Task[None] | None = None

    @property
    def model_id(self) -> str:
        return self._embedder.model_id

    @property
    def dimensions(self) -> int:
        return self._embedder.dimensions

    async def identify(self, *, anew: bool = False) -> str:
        """See `Embedder.identify`."""
        return await self._embedder.identify(anew=anew)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`."""
        if len(texts) != 1 or len(texts[0]) > _SHORT:
            return await self._embedder.embed(texts)
        vectors: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._waiting.append((texts[0], vectors))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work(), name="short texts of several callers")
        return await vectors

    async def end(self) -> None:
        """Let go of those who still wait."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)
        for _, vectors in self._waiting:
            vectors.cancel()

    async def _work(self) -> None:
        while self._waiting:
            chosen, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            asked = [(text, vectors) for text, vectors in chosen if not vectors.done()]  # done: its caller has gone
            try:
                await self._answer(asked)
            finally:
                for _, vectors in asked:  # those of a call that was cut off
                    vectors.cancel()

    async def _answer(self, asked: Sequence[tuple[str, asyncio.Future[Vectors]]]) -> None:
        """One call of the model. Whatever it raises is the outcome of everybody who asked."""
        try:
            made = await self._embedder.embed([text for text, _ in asked])
        except Exception as error:  # noqa: BLE001 - whatever it is, each caller gets it as its own
            for _, vectors in asked:
                if not vectors.done():
                    vectors.set_exception(error)
            return
        for row, (_, vectors) in enumerate(asked):
            if not vectors.done():
                vectors.set_result(made[row : row + 1])


@asynccontextmanager
async def gathering(embedder: Embedder) -> AsyncIterator[Embedder]:
    """The embedder with its short texts gathered."""
    gathered = Gathering(embedder)
    try:
        yield gathered
    finally:
        await gathered.end()
