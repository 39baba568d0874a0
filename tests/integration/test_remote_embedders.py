"""Embedders that are somewhere else: the sidecar, a server that fails, is slow or talks nonsense, and litellm."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import uvicorn
from pydantic import SecretStr

from context_graph.api.embedder_app import create_embedder_app
from context_graph.bootstrap import Resources
from context_graph.domain.event import TenantId
from context_graph.domain.filters import NO_FILTERS
from context_graph.domain.partition import Partition
from context_graph.errors import ConfigurationError, ModelMissing, ModelUnavailable
from context_graph.models.opening import open_embedder
from context_graph.settings import EmbeddingSettings, Settings
from context_graph.store.queries import Searcher
from enrichment.worker import run
from tests.embedding_server import EmbeddingServer, embedding_server, right, vector_of
from tests.ledger_events import append, envelope
from tests.waiting import until

PARTITION = Partition(TenantId("default"), 0)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with embedding_server() as served:
        yield served


def remote(url: str, **changes: Any) -> EmbeddingSettings:
    return EmbeddingSettings(provider="http", url=url, timeout_seconds=5).model_copy(update=changes)


@asynccontextmanager
async def sidecar(settings: Settings) -> AsyncIterator[str]:
    config = uvicorn.Config(create_embedder_app(settings), host="127.0.0.1", port=0, log_config=None)
    serving = uvicorn.Server(config)
    task = asyncio.create_task(serving.serve(), name="sidecar")

    async def started() -> bool:
        return serving.started

    await until(started)
    try:
        yield f"http://127.0.0.1:{serving.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        serving.should_exit = True
        await task


async def test_the_sidecar_answers_what_the_model_would(tmp_path: Path) -> None:
    texts = ["A man plays guitar", "", "Shares fell on Monday", "long " * 500]
    settings = Settings(data_dir=tmp_path, embedding=EmbeddingSettings(api_key=SecretStr("sesame")))
    async with open_embedder(EmbeddingSettings(), tmp_path / "models") as local:
        expected = await local.embed(texts)
    async with sidecar(settings) as url:
        async with open_embedder(remote(url, api_key=SecretStr("sesame"), batch_texts=2), tmp_path) as embedder:
            vectors = await embedder.embed(texts)
        async with open_embedder(remote(url, api_key=SecretStr("wrong")), tmp_path) as embedder:
            with pytest.raises(ConfigurationError, match=r"refuses us.*CG_EMBEDDING__API_KEY"):
                await embedder.embed(["x"])
    assert (vectors * expected).sum(axis=1).min() > 0.9999


async def test_the_sidecar_refuses_in_the_openai_form(tmp_path: Path) -> None:
    async with sidecar(Settings(data_dir=tmp_path)) as url, httpx2.AsyncClient() as client:
        for body, status, word in (({"input": []}, 422, "input"), ({"input": "a", "dimensions": 7}, 400, "384")):
            answer = await client.post(f"{url}/embeddings", json=body)
            assert answer.status_code == status
            assert word in answer.json()["error"]["message"]
            assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_vectors_come_in_the_order_of_the_texts(server: EmbeddingServer, tmp_path: Path) -> None:
    texts = [f"text {number}" + " more" * (number % 5) for number in range(70)]
    async with open_embedder(remote(server.url, api_key=SecretStr("k")), tmp_path) as embedder:
        vectors = await embedder.embed(texts)
    wanted = np.array([vector_of(text) for text in texts])
    np.testing.assert_allclose(vectors, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), rtol=1e-5)
    assert max(len(asked["input"]) for asked in server.requests) <= 32
    assert server.headers[0]["authorization"] == "Bearer k"
    assert embedder.model_id == "scripted/http"


async def test_another_model_behind_the_same_url_is_another_identity(server: EmbeddingServer, tmp_path: Path) -> None:
    def named(model: str) -> Callable[[dict[str, Any]], Any]:
        return lambda asked: (200, right(asked)[1] | {"model": model})

    async with open_embedder(remote(server.url), tmp_path) as embedder:
        for told, identity in (
            ("big/model-a", "model-a/http"),
            ("model-b", "model-b/http"),
            ("", "all-MiniLM-L6-v2/http"),
        ):
            server.answer = named(told)
            assert await embedder.identify(anew=True) == identity
        server.answer = named("model-b")
        with pytest.raises(ModelMissing, match="model-b/http: their vectors do not compare"):
            await embedder.embed(["a"])


async def test_what_may_pass_is_tried_again(server: EmbeddingServer, tmp_path: Path) -> None:
    answers: Iterator[Any] = iter([(503, {}), (429, {}), None])

    def answer(asked: dict[str, Any]) -> Any:
        return next(answers) or right(asked)

    server.answer = answer
    async with open_embedder(remote(server.url), tmp_path) as embedder:
        assert (await embedder.embed(["a"])).shape == (1, 384)
    assert len(server.requests) == 3


def _item(index: int, embedding: Any) -> dict[str, Any]:
    return {"index": index, "embedding": embedding}


@pytest.mark.parametrize(
    "said",
    [
        b"<html>",
        {"no": "data"},
        {"data": []},
        {"data": [_item(0, vector_of("a"))] * 2},
        {"data": [_item(0, vector_of("a")), _item(2, vector_of("a"))]},
        {"data": [_item(0, "???"), _item(1, vector_of("a"))]},
        {"data": [_item(0, [float("nan")] * 384), _item(1, vector_of("a"))]},
        {"data": [_item(0, [0.0] * 384), _item(1, vector_of("a"))]},
        {"data": None},
    ],
)
async def test_nonsense_is_not_believed(server: EmbeddingServer, tmp_path: Path, said: Any) -> None:
    server.answer = lambda _: (200, said)
    async with open_embedder(remote(server.url, retries=0), tmp_path) as embedder:
        with pytest.raises(ModelUnavailable):
            await embedder.embed(["a", "b"])


async def test_a_slow_and_an_absent_server_are_unavailable(server: EmbeddingServer, tmp_path: Path) -> None:
    server.slow = threading.Event()
    async with open_embedder(remote(server.url, retries=0, timeout_seconds=0.2), tmp_path) as embedder:
        with pytest.raises(ModelUnavailable, match="did not answer"):
            await embedder.embed(["a"])
    server.slow.set()
    async with open_embedder(remote("http://127.0.0.1:9/v1", retries=1), tmp_path) as embedder:
        with pytest.raises(ModelUnavailable, match="did not answer"):
            await embedder.embed(["a"])


async def test_another_dimension_is_refused_with_the_way_out(server: EmbeddingServer, tmp_path: Path) -> None:
    server.answer = lambda asked: (200, {"data": [_item(i, [1.0] * 768) for i in range(len(asked["input"]))]})
    async with open_embedder(remote(server.url), tmp_path) as embedder:
        with pytest.raises(ConfigurationError, match=r"makes 768 dimensions.*rebuild"):
            await embedder.embed(["a"])


async def test_a_provider_without_its_address_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="CG_EMBEDDING__URL"):
        async with open_embedder(EmbeddingSettings(provider="http"), tmp_path):
            pass


async def test_litellm_reaches_a_server_in_the_openai_form(server: EmbeddingServer, tmp_path: Path) -> None:
    settings = EmbeddingSettings(provider="litellm", model="openai/scripted", url=server.url, retries=0)
    async with open_embedder(settings, tmp_path) as embedder:
        vectors = await embedder.embed(["a", "bb"])
        wanted = np.array([vector_of("a"), vector_of("bb")])
        np.testing.assert_allclose(vectors, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), rtol=1e-5)
        assert embedder.model_id == "scripted/litellm"
        server.answer = lambda _: (503, {"error": {"message": "busy"}})
        with pytest.raises(ModelUnavailable):
            await embedder.embed(["c"])
        server.answer = lambda _: (401, {"error": {"message": "who are you"}})
        with pytest.raises(ConfigurationError):
            await embedder.embed(["c"])


async def test_while_the_embedder_is_away_events_are_found_by_text_and_get_their_vectors_later(
    server: EmbeddingServer, resources: Resources
) -> None:
    server.answer = lambda _: (503, {"error": "away"})
    embedding = remote(server.url, retries=0)
    there = replace(resources, settings=resources.settings.model_copy(update={"embedding": embedding}))
    await resources.tenants.ensure(PARTITION.tenant, 1)
    events = [envelope(number, payload={"text": f"parcel number {number}"}) for number in range(5)]
    await append(resources.ledger, PARTITION, events)
    stop = asyncio.Event()

    async def by_text() -> bool:
        found = await Searcher(resources.derived_redis).matching(PARTITION, ["parcel"], NO_FILTERS, 10)
        return len(found) == 5

    async def asked() -> bool:
        return len(server.requests) >= 3

    async def vectors() -> bool:
        return (await resources.index.statistics(PARTITION)).vectors == 5

    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(run(there, stop), name="worker")
        await until(by_text)
        await until(asked)
        assert not await vectors()
        server.answer = right
        await until(vectors)
        stop.set()
        async with asyncio.timeout(10):
            await working
    assert await resources.dead_letters.count(PARTITION) == 0
