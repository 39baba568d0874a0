"""Words as of a position weigh what they weighed then, and the index counts them as `words_in` does."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.document import Document
from context_graph.domain.event import TenantId
from context_graph.domain.filters import NO_FILTERS, Filters, TagCondition
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store.keys import GraphKeys
from context_graph.store.queries import Searcher
from context_graph.store.queries_then import SearcherThen
from context_graph.store.words_then import words_in
from tests.integration.test_index import PARTITION, document, enrichment
from tests.waiting import until

THEN = Partition(TenantId("then"), 0)
WORDS = (
    "parcel parcels tent refunds refunding carrier office street invoices courier src/auth.py don't rope Zürich".split()
)
QUERY = ("parcel", "refunds", "courier", "auth", "mia", "don", "zürich", "nowhere")


def _documents(chance: random.Random) -> list[Document]:
    """Sixty documents, up to five in one millisecond, of lengths that differ much."""
    places = [Position(0, 1000 + number // 5, number % 5) for number in range(60)]
    return [
        document(
            f"e{number}",
            " ".join(chance.choices(WORDS, weights=range(1, len(WORDS) + 1), k=chance.randrange(1, 20 + number))),
            speaker=chance.choice(("Mia", "Omar")),
            agent_id=chance.choice(("support", "billing")),
            position=place,
        )
        for number, place in enumerate(places)
    ]


async def _ready(resources: Resources, partition: Partition) -> None:
    """A new index has looked through all keys: what is written meanwhile is counted twice for a while."""
    await resources.index.ensure(partition)
    command: Any = resources.derived_redis.execute_command

    async def looked() -> bool:
        answer = await command("FT.INFO", GraphKeys(partition).text_index)
        return int(dict(zip(answer[::2], answer[1::2], strict=True))[b"indexing"]) == 0

    await until(looked)


@pytest.mark.parametrize("seed", range(5))
async def test_as_of_a_position_words_and_vectors_find_what_an_index_of_then_finds(
    resources: Resources, seed: int
) -> None:
    chance = random.Random(seed)
    numbers = np.random.default_rng(seed)
    written = [(one, numbers.normal(size=384).astype(np.float32)) for one in _documents(chance)]
    cut = Position(0, 1000 + chance.randrange(2, 11), chance.randrange(5))
    for partition, chosen in (
        (PARTITION, written),
        (THEN, [pair for pair in written if pair[0].position <= cut]),
    ):
        await _ready(resources, partition)
        await resources.index.put_documents(partition, [one for one, _ in chosen])
        await resources.index.put_enrichments(partition, [enrichment(one, vector=v) for one, v in chosen])
    searcher = Searcher(resources.derived_redis)
    then = SearcherThen(searcher)
    vector = numbers.normal(size=384).astype(np.float32).tobytes()
    for filters in (NO_FILTERS, Filters((TagCondition("agent_id", "eq", ("billing",)),))):
        expected = await searcher.matching(THEN, QUERY, filters, 20)
        found = await then.matching(PARTITION, QUERY, filters, 20, cut)
        assert list(found) == list(expected)
        assert found == pytest.approx(expected, rel=1e-4)
        near = await searcher.near(THEN, vector, filters, 10)
        assert list(await then.near(PARTITION, vector, filters, 10, cut)) == list(near)
        agents = ["billing", "support", "nobody"]
        assert await then.agents_within(PARTITION, agents, filters, cut) == await searcher.agents_within(
            THEN, agents, filters
        )
        assert set(await then.latest(PARTITION, filters, 100, cut)) == set(await searcher.latest(THEN, filters, 100))


async def test_the_index_counts_the_words_of_a_document_as_we_do(resources: Resources) -> None:
    texts = [f"ab{chr(code)}cd" for code in range(1, 256)]
    texts += ["a \\+b", "a\\\\b c", "\\", "it's", "日本 語", "one\ntwo three", "a \n b", "\n", "x\r\ny", "a — b", "…"]
    command: Any = resources.derived_redis.execute_command
    await resources.index.put_documents(
        PARTITION, [document(f"e{n}", text, speaker="zebra") for n, text in enumerate(texts)]
    )
    keys = GraphKeys(PARTITION)
    answer = await command(
        "FT.SEARCH", keys.text_index, "@speaker:(zebra)", "NOCONTENT", "WITHSCORES", "EXPLAINSCORE", "SCORER",
        "BM25STD", "LIMIT", 0, 1000, "DIALECT", 2,
    )  # fmt: skip
    for key, explained in zip(answer[1::2], answer[2::2], strict=True):
        counted = re.search(rb"Doc Len (\d+)", str(explained).encode())
        text = texts[int(key.decode().rpartition("e")[2])]
        assert counted is not None
        stored, parts = [value or b"" for value in await command("HMGET", key, "t", "w")]
        assert int(counted[1]) == words_in(stored.decode()) + 1 + words_in(parts.decode()), repr(text)
