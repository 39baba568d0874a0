"""Short texts of concurrent callers go into one call of the model, and each caller gets its own vector or error."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest

from context_graph.errors import ModelUnavailable
from context_graph.models.embedder import Embedder
from context_graph.models.embedder_pool import EmbedderPool, open_embedders
from context_graph.settings import EmbeddingSettings
from tests.embedding_server import EmbeddingServer, embedding_server, vector_of
from tests.waiting import until


def _settings(server: EmbeddingServer) -> EmbeddingSettings:
    return EmbeddingSettings(provider="http", url=server.url, retries=0)


async def _opened(pool: EmbedderPool, server: EmbeddingServer) -> Embedder:
    """The embedder, once it has asked the server which model it has."""
    embedder = await pool.of(None)
    await embedder.embed(["hello"])
    server.requests.clear()
    return embedder


async def test_texts_that_come_while_the_model_works_are_embedded_together(tmp_path: Path) -> None:
    texts = [f"question {number}" for number in range(9)]
    with embedding_server() as server:
        async with open_embedders(_settings(server), tmp_path) as pool:
            embedder = await _opened(pool, server)
            server.slow = threading.Event()
            asking = [asyncio.create_task(embedder.embed(texts[:1]))]
            await until(lambda: bool(server.requests))
            asking += [asyncio.create_task(embedder.embed([text])) for text in texts[1:]]
            await asyncio.sleep(0)  # all of them have asked
            asking.pop(4).cancel()
            server.slow.set()
            found = await asyncio.gather(*asking)
    assert [request["input"] for request in server.requests] == [texts[:1], texts[1:4] + texts[5:]]
    for text, vectors in zip(texts[:4] + texts[5:], found, strict=True):
        expected = np.array(vector_of(text))
        assert vectors.shape == (1, 384)
        assert vectors[0] @ (expected / np.linalg.norm(expected)) > 0.9999


async def test_long_texts_and_many_texts_go_by_themselves(tmp_path: Path) -> None:
    with embedding_server() as server:
        async with open_embedders(_settings(server), tmp_path) as pool:
            embedder = await _opened(pool, server)
            await asyncio.gather(embedder.embed(["long " * 100]), embedder.embed(["a", "b"]), embedder.embed(["short"]))
    assert sorted(len(request["input"]) for request in server.requests) == [1, 1, 2]


async def test_a_failed_call_fails_for_all_in_it_and_for_nobody_after_it(tmp_path: Path) -> None:
    with embedding_server() as server:
        async with open_embedders(_settings(server), tmp_path) as pool:
            embedder = await _opened(pool, server)
            right, server.answer = server.answer, lambda asked: (500, {"error": "broken"})
            failed = await asyncio.gather(*(embedder.embed([f"q {n}"]) for n in range(3)), return_exceptions=True)
            assert [type(error) for error in failed] == [ModelUnavailable] * 3
            server.answer = right
            assert (await embedder.embed(["again"])).shape == (1, 384)


async def test_who_still_waits_when_the_models_close_is_let_go(tmp_path: Path) -> None:
    with embedding_server() as server:
        async with open_embedders(_settings(server), tmp_path) as pool:
            embedder = await _opened(pool, server)
            server.slow = threading.Event()
            asking = [asyncio.create_task(embedder.embed([f"q {n}"])) for n in range(2)]
            await until(lambda: bool(server.requests))
        server.slow.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.gather(*asking)
