"""Names that are one thing, as of any time: what SAME_AS edges are made of, and what a filter by entity means.

A filter names an entity by one of its names and finds the events that mention any of them. Nothing is stored for it:
a merge, a split or a new name counts in the next query. While the embedder is away names are not joined by what they
mean, and whoever asks is told so (`cut`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from context_graph.domain.filters import Condition, Filters, TagCondition
from context_graph.domain.partition import Tenant
from context_graph.domain.position import Position
from context_graph.resolution.clusters import Link
from context_graph.resolution.entities import Entities, Then
from context_graph.retrieval.deadline import AWAY, Cut
from context_graph.retrieval.neighbours import Neighbours
from context_graph.retrieval.request import AsOf
from context_graph.store.graph import TimelineEntry


class SameThings:
    """Asks which names are one thing."""

    def __init__(self, entities: Entities, neighbours: Neighbours) -> None:
        self._entities = entities
        self._neighbours = neighbours

    async def links(
        self, tenant: Tenant, names: Sequence[str], as_of: AsOf | None, cut: Cut
    ) -> tuple[tuple[Link, ...], Mapping[str, TimelineEntry]]:
        """The joins of these names, and of each name in them the first event that mentions it."""
        firsts: dict[str, TimelineEntry] = {}
        links, complete = await self._entities.same_as(tenant, names, self._then(tenant, as_of, firsts))
        if not complete:
            cut(AWAY)
        return links, firsts

    async def names(
        self, tenant: Tenant, asked: Sequence[str], as_of: AsOf | None, cut: Cut
    ) -> Mapping[str, tuple[str, ...]]:
        """Each of these names to all names of its entity, itself included."""
        then = None if as_of is None else self._then(tenant, as_of, {})
        names, complete = await self._entities.alike(tenant, asked, then)
        if not complete:
            cut(AWAY)
        return names

    async def state(self, tenant: Tenant) -> tuple[int, ...]:
        """What `names` answers from changes with it."""
        return await self._entities.state(tenant)

    async def widened(self, filters: Filters, tenant: Tenant, as_of: AsOf | None, cut: Cut) -> Filters:
        """The filters with all names of the entities that they name; the same where they name none."""
        named = [c for c in filters.conditions if isinstance(c, TagCondition) and c.field == "entity"]
        if not named:
            return filters
        ids = list(dict.fromkeys(value for condition in named for value in condition.values))
        names = await self.names(tenant, ids, as_of, cut)
        widened = [new for condition in filters.conditions for new in _widened(condition, names)]
        return replace(filters, conditions=tuple(widened))

    def _then(self, tenant: Tenant, as_of: AsOf | None, firsts: dict[str, TimelineEntry]) -> Then:
        async def known(asked: Sequence[str]) -> Mapping[str, TimelineEntry]:
            firsts.update(await self._neighbours.first_mentions(tenant, asked, as_of))
            return firsts

        def said(position: Position) -> bool:
            return as_of is None or as_of.includes(position)

        return Then(known, said)


def _widened(condition: Condition, names: Mapping[str, Sequence[str]]) -> Iterator[Condition]:
    if not isinstance(condition, TagCondition) or condition.field != "entity":
        yield condition
        return
    groups = [tuple(dict.fromkeys((value, *names.get(value, ())))) for value in condition.values]
    match condition.operator:
        case "all":  # each of the entities, by any of its names
            for group in groups:
                yield TagCondition("entity", "any", group)
        case "ne":
            for name in dict.fromkeys(name for group in groups for name in group):
                yield TagCondition("entity", "ne", (name,))
        case _:
            yield TagCondition("entity", "any", tuple(dict.fromkeys(name for group in groups for name in group)))
