"""Weeks of real talk, summarised and forgotten: the index stays small, every sentence leads to its sources."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.event import SUMMARY_TYPE
from context_graph.store.keys import GraphKeys
from tests.forgetting import everything
from tests.quality.long_life import POLICY, live
from tests.quality.sets import SETS

LOCOMO = SETS["locomo"][0]


@pytest.mark.skipif(not LOCOMO.exists(), reason=f"the development data is not at {LOCOMO}")
async def test_the_index_levels_off_and_every_sentence_leads_to_the_ledger(resources: Resources) -> None:
    [partition] = (await resources.tenants.ensure("default", 1)).partitions
    policy = replace(POLICY, hot_days=1, warm_days=3, forget_after_days=5, keep_value=0.6, keep_share=0.2)
    readings = await live(resources, partition, 30, policy)
    assert readings[-1].documents < 0.75 * readings[-1].ledger, readings
    events = await everything(resources, partition)
    places = {event.envelope.event_id: event.position for event in events}
    gone = 0
    summaries: list[Any] = [e.envelope.payload for e in events if e.envelope.event_type == SUMMARY_TYPE]
    assert len(summaries) >= 25
    for summary in summaries:
        for sentence in summary["sentences"]:
            assert sentence["event_ids"], sentence
            for event_id in sentence["event_ids"]:
                [found] = await resources.ledger.at(partition, [places[event_id].stream_id])
                assert found.envelope.event_id == event_id
                assert found.envelope.payload is not None
                gone += not await resources.derived_redis.exists(GraphKeys(partition).document(event_id))
    assert gone > 20  # sources that are out of the index
