"""Stage 2 end to end: events in the ledger become findable by text, meaning and entity; real models, real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.document import filter_tag
from context_graph.domain.event import Envelope, EventId, JsonValue, LedgerEvent, SessionId, TenantId
from context_graph.domain.filters import NO_FILTERS
from context_graph.domain.forgetting import Place
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.errors import ModelUnavailable, PartlyDone
from context_graph.models.embedder import Vectors
from context_graph.models.opening import open_embedder
from context_graph.models.recogniser import open_recogniser
from context_graph.store import codec
from context_graph.store.documents import model_mark, vector_bytes
from context_graph.store.forgotten import Forgotten
from context_graph.store.keys import GraphKeys
from context_graph.store.ledger import Appendable
from context_graph.store.queries import Searcher
from enrichment.enrich import EnrichmentHandler
from enrichment.indexing import IndexingHandler
from enrichment.worker import run
from tests.waiting import until

PARTITION = Partition(TenantId("default"), 0)
KEYS = GraphKeys(PARTITION)


def envelope(event_id: str, event_type: str, payload: JsonValue, *, tool_name: str | None = None) -> Envelope:
    return Envelope(
        event_id=EventId(event_id),
        event_type=event_type,
        session_id=SessionId("s1"),
        agent_id="support",
        occurred_at=1_700_000_000_000 + int(event_id[1:]),
        payload=payload,
        tool_name=tool_name,
    )


ENVELOPES = (
    envelope("e1", "user.message", {"text": "My parcel #W7209932 has not arrived, says Mia Li from Seattle."}),
    envelope("e2", "tool.call", {"arguments": {"order_id": "#W7209932"}}, tool_name="track_parcel"),
    envelope("e3", "tool.result", {"error": "carrier timeout"}, tool_name="track_parcel"),
    envelope("e4", "agent.message", {"text": "The sourdough bread needs eight hours to rise."}),
    envelope("e5", "memory.receipt", {"items": ["e1"]}),
)
EVENTS = [LedgerEvent(PARTITION.tenant, Position(0, 1000 + i, 0), event) for i, event in enumerate(ENVELOPES)]


class _Away:
    """An embedder whose model does not answer."""

    model_id = "away"
    dimensions = 384

    async def identify(self, *, anew: bool = False) -> str:
        return self.model_id

    async def embed(self, texts: Any) -> Vectors:
        raise ModelUnavailable("the model server is away")


async def search(resources: Resources, index: str, query: str, *arguments: str | bytes | int) -> list[str]:
    command: Callable[..., Awaitable[Any]] = resources.derived_redis.execute_command
    answer = await command("FT.SEARCH", index, query, "NOCONTENT", *arguments, "DIALECT", 2)
    return [key.decode() for key in answer[1:]]


async def test_the_indexing_makes_content_findable_and_leaves_receipts_out(resources: Resources) -> None:
    await IndexingHandler(resources.index).handle(PARTITION, EVENTS)
    assert await search(resources, KEYS.text_index, "parcel") != []
    assert await search(resources, KEYS.text_index, "@text:carrier @speaker:track_parcel") == [KEYS.document("e3")]
    stored = await resources.index.read_documents(PARTITION, ["e1", "e3", "e5"])
    assert stored[2] is None
    assert stored[0] is not None
    assert stored[1] is not None
    assert stored[1].document.importance > stored[0].document.importance


async def test_the_enrichment_makes_meaning_and_entities_findable(resources: Resources, tmp_path: Path) -> None:
    settings = resources.settings
    async with (
        open_embedder(settings.embedding, tmp_path) as embedder,
        open_recogniser(settings.entities) as recogniser,
    ):
        await EnrichmentHandler(resources.index, embedder, recogniser).handle(PARTITION, EVENTS)
        query = vector_bytes((await embedder.embed(["baking a loaf"]))[0].tobytes())
    nearest = ("PARAMS", 2, "q", query, "SORTBY", "d", "LIMIT", 0, 1)
    assert await search(resources, KEYS.vector_index, "*=>[KNN 1 @vec $q AS d]", *nearest) == [KEYS.vector("e4")]
    order = f"@entity:{{{filter_tag('id:w7209932')}}}"
    assert set(await search(resources, KEYS.vector_index, order)) == {KEYS.vector("e1"), KEYS.vector("e2")}
    timeline = await resources.graph.timeline(PARTITION, "entity", "id:w7209932")
    assert [entry.event_id for entry in timeline] == ["e1", "e2"]
    redis: Any = resources.derived_redis
    registry = set(await redis.zrange(KEYS.registry("entity"), 0, -1))
    assert {b"id:w7209932", b"person:mia li", b"place:seattle", b"tool:track_parcel"} <= registry
    vector = await redis.hgetall(KEYS.vector("e1"))
    assert vector[b"n"] == model_mark(embedder.model_id)
    assert np.frombuffer(vector[b"x"], dtype=np.float16).shape == (384,)


async def test_while_the_embedder_is_away_entities_are_stored_alone_unless_nobody_reads_them(
    resources: Resources,
) -> None:
    async with open_recogniser(resources.settings.entities) as recogniser:
        with pytest.raises(ModelUnavailable):
            await EnrichmentHandler(resources.index, _Away(), recogniser, waits=True).handle(PARTITION, EVENTS)
        assert (await resources.index.statistics(PARTITION)).vectors == 0
        with pytest.raises(PartlyDone):
            await EnrichmentHandler(resources.index, _Away(), recogniser).handle(PARTITION, EVENTS)
    assert await resources.index.read_vectors(PARTITION, ["e1", "e2", "e3", "e4"]) == {}
    order = f"@entity:{{{filter_tag('id:w7209932')}}}"
    assert set(await search(resources, KEYS.vector_index, order)) == {KEYS.vector("e1"), KEYS.vector("e2")}


async def append(resources: Resources) -> None:
    await resources.tenants.ensure(PARTITION.tenant, 1)
    appendables = [Appendable(event.event_id, event.session_id, codec.encode(event)) for event in ENVELOPES]
    await resources.ledger.append(PARTITION, appendables)


async def test_the_worker_follows_the_ledger_and_stops_when_asked(resources: Resources) -> None:
    await append(resources)
    stop = asyncio.Event()

    async def complete() -> bool:
        statistics = await resources.index.statistics(PARTITION)
        return (statistics.documents, statistics.vectors) == (4, 4)

    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(run(resources, stop), name="worker")
        await until(complete)
        stop.set()
        async with asyncio.timeout(10):
            await working
    assert await resources.dead_letters.count(PARTITION) == 0


async def test_a_model_of_other_dimensions_costs_vectors_not_text_nor_the_worker(resources: Resources) -> None:
    await append(resources)
    embedding = resources.settings.embedding.model_copy(update={"dimensions": 768})
    wrong = resources.settings.model_copy(update={"embedding": embedding})
    stop = asyncio.Event()
    working = asyncio.create_task(run(replace(resources, settings=wrong), stop))
    try:

        async def waiting() -> bool:
            state = await resources.groups.state(PARTITION, "enrichment")
            return state.again > 0 and all(await resources.index.read_documents(PARTITION, ["e1", "e3"]))

        await until(waiting)
        assert not working.done()
        assert await resources.generations.recipe(PARTITION.tenant, 1) is None, "the wrong number is not written down"
    finally:
        stop.set()
        async with asyncio.timeout(15):
            await working


_LONG = "\n".join(f"line {number} of the build log: step done" for number in range(60))


async def test_a_long_text_is_found_by_its_best_passage_and_counts_once(resources: Resources, tmp_path: Path) -> None:
    texts = (
        f"{_LONG}\nThe oven was at 250 degrees when the sourdough bread burned.",
        f"{_LONG}\nAll tests passed, nothing else was said.",
        "Shares fell on Monday",
    )
    known = [envelope(f"e{number}", "user.message", {"text": text}) for number, text in enumerate(texts)]
    events = [LedgerEvent(PARTITION.tenant, Position(0, 2000 + i, 0), event) for i, event in enumerate(known)]
    settings = resources.settings
    async with (
        open_embedder(settings.embedding, tmp_path) as embedder,
        open_recogniser(settings.entities) as recogniser,
    ):
        handler = EnrichmentHandler(resources.index, embedder, recogniser, passages=3)
        await handler.handle(PARTITION, events)
        await handler.handle(PARTITION, events)
        query = (await embedder.embed(["baking bread at home"]))[0].tobytes()
    assert (await resources.index.statistics(PARTITION)).vectors > len(texts)
    near = await Searcher(resources.derived_redis).near(PARTITION, query, NO_FILTERS, 20)
    assert max(near, key=lambda doc_id: near[doc_id]) == events[0].envelope.event_id
    assert set(near) == {event.envelope.event_id for event in events}
    places = {str(e.envelope.event_id): Place(e.envelope.occurred_at, e.position.sort_key) for e in events}
    await Forgotten(resources.derived_redis, resources.graph).remove_enrichments(PARTITION, places)
    assert [key async for key in resources.derived_redis.scan_iter(match=KEYS.vector_prefix + "*")] == []
