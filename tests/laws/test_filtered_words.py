"""A document's score by words does not depend on what else is asked for."""

from __future__ import annotations

import random

import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.document import Mention
from context_graph.domain.filters import NO_FILTERS, Filters, NumberCondition, TagCondition
from context_graph.domain.position import Position
from context_graph.store.queries import Searcher
from tests.integration.test_index import PARTITION, document, enrichment

WORDS = (
    "refund refunds refunded flight flights cancel cancelled cancels parcel courier invoice invoices street office "
    "tent rope carrier policy running runs"
).split()
COUNT = 400
ALL = 10_000
MIA = (Mention("person:mia", "Mia", "person", 0, 3),)


def _filters() -> list[Filters]:
    billing, mia = TagCondition("agent_id", "eq", ("billing",)), TagCondition("user_id", "eq", ("mia",))
    late = NumberCondition("occurred_at", 120, float("inf"))
    return [
        Filters((billing,)),
        Filters((TagCondition("agent_id", "any", ("billing", "support")),)),
        Filters((TagCondition("agent_id", "ne", ("billing",)),)),
        Filters((late,)),
        Filters((billing, mia, late)),
        Filters((NumberCondition("occurred_at", 0, float("inf")),)),
        Filters((billing,), ((mia,), (TagCondition("user_id", "eq", ("omar",)),))),
        Filters((TagCondition("entity", "eq", ("person:mia",)),)),
        Filters((TagCondition("entity", "eq", ("person:mia",)), billing)),
    ]


@pytest.mark.parametrize("seed", range(3))
async def test_scores_are_the_same_with_and_without_conditions(resources: Resources, seed: int) -> None:
    chance = random.Random(seed)
    written = [
        document(
            f"e{number}",
            " ".join(chance.choices(WORDS, k=chance.choice((3, 20, 120)))),
            speaker="Mia",
            agent_id=chance.choice(("billing", "support", "sales")),
            user_id=chance.choice(("mia", "omar")),
            position=Position(0, 1000 + number, 0),
            occurred_at=number,
        )
        for number in range(COUNT)
    ]
    await resources.index.put_documents(PARTITION, written)
    await resources.index.put_enrichments(
        PARTITION, [enrichment(one, mentions=MIA if number % 3 else ()) for number, one in enumerate(written)]
    )
    searcher = Searcher(resources.derived_redis)
    for asked in (1, 4, 14):
        terms = chance.sample(WORDS, asked)
        everything = await searcher.matching(PARTITION, terms, NO_FILTERS, ALL)
        assert len(everything) > COUNT // 10
        for filters in _filters():
            found = await searcher.matching(PARTITION, terms, filters, ALL)
            assert found, filters
            assert found == pytest.approx({doc_id: everything[doc_id] for doc_id in found}), (asked, filters)
            cut = await searcher.matching(PARTITION, terms, filters, ALL, 1000 + COUNT // 2)
            assert cut == pytest.approx({doc_id: everything[doc_id] for doc_id in cut}), (asked, filters)
            assert len(cut) < len(found)
        assert await searcher.matching(PARTITION, terms, NO_FILTERS, ALL, 10**12) == pytest.approx(everything)
