"""A rebuild to a model of other dimensions, by a real server in the OpenAI form; and an erasure in the middle of it."""

from __future__ import annotations

import asyncio
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.delivery import erasing as module
from context_graph.delivery.rebuilds import ModelChoice
from context_graph.domain.erasure import Subject
from context_graph.domain.filters import NO_FILTERS
from context_graph.domain.partition import Tenant
from context_graph.ingest.erasure import Forgetting
from context_graph.models.embedder_pool import open_embedders
from context_graph.settings import Settings, VaultSettings
from context_graph.store.queries import Searcher
from tests.embedding_server import EmbeddingServer, embedding_server, vector_of
from tests.events import event
from tests.graph_state import graph_state
from tests.ledger_events import append, parsed
from tests.operating import operated_here, said
from tests.rebuilding import all_passed, caught_up, ended, tenant_of, working
from tests.scripted_server import Answer
from tests.waiting import until

CANARY = "zanzibarquartz"
DIMENSIONS = {"small": 384, "large": 96}


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with embedding_server() as served:
        served.answer = answered
        yield served


def answered(asked: dict[str, Any]) -> Answer:
    size = DIMENSIONS[asked["model"]]
    data = [{"index": i, "embedding": vector_of(text, size)} for i, text in enumerate(asked["input"])]
    return 200, {"object": "list", "model": asked["model"], "data": data}


@pytest.fixture
def settings(settings: Settings, server: EmbeddingServer) -> Settings:
    embedding = settings.embedding.model_copy(update={"provider": "http", "url": server.url, "model": "small"})
    vault = VaultSettings(master_key=SecretStr(b64encode(bytes(32)).decode()), cache_seconds=0.1)
    delivery = settings.delivery.model_copy(update={"batch_events": 10})
    return settings.model_copy(update={"embedding": embedding, "vault": vault, "delivery": delivery})


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(settings) as opened:
        yield opened


@pytest.fixture
async def tenant(resources: Resources) -> Tenant:
    tenant = await tenant_of(resources)
    raws = [
        event(
            n, session_id=f"s{n % 4}", user_id="nadia" if n % 2 else "omar",
            payload={"text": f"Parcel {n} to {CANARY if n % 2 else 'Berlin'}, says Mia Li, by the 3rd of May"},
        )
        for n in range(60)
    ]  # fmt: skip
    await append(resources.ledger, tenant.partitions[0], parsed(raws))
    return tenant


async def traces(resources: Resources, tenant: Tenant, *words: str) -> list[str]:
    """Derived keys of both generations, and the table of generations, that still hold one of these words."""
    [partition] = tenant.partitions
    table = await resources.ledger_redis.get(f"cg:{{{tenant.name}.0}}:generations")
    found = [word for word in words if word.encode() in (table or b"")]
    for generation in (1, 2):
        for key, fields in (await graph_state(resources.derived_redis, partition, generation)).items():
            text = key + " ".join([*fields, *fields.values()])
            found += [f"g{generation} {key}" for word in words if word in text]
    return found


async def test_an_erasure_waits_for_what_a_rebuild_holds_in_hand_and_not_for_its_end(
    resources: Resources, tenant: Tenant, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    [partition] = tenant.partitions
    permits = threading.Semaphore(0)

    def when_permitted(asked: dict[str, Any]) -> Answer:
        if asked["model"] == "large" and asked["input"] not in (["which model"], ["dimensions"]):
            permits.acquire(timeout=60)
        return answered(asked)

    server.answer = when_permitted
    forgetting = Forgetting(resources.erasures, resources.vault, resources.hiding, now_ms=lambda: 1_800_000_000_000)
    async with working(resources):
        await caught_up(resources, partition)
        begun = await resources.rebuilds.start(tenant, "never", ModelChoice(name="large", dimensions=96))

        async def in_hand() -> bool:
            state = await resources.groups.state(partition, "enrichment.g2")
            return state.pending >= 20 and await traces(resources, tenant, CANARY) != []

        await until(in_hand)
        erasing = asyncio.create_task(forgetting.forget(tenant, Subject("user", "nadia"), 60_000))

        async def waits() -> bool:
            return [e.waits_for for e in await resources.erasures.running(tenant)] == [
                "stages that have not passed it: enrichment.g2"
            ]

        await until(waits)
        for _ in range(2):
            permits.release()
        assert (await erasing).state == "done"
        assert not await all_passed(resources, partition, 2)
        assert await traces(resources, tenant, CANARY, "nadia") == []
        for _ in range(100):
            permits.release()
        rebuild = await ended(resources, tenant, begun.id)
        assert rebuild.comparison is not None
        assert (rebuild.state, rebuild.comparison["same_state"]) == ("ready", True)
        await resources.rebuilds.promote(tenant.name, rebuild.id)
        assert await traces(resources, tenant, CANARY, "nadia") == []


async def test_another_dimension_is_compared_promoted_searched_and_rolled_back(
    resources: Resources, tenant: Tenant
) -> None:
    [partition] = tenant.partitions
    settings = resources.settings
    async with working(resources), open_embedders(settings.embedding, settings.data_dir / "models") as pool:
        await caught_up(resources, partition)
        begun = await resources.rebuilds.start(tenant, "when equal", ModelChoice(name="large", dimensions=96))
        rebuild = await ended(resources, tenant, begun.id)
        assert rebuild.comparison is not None
        assert rebuild.state == "ready"
        report = rebuild.comparison
        assert (report["equal"], report["same_state"], report["same_model"]) == (False, True, False)

        async def nearest() -> int:
            """Dimensions of the live index, once a query by the live generation's model has found something."""
            table = await resources.generations.read(tenant.name)
            embedder = await pool.of(table.recipes[table.live])
            [vector] = await embedder.embed(["Parcel 7"])
            found = (
                await Searcher(resources.derived_redis).at(table.live).near(partition, vector.tobytes(), NO_FILTERS, 5)
            )
            assert len(found) == 5
            return len(vector)

        assert await nearest() == 384
        await resources.rebuilds.promote(tenant.name, rebuild.id)
        assert await nearest() == 96
        await resources.rebuilds.promote(tenant.name, rebuild.id)  # twice is once
        await append(resources.ledger, partition, parsed([event(100, payload={"text": "Parcel 100 came later"})]))
        await caught_up(resources, partition, 1)
        await caught_up(resources, partition, 2)
        await resources.rebuilds.roll_back(tenant.name, rebuild.id)
        assert await nearest() == 384
        answers = [await resources.index.at(number).read_answers(partition, ["e100"]) for number in (1, 2)]
        assert [len(answer.vector) // 4 for [answer] in answers if answer is not None] == [384, 96]


async def test_what_the_live_generation_lacks_is_said_in_words_and_no_bytes_reach_the_terminal(
    resources: Resources, tenant: Tenant, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [partition] = tenant.partitions
    operated_here(resources.settings, monkeypatch, tmp_path)
    async with working(resources):
        await caught_up(resources, partition)
        server.answer = lambda asked: (503, {"error": "away"}) if asked["model"] == "small" else answered(asked)
        await append(resources.ledger, partition, parsed([event(100, payload={"text": "Parcel 100 came later"})]))

        async def put_off() -> bool:
            state = await resources.groups.state(partition, "enrichment")
            return (state.lag, state.pending, state.again) == (0, 0, 1)

        await until(put_off, seconds=30)
        words = ("--provider", "http", "--url", server.url, "--model", "large", "--dimensions", "96", "--promote")
        switched = await said("rebuild", *words, "--tenant", tenant.name)
        assert switched.exit_code == 0, switched.output
        back = await said("rebuild", "rollback", "--tenant", tenant.name)
    for told, state in ((switched.stdout, "promoted"), (back.stdout, "rolled back")):
        assert f": {state}; " in told
        assert "vector e100: differs in" in told
        assert '"h":"0x' in told
        assert "the same but for what the live generation lacks (vector 1), as expected" in told
        assert "not equal" not in told
        assert "\ufffd" not in told
        assert all(line.isprintable() for line in told.splitlines())
