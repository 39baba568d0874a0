"""The index on a real Redis: idempotent, commutative, bounded to its partition, ranked as numpy ranks."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.document import Document, Enrichment, Mention, filter_tag
from context_graph.domain.event import TenantId
from context_graph.domain.filters import NO_FILTERS
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.errors import ConfigurationError
from context_graph.settings import VectorIndexSettings
from context_graph.store.answers import stored_answer
from context_graph.store.common_words import CommonWords
from context_graph.store.documents import model_mark, vector_bytes
from context_graph.store.entities import ENTITY_FORM_PREFIX
from context_graph.store.index import Index
from context_graph.store.keys import GraphKeys
from context_graph.store.queries import Searcher
from tests.waiting import until

PARTITION = Partition(TenantId("acme"), 0)
KEYS = GraphKeys(PARTITION)
DIMENSIONS = 384


def document(doc_id: str, text: str = "the order is late", *, ms: int = 1000, **changes: Any) -> Document:
    plain = Document(
        id=doc_id,
        kind="event",
        text=text,
        speaker="Mia",
        event_ids=(doc_id,),
        position=Position(0, ms, 0),
        event_type="user.message",
        session_id="s1",
        agent_id="support",
        occurred_at=ms,
        origin="user",
    )
    return plain._replace(**changes)


def summary(text: str, *, ms: int) -> Document:
    return document(
        "summary:session/s1", text, ms=ms, kind="summary", event_ids=("a", f"e{ms}"), event_type="memory.summary"
    )


def enrichment(
    of: Document, *, vector: np.ndarray[Any, Any] | None = None, mentions: tuple[Mention, ...] = ()
) -> Enrichment:
    unit = np.eye(1, DIMENSIONS, dtype=np.float32)[0] if vector is None else vector.astype(np.float32)
    return Enrichment(of, unit.tobytes(), "model-1", "00" * 16, mentions)


async def search(resources: Resources, index: str, query: str, *arguments: str | bytes | int) -> list[str]:
    command: Any = resources.derived_redis.execute_command
    answer = await command("FT.SEARCH", index, query, "NOCONTENT", *arguments, "DIALECT", 2)
    return [key.decode() for key in answer[1:]]


async def everything(resources: Resources) -> dict[str, Any]:
    """Every derived key of the partition with its value: two states are equal when these are."""
    redis: Any = resources.derived_redis
    state: dict[str, Any] = {}
    async for key in redis.scan_iter(match=f"{KEYS.tag}:*"):
        kind = (await redis.type(key)).decode()
        state[key.decode()] = await (
            redis.hgetall(key) if kind == "hash" else redis.zrange(key, 0, -1, withscores=True)
        )
    return state


async def test_a_document_is_found_by_its_words_its_filters_and_the_parts_of_names(resources: Resources) -> None:
    late = document("e1", "the parcel is late, see src/auth/token.py", tool_name="track")
    await resources.index.put_documents(PARTITION, [late, document("e2", "all is well")])
    for query in (
        "parcel",
        "@speaker:mia @text:parcel",
        "@parts:token",
        f"@tool:{{{filter_tag('track')}}}",
        "@text:late",
    ):
        assert await search(resources, KEYS.text_index, query) == [KEYS.document("e1")]
    assert await search(resources, KEYS.text_index, f"@tool:{{{filter_tag('other')}}}") == []
    assert await search(resources, KEYS.text_index, "the is", "SORTBY", "occurred") != []  # no stop words


async def test_documents_come_back_as_they_were_written(resources: Resources) -> None:
    full = document("e1", "x, {y} | z", tool_name="t{1}", user_id="u,2", status="failed", importance=9)
    await resources.index.put_documents(PARTITION, [full, summary("All went well.", ms=5)])
    found = await resources.index.read_documents(PARTITION, ["nobody", "summary:session/s1", "e1"])
    assert found[0] is None
    assert found[1] is not None
    assert found[1].document == summary("All went well.", ms=5)
    assert found[2] is not None
    assert found[2].document == full


async def test_an_enrichment_adds_a_vector_and_entities(resources: Resources) -> None:
    mia, mia_again = Mention("person:mia", "Mia", "person", 0, 3), Mention("person:mia", "MIA", "person", 9, 12)
    order = Mention("id:w1", "W1", "id", 5, 7)
    await resources.index.put_documents(PARTITION, [document("e1")])
    await resources.index.put_enrichments(PARTITION, [enrichment(document("e1"), mentions=(mia, order, mia_again))])

    tag = f"@entity:{{{filter_tag('id:w1')}}}"
    assert await search(resources, KEYS.vector_index, tag) == [KEYS.vector("e1")]
    redis: Any = resources.derived_redis
    entity = await redis.hgetall(KEYS.entity("person:mia"))
    assert entity[b"label"] == b"person"
    assert {name for name in entity if name.startswith(ENTITY_FORM_PREFIX.encode())} == {b"form:Mia", b"form:MIA"}
    assert await redis.zrange(KEYS.registry("entity"), 0, -1, withscores=True) == [
        (b"id:w1", 1000),
        (b"person:mia", 1000),
    ]
    shown = await redis.hgetall(KEYS.event("e1"))
    assert orjson.loads(shown[b"entities"]) == ["person:mia", "id:w1"]
    assert orjson.loads(shown[b"mentions"]) == [["Mia", "said", 0, 3, 9, 12], ["W1", "said", 5, 7]]
    (entry,) = await resources.graph.timeline(PARTITION, "entity", "person:mia")
    assert (entry.event_id, entry.occurred_at) == ("e1", 1000)
    (stored,) = await resources.index.read_documents(PARTITION, ["e1"], entities=True)
    assert stored is not None
    assert stored.entity_tags == (filter_tag("person:mia"), filter_tag("id:w1"))


async def test_writes_in_any_order_and_twice_end_in_one_state(resources: Resources) -> None:
    names = (Mention("person:mia", "Mia", "person", 0, 3),), (Mention("person:mia", "mia", "person", 0, 3),)
    index = resources.index
    old, new = summary("old", ms=10), summary("new", ms=20)._replace(user_id="u1")
    event, later = document("e1"), document("e2", ms=2000)
    writes: list[Callable[[], Awaitable[None]]] = [
        lambda: index.put_documents(PARTITION, [event, old]),
        lambda: index.put_documents(PARTITION, [new, later]),
        lambda: index.put_enrichments(
            PARTITION, [enrichment(old, mentions=names[0]), enrichment(event, mentions=names[0])]
        ),
        lambda: index.put_enrichments(PARTITION, [enrichment(later, mentions=names[1]), enrichment(new)]),
    ]
    states = []
    redis: Any = resources.derived_redis
    for order in itertools.permutations(writes):
        await redis.flushdb()
        await index.ensure(PARTITION, again=True)
        for write in (*order, order[0]):
            await write()
        states.append(await everything(resources))
    assert all(state == states[0] for state in states)
    (found,) = await index.read_documents(PARTITION, [new.id])
    assert found is not None
    assert found.document == new


async def test_knn_ranks_as_numpy_does(resources: Resources) -> None:
    random = np.random.default_rng(7)
    vectors = random.normal(size=(300, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    enrichments = [enrichment(document(f"e{i}"), vector=vector) for i, vector in enumerate(vectors)]
    await resources.index.put_enrichments(PARTITION, enrichments)

    async def complete() -> bool:
        return (await resources.index.statistics(PARTITION)).vectors == len(vectors)

    await until(complete)
    query = (vectors[5] + 0.3 * vectors[6]).astype(np.float32)
    expected = [KEYS.vector(f"e{i}") for i in np.argsort(-(vectors @ query))[:2]]
    arguments = ("PARAMS", 2, "q", vector_bytes(query.tobytes()), "SORTBY", "d", "LIMIT", 0, 2)
    assert await search(resources, KEYS.vector_index, "*=>[KNN 10 @vec $q AS d]", *arguments) == expected


async def test_partitions_do_not_see_each_other(resources: Resources) -> None:
    other = Partition(TenantId("rival"), 0)
    await resources.index.put_documents(PARTITION, [document("e1", "secret plan")])
    await resources.index.put_documents(other, [document("e2", "secret plan")])
    assert await search(resources, GraphKeys(other).text_index, "secret") == [GraphKeys(other).document("e2")]
    assert await resources.index.read_documents(other, ["e1"]) == [None]


async def test_the_index_counts_what_it_holds_and_knows_its_dimensions(resources: Resources) -> None:
    assert await resources.index.dimensions_of([PARTITION]) == [None]
    assert (await resources.index.statistics(PARTITION)).documents == 0
    await resources.index.put_documents(PARTITION, [document("e1"), document("e2")])
    await resources.index.put_enrichments(PARTITION, [enrichment(document("e1"))])
    assert await resources.index.dimensions_of([PARTITION]) == [DIMENSIONS]

    async def counted() -> bool:
        statistics = await resources.index.statistics(PARTITION)
        return (statistics.documents, statistics.vectors, statistics.failed) == (2, 1, 0)

    await until(counted)


async def test_vectors_of_other_dimensions_are_refused_with_the_way_out(resources: Resources) -> None:
    await resources.index.ensure(PARTITION)
    with pytest.raises(ConfigurationError, match=r"384 dimensions.*CG_EMBEDDING__DIMENSIONS"):
        await Index(resources.derived_redis, 768).ensure(PARTITION)


async def test_what_was_written_before_the_index_is_taken_up_by_it(resources: Resources) -> None:
    await resources.index.put_documents(PARTITION, [document("e1", "parcel")])
    command: Any = resources.derived_redis.execute_command
    await command("FT.DROPINDEX", KEYS.text_index)
    await resources.index.ensure(PARTITION, again=True)

    async def found() -> bool:
        return await search(resources, KEYS.text_index, "parcel") == [KEYS.document("e1")]

    await until(found)


async def test_a_rare_word_outranks_common_ones_however_often_a_document_is_delivered(resources: Resources) -> None:
    """RediSearch counts the words of a rewritten document twice until its garbage collection: nothing is rewritten."""
    searcher = Searcher(resources.derived_redis)
    documents = [document(f"e{n}", f"the parcel of order {n} is on its way to the customer") for n in range(60)]
    documents.append(document("rare", "the zwitterion of order 61 is on its way"))

    async def scores() -> dict[str, float]:
        terms = ("parcel", "way", "order", "zwitterion")
        return await searcher.matching(PARTITION, terms, NO_FILTERS, 100)

    await resources.index.put_documents(PARTITION, documents)
    first = await scores()
    assert max(first, key=lambda doc_id: first[doc_id]) == "rare"
    for _ in range(3):
        await resources.index.put_documents(PARTITION, documents)
        await resources.index.put_enrichments(PARTITION, [enrichment(found) for found in documents])
    assert await scores() == pytest.approx(first)


async def test_the_vectors_graph_is_made_as_the_settings_say(resources: Resources) -> None:
    made = VectorIndexSettings(m=8, ef_construction=64, ef_runtime=40)
    await Index(resources.derived_redis, 384, vectors=made).at(7).ensure(PARTITION)
    info: Any = await resources.derived_redis.execute_command("FT.INFO", GraphKeys(PARTITION, 7).vector_index)  # type: ignore[no-untyped-call]
    said = str(info)
    assert "'M', 8" in said.replace("b'", "'")
    assert "'ef_construction', 64" in said.replace("b'", "'")


async def test_several_passages_of_one_event_do_not_take_the_places_of_others(resources: Resources) -> None:
    axes = np.eye(DIMENSIONS, dtype=np.float32)
    passages = tuple(("00" * 16, (axes[0] + axes[n] / 100).astype(np.float32).tobytes()) for n in range(2, 9))
    long = replace(enrichment(document("long"), vector=axes[0]), passages=passages)
    others = [enrichment(document(f"e{n}"), vector=axes[0] + axes[1] * (1 + n / 10)) for n in range(4)]
    await resources.index.put_enrichments(PARTITION, [long, *others])
    near = await Searcher(resources.derived_redis).near(PARTITION, axes[0].tobytes(), NO_FILTERS, 4)
    assert list(near) == ["long", "e0", "e1", "e2"], "each event once, by its best passage, and as many as asked for"


def test_a_vector_of_an_older_generation_names_its_model_and_is_known_by_it() -> None:
    made = [
        vector_bytes(np.eye(1, DIMENSIONS, dtype=np.float32).tobytes()),
        b"all-MiniLM-L6-v2/int8",
        b"0" * 16,
        None,
        None,
        None,
        None,
    ]
    older, newer = stored_answer(made), stored_answer([made[0], model_mark("all-MiniLM-L6-v2/int8"), *made[2:]])
    assert older == newer is not None


async def test_a_large_index_is_asked_for_the_rarer_words_until_they_are_in_many_documents(
    resources: Resources,
) -> None:
    texts = ["parcel"] * 20 + ["parcel courier"] * 8 + ["parcel courier zeppelin"] * 2
    await resources.index.put_documents(PARTITION, [document(f"e{n}", text) for n, text in enumerate(texts)])

    async def found(most: int, *words: str) -> set[str]:
        searcher = Searcher(resources.derived_redis, common=CommonWords(most))
        return set(await searcher.matching(PARTITION, words, NO_FILTERS, 64))

    everything, with_courier, with_zeppelin = ({f"e{n}" for n in range(at, 30)} for at in (0, 20, 28))
    words = ("parcel", "courier", "zeppelin")
    assert await found(30, *words) == everything, "a small index is asked for all words"
    assert await found(20, *words) == with_courier
    assert await found(5, *words) == with_zeppelin
    assert await found(5, "parcel", "nowhere") == everything, "one word that is there is always asked for"
