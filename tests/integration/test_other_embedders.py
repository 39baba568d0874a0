"""Another embedder behind old data: the same model by a server just works; another one costs meaning, not words."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from context_graph.bootstrap import Resources
from context_graph.cli.doctor import gather
from context_graph.delivery.rebuilds import ModelChoice
from context_graph.domain.generations import without_secrets
from context_graph.local.checks import examine
from context_graph.models.opening import open_embedder
from context_graph.settings import EmbeddingSettings, Settings
from tests.embedding_server import embedding_server, vector_of
from tests.events import event, post_all, settled
from tests.scripted_server import Answer
from tests.service import own_redis, own_service
from tests.waiting import until

QUERY = {"query": "where is the blue parcel?"}


def by(url: str, **changes: Any) -> EmbeddingSettings:
    return EmbeddingSettings(provider="http", url=url, retries=0, timeout_seconds=5, **changes)


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[Settings]:
    async with own_redis(tmp_path) as settings:
        yield settings


async def search(http: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await http.post("/v1/search", json={**QUERY, **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def ready(http: httpx2.AsyncClient) -> tuple[int, dict[str, Any]]:
    answer = await http.get("/health/ready")
    return answer.status_code, dict(answer.json())


async def test_the_service_starts_takes_events_and_finds_words_while_the_embedder_is_away(settings: Settings) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    away = settings.model_copy(update={"embedding": by(nobody)})
    async with own_service(away) as (http, _):
        await post_all(http, [event(1, payload={"text": "The blue parcel is at the pier"})])

        async def found() -> bool:
            return len((await search(http))["results"]) == 1

        await until(found)
        assert (await search(http))["meta"]["complete"] is False
        asked = {"start": [{"kind": "event", "id": "e1"}], "edges": ["SIMILAR_TO"], "max_depth": 1}
        meta = (await http.post("/v1/graph/query", json=asked)).json()["meta"]
        assert (meta["complete"], meta["truncated"]) == (False, ["vectors"]), "what is near it is not known yet"
        status, body = await ready(http)
        assert status == 200, body
        assert any("the embedder" in note for note in body["notes"])


def told(name: str, dimensions: int) -> Any:
    """An answer by a server that calls its model so."""

    def answer(asked: dict[str, Any]) -> Answer:
        data = [{"index": i, "embedding": vector_of(text, dimensions)} for i, text in enumerate(asked["input"])]
        return 200, {"object": "list", "model": name, "data": data}

    return answer


async def test_old_data_goes_on_with_the_same_model_by_a_server_and_waits_for_it_with_another(
    settings: Settings, tmp_path: Path
) -> None:
    async with own_service(settings) as (http, _):
        await settled(http, await post_all(http, [event(1, payload={"text": "The blue parcel is at the pier"})]))
    async with open_embedder(settings.embedding, tmp_path) as packaged:
        same = packaged.model_id
    with embedding_server() as server:
        server.answer = told(same, 384)
        remote = settings.model_copy(update={"embedding": by(server.url)})
        async with own_service(remote) as (http, resources):
            assert (await search(http, mode="semantic"))["meta"]["complete"] is True
            assert (await ready(http))[1]["problems"] == []
            for dimensions in (384, 8):
                server.answer = told("foreign", dimensions)
                await _words_alone(http, f"foreign {dimensions}", 2 if dimensions == 384 else 3)
            findings = examine(await gather(remote))
            assert any(f.level == "wrong" and "rebuild --provider http" in f.words for f in findings)
            await _rebuilt_with_the_other_one(http, resources)
            server.answer = told(same, 384)


async def _words_alone(http: httpx2.AsyncClient, text: str, number: int) -> None:
    await post_all(http, [event(number, payload={"text": f"The blue parcel was seen, {text}"})])

    async def indexed() -> bool:
        return len((await search(http))["results"]) == number

    await until(indexed)
    answer = await search(http)
    assert answer["meta"]["complete"] is False
    context = await http.post("/v1/context", json={**QUERY, "token_budget": 300})
    assert context.status_code == 200
    assert context.json()["meta"]["complete"] is False
    assert (await http.post("/v1/search", json={**QUERY, "mode": "semantic"})).status_code == 503
    status, body = await ready(http)
    assert status == 503
    assert any("context-graph rebuild --provider http" in problem for problem in body["problems"])


async def _rebuilt_with_the_other_one(http: httpx2.AsyncClient, resources: Resources) -> None:
    """Two events have no vectors in the live generation and never will: that keeps nobody from the way out."""
    begun = await http.post("/v1/admin/projections/all/rebuild", json={"provider": "http", "dimensions": 8})
    assert begun.status_code == 202, begun.text
    where = f"/v1/admin/rebuilds/{begun.json()['id']}"

    async def built() -> bool:
        return bool((await http.get(where)).json()["state"] == "ready")

    await until(built, seconds=30)
    known = (await http.get(where)).json()
    assert (known["equal"], known["waits_for"]) == (False, None)
    lacks = known["comparison"]["live_lacks"]
    assert lacks["events"] >= 2, "and what of the receipts of the two contexts has not been looked at yet"
    assert "put the right model there, or make a generation with another one" in lacks["reason"]
    [tenant] = await resources.tenants.all()
    recipe = (await resources.generations.read(tenant.name)).recipes[known["generation"]]
    assert (recipe.provider, recipe.dimensions) == ("http", 8)

    async def by_meaning(status: int) -> bool:
        answer = await http.post("/v1/search", json={**QUERY, "mode": "semantic"})
        return answer.status_code == status and (status != 200 or len(answer.json()["results"]) == 3)

    assert (await http.post(f"{where}/promote")).status_code == 200
    await until(lambda: by_meaning(200))
    assert (await search(http))["meta"]["complete"] is True
    assert (await http.post(f"{where}/rollback")).status_code == 200
    await until(lambda: by_meaning(503))
    assert len((await search(http))["results"]) == 3, "the words of the old generation are read as before"
    assert (await http.post(f"{where}/promote")).status_code == 200
    await until(lambda: by_meaning(200))


async def test_a_rebuild_says_that_its_own_embedder_is_away_and_goes_on_when_it_answers(settings: Settings) -> None:
    with embedding_server() as server:
        server.answer = lambda _asked: (503, {"error": "warming"})
        remote = settings.model_copy(update={"embedding": by(server.url)})
        async with own_service(settings) as (http, _):
            await settled(http, await post_all(http, [event(1, payload={"text": "The blue parcel is at the pier"})]))
        async with own_service(remote) as (http, resources):
            [tenant] = await resources.tenants.all()
            begun = await resources.rebuilds.start(tenant, "never", ModelChoice(provider="http", dimensions=8))

            async def told_why() -> bool:
                known = (await http.get(f"/v1/admin/rebuilds/{begun.id}")).json()
                return known["state"] == "building" and "is not available (503" in (known["waits_for"] or "")

            await until(told_why, seconds=30)
            server.answer = told("foreign", 8)

            async def built() -> bool:
                known = (await http.get(f"/v1/admin/rebuilds/{begun.id}")).json()
                return bool(known["state"] == "ready")

            await until(built, seconds=40)


def test_a_recipe_holds_no_secret_of_an_address() -> None:
    assert without_secrets("https://me:secret@host:8090/v1?key=secret") == "https://host:8090/v1"
