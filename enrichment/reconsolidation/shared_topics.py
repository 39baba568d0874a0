"""Which topics a partition is about, within a pass: its communities of entities, and the sessions that hold them.

As `GET /v1/communities` finds them (`resolution/communities.py`), of one partition: those that most events tie, a
bounded number. A topic is named by its community's id, which stays while the most central entity does, and which says
nothing of anybody: names of keys and documents outlive an erasure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from context_graph.bootstrap import Resources
from context_graph.domain.entity_names import split_id
from context_graph.domain.partition import Partition
from context_graph.resolution.communities import Community, communities
from context_graph.resolution.mentioned import COUNTED_EVENTS, mentions_of, sessions_by_events
from context_graph.store.timelines import Timelines

TOPIC = "topic/"


@dataclass(frozen=True, slots=True)
class Topic:
    """A community: its scope, how its members are written, and its sessions, those with most of its events first."""

    scope: str
    names: tuple[str, ...]
    sessions: tuple[str, ...]


async def topics_of(resources: Resources, partition: Partition, most: int) -> list[Topic]:
    """The `most` topics that most events are about. Raises StoreUnavailable."""
    timelines = Timelines(resources.derived_redis, resources.graph)
    mentions, _ = await mentions_of(resources.graph, timelines, [partition])
    found = await asyncio.to_thread(communities, mentions)
    best = sorted(found, key=lambda one: (-len(one.event_ids), one.id))[:most]
    return [Topic(TOPIC + one.id, _names(one), await _sessions(resources, partition, one.event_ids)) for one in best]


def _names(community: Community) -> tuple[str, ...]:
    return tuple(sorted({split_id(member.entity_id)[1].casefold() for member in community.members}))


async def _sessions(resources: Resources, partition: Partition, event_ids: Sequence[str]) -> tuple[str, ...]:
    events = await resources.graph.events(partition, event_ids[:COUNTED_EVENTS])
    return tuple(name for name, _ in sessions_by_events(events.values()))
