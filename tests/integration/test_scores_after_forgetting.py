"""What the index says of a word when documents that held it are gone: which scores that changes, and which not."""

from __future__ import annotations

from typing import Any

from context_graph.bootstrap import Resources
from context_graph.domain.event import Envelope, EventId, SessionId
from context_graph.domain.filters import NO_FILTERS
from context_graph.store.keys import GraphKeys
from context_graph.store.queries import Searcher
from context_graph.store.queries_then import SearcherThen
from tests.forgetting import append, decided, derive, everything
from tests.integration.test_forgetting import HERE

GONE, LEFT = 120, 20  # the index collects no fewer than 100 documents that are gone


def said(session: str, i: int) -> Envelope:
    goods = "violin" if session == "old" or i < 4 else "piano"
    return Envelope(
        event_id=EventId(f"{session}-{i}"), event_type="user.message", session_id=SessionId(session),
        agent_id="support", occurred_at=i * 60_000, payload={"text": f"The {goods} number {i} was sent by rail."},
    )  # fmt: skip


async def test_words_of_what_is_gone_count_until_the_index_collects_them_and_never_as_of_a_position(
    resources: Resources,
) -> None:
    """In 4 of 20 documents, but the index goes on counting 124 of 20, until its garbage collection."""
    await append(resources, HERE, [said("old", i) for i in range(GONE)] + [said("new", i) for i in range(LEFT)])
    await derive(resources, HERE)
    await append(resources, HERE, [decided((await everything(resources, HERE))[:GONE], forgotten=True, occurred_at=0)])
    await derive(resources, HERE)
    await derive(resources, HERE, generation=2)  # has never held what is forgotten: as a rebuild
    last = await resources.ledger.last(HERE)

    async def scores(generation: int, *, then: bool = False) -> dict[str, float]:
        async def its(_: Any) -> int:
            return generation

        searcher = Searcher(resources.derived_redis, its)
        if then:
            return await SearcherThen(searcher).matching(HERE, ["violin"], NO_FILTERS, 10, last)
        return await searcher.matching(HERE, ["violin"], NO_FILTERS, 10)

    rebuilt = await scores(2)
    assert set(rebuilt) == {f"new-{i}" for i in range(4)}
    assert await scores(1, then=True) == await scores(2, then=True)
    deleted = await scores(1)
    assert set(deleted) == set(rebuilt)
    assert all(abs(deleted[i] / rebuilt[i] - 1) > 0.5 for i in rebuilt), (deleted, rebuilt)
    redis: Any = resources.derived_redis
    await redis.execute_command("FT.DEBUG", "GC_FORCEINVOKE", GraphKeys(HERE).text_index, 30_000)
    collected = await scores(1)
    # The mean length of a document still has those that are gone in it.
    assert all(abs(collected[i] / rebuilt[i] - 1) < 0.5 for i in rebuilt), (collected, rebuilt)
