"""Which topics a partition is about, within a pass: its communities of entities, and the sessions that hold them.

As `GET /v1/communities` finds them (`resolution/communities.py`), of one partition: those that most events tie, a
bounded number. A topic is named by its community's id, which stays while the most central entity does, and which says
nothing of anybody: names of keys and documents outlive an erasure.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from context_graph.bootstrap import Resources
from context_graph.domain.entity_names import split_id
from context_graph.domain.partition import Partition
from context_graph.resolution.communities import Community, communities
from context_graph.store.sorted_pages import Stretch
from context_graph.store.timelines import Timelines

TOPIC = "topic/"
_ENTITIES = 1000  # newest by their last mention
_MENTIONS = 50  # newest of each
_EVENTS = 300  # of a community whose sessions are counted
_SESSIONS = 20
_EVERYWHERE = ("tool:", "agent:")  # they are mentioned by whatever they do


@dataclass(frozen=True, slots=True)
class Topic:
    """A community: its scope, how its members are written, and its sessions, those with most of its events first."""

    scope: str
    names: tuple[str, ...]
    sessions: tuple[str, ...]


async def topics_of(resources: Resources, partition: Partition, most: int) -> list[Topic]:
    """The `most` topics that most events are about. Raises StoreUnavailable."""
    registry = await resources.graph.registry(partition, "entity", limit=_ENTITIES)
    names = sorted(name for name, _ in registry if not name.startswith(_EVERYWHERE))
    keys = await resources.graph.keys(partition)
    stretches = [(partition, Stretch(keys.timeline("entity", name), "desc")) for name in names]
    entries = await Timelines(resources.derived_redis, resources.graph).first(stretches, _MENTIONS, None)
    mentions = {name: [each.event_id for each in found] for name, (found, _) in zip(names, entries, strict=True)}
    found = await asyncio.to_thread(communities, mentions)
    best = sorted(found, key=lambda one: (-len(one.event_ids), one.id))[:most]
    return [Topic(TOPIC + one.id, _names(one), await _sessions(resources, partition, one.event_ids)) for one in best]


def _names(community: Community) -> tuple[str, ...]:
    return tuple(sorted({split_id(member.entity_id)[1].casefold() for member in community.members}))


async def _sessions(resources: Resources, partition: Partition, event_ids: Sequence[str]) -> tuple[str, ...]:
    events = await resources.graph.events(partition, event_ids[:_EVENTS])
    counts = Counter(event.session_id for event in events.values())
    return tuple(name for name, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:_SESSIONS])
