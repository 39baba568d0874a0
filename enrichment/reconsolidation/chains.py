"""Causal chains that keep an episode: whether a pinned or hot event is near, by bounded steps of causes and effects."""

from __future__ import annotations

from collections.abc import Sequence

from context_graph.domain.partition import Partition
from context_graph.domain.retention import DAY_MS, ForgettingPolicy
from context_graph.store.graph import Graph
from enrichment.reconsolidation.forgetting import EventFacts

_FAN_OUT = 100  # effects of an event that are followed; more of them keep it
_MOST_REACHED = 5000  # events of a chain; a longer one keeps its episode


class Chains:
    """Asks the live graph of a tenant, all of its partitions: an effect may be in any."""

    def __init__(
        self, graph: Graph, partitions: Sequence[Partition], policy: ForgettingPolicy, now: int, pinned: set[str]
    ) -> None:
        self._graph = graph
        self._partitions = partitions
        self._hops = policy.protect_hops
        self._young = now - int(policy.hot_days * DAY_MS)
        self._pinned = pinned

    async def hold(self, events: Sequence[EventFacts]) -> bool:
        """Whether a pinned or hot event is within the policy's steps of causes and effects, or there are too many."""
        seen = {event.event_id for event in events}
        frontier = list(seen)
        for _ in range(self._hops):
            reached = await self._beside(frontier)
            if reached is None:
                return True
            frontier = [event_id for event_id in reached if event_id not in seen]
            seen.update(frontier)
            if len(seen) > _MOST_REACHED or self._pinned.intersection(frontier) or await self._any_hot(frontier):
                return True
        return False

    async def _beside(self, ids: Sequence[str]) -> set[str] | None:
        """Causes and effects; None when an event has more effects than are followed."""
        reached: set[str] = set()
        for partition in self._partitions:
            nodes = await self._graph.events(partition, ids)
            reached.update(cause for node in nodes.values() for cause in node.causes)
            for entries in (await self._graph.effects(partition, ids, _FAN_OUT + 1)).values():
                if len(entries) > _FAN_OUT:
                    return None
                reached.update(entry.event_id for entry in entries)
        return reached

    async def _any_hot(self, ids: Sequence[str]) -> bool:
        for partition in self._partitions:
            nodes = await self._graph.events(partition, ids)
            if any(node.occurred_at > self._young for node in nodes.values()):
                return True
        return False
