"""Single events of concurrent callers are appended together, and each caller gets its own answer."""

from __future__ import annotations

import asyncio

import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.event import EventId, SessionId, TenantId
from context_graph.domain.partition import Partition
from context_graph.errors import StoreUnavailable
from context_graph.ingest.gathering import GatheredAppends
from context_graph.store.ledger import Appendable
from tests.waiting import until

_PARTITION = Partition(TenantId("t"), 0)


def _appendable(number: int, body: str = "") -> Appendable:
    return Appendable(EventId(f"e{number}"), SessionId("s"), f'{{"n":"{number}{body}"}}'.encode())


async def test_each_of_many_concurrent_events_is_appended_once_with_its_own_position(resources: Resources) -> None:
    gathered = GatheredAppends(resources.ledger)
    answers = await asyncio.gather(*(gathered.append(_PARTITION, _appendable(n)) for n in range(600)))
    assert {answer.status for answer in answers} == {"created"}
    assert len({answer.position for answer in answers}) == 600
    assert await resources.ledger.length(_PARTITION) == 600
    for number in (0, 1, 300, 599):
        assert await resources.ledger.position_of(_PARTITION, f"e{number}") == answers[number].position


async def test_concurrent_events_keep_the_order_in_which_they_came(resources: Resources) -> None:
    gathered = GatheredAppends(resources.ledger)
    answers = await asyncio.gather(*(gathered.append(_PARTITION, _appendable(n)) for n in range(300)))
    assert [answer.position for answer in answers] == sorted(answer.position for answer in answers)


async def test_the_same_id_twice_at_once_is_created_once(resources: Resources) -> None:
    gathered = GatheredAppends(resources.ledger)
    events = [_appendable(0), _appendable(1), _appendable(1), _appendable(1, "other")]
    answers = await asyncio.gather(*(gathered.append(_PARTITION, event) for event in events))
    assert [answer.status for answer in answers] == ["created", "created", "duplicate", "conflict"]


async def test_when_the_writing_caller_is_cancelled_the_others_hear_of_it_and_later_ones_are_served(
    resources: Resources,
) -> None:
    gathered = GatheredAppends(resources.ledger)
    async with gathered._writing.setdefault(_PARTITION, asyncio.Lock()):  # an append is under way
        first = asyncio.create_task(gathered.append(_PARTITION, _appendable(1)))
        await until(lambda: _PARTITION in gathered._gathering)
        second = asyncio.create_task(gathered.append(_PARTITION, _appendable(2)))
        await until(lambda: len(gathered._gathering[_PARTITION].events) == 2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(StoreUnavailable):
            await second
    assert (await gathered.append(_PARTITION, _appendable(3))).status == "created"
