"""A model that goes away takes the meaning from an answer, not the words; who is in a hurry waits for these alone."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from context_graph.bootstrap import open_resources
from context_graph.cli.doctor import gather
from context_graph.errors import NotNow
from context_graph.local.checks import examine
from context_graph.operations import load_verify
from context_graph.settings import EmbeddingSettings, RetrievalSettings, Settings
from tests.embedding_server import EmbeddingServer, embedding_server, right, vector_of
from tests.events import event, post_all, settled
from tests.scripted_server import Answer
from tests.service import own_redis, own_service
from tests.waiting import until

AWAY = "vectors: the embedder did not answer"
MISSING = "enrichment has not passed min_position"


@pytest.fixture
async def model() -> AsyncIterator[AsyncExitStack]:
    """A server of embeddings; closing the stack takes it away."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def served(model: AsyncExitStack) -> EmbeddingServer:
    return model.enter_context(embedding_server())


@pytest.fixture
async def settings(served: EmbeddingServer, tmp_path: Path) -> AsyncIterator[Settings]:
    """Of a service of its own that embeds by that server."""
    embedding = EmbeddingSettings(provider="http", url=served.url, retries=0)
    async with own_redis(
        tmp_path, embedding=embedding, retrieval=RetrievalSettings(embedder_rest_seconds=2)
    ) as settings:
        yield settings


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """That service."""
    async with own_service(settings) as (client, _):
        yield client


async def asked(http: httpx2.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    answer = await http.post(path, json={"query": "where is the blue parcel?", **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_text_is_served_while_the_embedder_is_away(http: httpx2.AsyncClient, model: AsyncExitStack) -> None:
    await settled(
        http, await post_all(http, [event(1, event_id="old", payload={"text": "The blue parcel is in Graz."})])
    )
    whole = await asked(http, "/v1/search")
    assert (whole["meta"]["complete"], whole["meta"]["truncated"]) == (True, [])
    await model.aclose()

    for path, listed in (("/v1/context", "items"), ("/v1/search", "results")):
        served = await asked(http, path)
        assert [one["id"] for one in served[listed]] == ["old"]
        assert (served["meta"]["complete"], served["meta"]["truncated"]) == (False, [AWAY])
    refused = await http.post("/v1/search", json={"query": "parcel", "mode": "semantic"})
    assert (refused.status_code, refused.json()["code"]) == (503, "model-unavailable"), "there is nothing else to serve"

    new = await post_all(http, [event(2, event_id="new", payload={"text": "Another blue parcel has come."})])
    behind = {"min_position": new[0]["position"], "mode": "keyword"}
    found = await asked(http, "/v1/search", **behind, wait_for="text", wait_ms=60_000)
    assert {one["id"] for one in found["results"]} == {"old", "new"}
    assert (found["meta"]["complete"], found["meta"]["behind"]) == (True, ["enrichment"])
    late = await asked(http, "/v1/search", **behind, wait_ms=50)
    assert (late["meta"]["complete"], late["meta"]["truncated"]) == (False, [MISSING])
    graph = await asked(http, "/v1/context", min_position=behind["min_position"], wait_for="graph", wait_ms=60_000)
    assert MISSING not in graph["meta"]["truncated"]
    assert "enrichment" in graph["meta"]["behind"]


async def test_queries_leave_an_embedder_alone_that_did_not_answer_until_one_tries_again(
    http: httpx2.AsyncClient, served: EmbeddingServer
) -> None:
    await settled(
        http, await post_all(http, [event(1, event_id="old", payload={"text": "The blue parcel is in Graz."})])
    )
    served.answer = lambda asked: (503, {"error": "away"})
    before = len(served.requests)
    for _ in range(4):
        assert (await asked(http, "/v1/context"))["meta"]["truncated"] == [AWAY]
    assert len(served.requests) == before + 1, "the first asked, the others did not"
    counted = (await http.get("/metrics")).text
    assert 'cg_queries_not_embedded_total{reason="away"} 1.0' in counted
    assert 'cg_queries_not_embedded_total{reason="resting"} 3.0' in counted
    served.answer = right

    async def back() -> bool:
        return bool((await asked(http, "/v1/context"))["meta"]["truncated"] == [])

    await until(back)
    assert (await asked(http, "/v1/search", mode="semantic"))["meta"]["complete"]


def of_another_model(asked: dict[str, Any]) -> Answer:
    data = [{"index": i, "embedding": vector_of(text, 512)} for i, text in enumerate(asked["input"])]
    return 200, {"model": "another", "data": data}


async def test_readiness_and_the_doctor_have_one_verdict_of_an_embedder(
    http: httpx2.AsyncClient, settings: Settings, served: EmbeddingServer, model: AsyncExitStack
) -> None:
    await settled(http, await post_all(http, [event(1, event_id="old", payload={"text": "The parcel is in Graz."})]))

    async def said() -> list[tuple[str, str]]:
        """Level and sentence of what both say about models."""
        ready = (await http.get("/health/ready")).json()
        told = [("wrong", one) for one in ready["problems"]] + [("warn", one) for one in ready["notes"]]
        findings = examine(await gather(settings))
        doctor = [(str(one.level), one.sentence) for one in findings if one.subject == "models" and one.level != "ok"]
        assert doctor == [(level, sentence) for level, sentence in told if "embedder" in sentence or "512" in sentence]
        return doctor

    assert await said() == []
    served.answer = of_another_model
    [(level, sentence)] = await said()
    assert level == "wrong"
    assert "another/http makes 512" in sentence
    assert "context-graph rebuild --provider http" in sentence
    assert "extra" not in sentence
    served.answer = right
    assert await said() == []
    await model.aclose()
    [(level, sentence)] = await said()
    assert level == "warn"
    assert "did not answer" in sentence
    assert "mend CG_EMBEDDING__URL" in sentence


async def test_verify_says_at_once_that_the_stages_wait_for_the_embedder(
    http: httpx2.AsyncClient, settings: Settings, model: AsyncExitStack
) -> None:
    await settled(http, await post_all(http, [event(1, event_id="old", payload={"text": "The parcel is in Graz."})]))
    await model.aclose()
    await post_all(http, [event(n, payload={"text": f"Parcel {n} has come."}) for n in (2, 3)])
    async with open_resources(settings) as resources:
        tenant = await resources.tenants.ensure(settings.tenant, 1)

        async def put_off() -> bool:
            state = await resources.groups.state(tenant.partitions[0], "enrichment")
            return (state.lag, state.pending, state.again) == (0, 0, 2)

        await until(put_off, seconds=60)
        began = time.monotonic()
        with pytest.raises(NotNow, match=r"enrichment by 2 events\) and wait for the embedder: .*did not answer"):
            await load_verify()(resources, tenant)
        assert time.monotonic() - began < 5
