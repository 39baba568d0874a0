"""From a request to what the channels are asked: what is meant, by whom it was said, and within which filters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from context_graph.domain.filters import Filters
from context_graph.domain.partition import Tenant
from context_graph.domain.query import Intent, Understanding, understand
from context_graph.retrieval.candidates import Candidates
from context_graph.retrieval.deadline import Cut
from context_graph.retrieval.pool import Ask
from context_graph.retrieval.request import AsOf, ContextQuery, SearchQuery, scope
from context_graph.retrieval.same_things import SameThings
from context_graph.retrieval.together import together
from context_graph.store.graph import Graph

_SPEAKERS = 200  # latest agents that a query is looked through for


class Asking:
    """Understands requests of any tenant."""

    def __init__(self, graph: Graph, candidates: Candidates, same_things: SameThings, most: int) -> None:
        """`most`: documents that each channel of a context is asked for."""
        self._graph = graph
        self._candidates = candidates
        self._same_things = same_things
        self._most = most

    async def context(self, tenant: Tenant, query: ContextQuery, cut: Cut) -> Ask:
        """What a context asks, with all names of entities, and knowing who speaks."""
        filters = await self._same_things.widened(scope(query), tenant, query.as_of, cut)
        understanding = await self._understood(tenant, query.query, filters, query.as_of, query.intents)
        return self.plainly(tenant, query, filters, understanding)

    async def search(self, tenant: Tenant, query: SearchQuery, plainly: Ask, cut: Cut) -> Ask:
        """As it was asked plainly, with all names of entities, and knowing who speaks."""
        filters = await self._same_things.widened(query.filters, tenant, query.as_of, cut)
        understanding = await self._understood(tenant, query.query, filters, query.as_of)
        return replace(plainly, understanding=understanding, filters=filters)

    def plainly(self, tenant: Tenant, query: ContextQuery, filters: Filters, understanding: Understanding) -> Ask:
        """Of a context, what was said of these filters and this understanding."""
        limit = self._most
        opinions = query.as_of is None and tenant.buckets == 1
        return Ask(understanding, filters, query.as_of, limit, query.max_depth, query.max_nodes, opinions=opinions)

    async def _understood(
        self,
        tenant: Tenant,
        text: str,
        filters: Filters,
        as_of: AsOf | None,
        intents: Mapping[Intent, float] | None = None,
    ) -> Understanding:
        """What the query asks, knowing who speaks in the scope."""
        recent = await together(
            [self._graph.registry(partition, "agent", limit=_SPEAKERS) for partition in tenant.partitions]
        )
        known = dict.fromkeys(name for names in recent for name, _ in names)
        understanding = understand(text, intents, known)
        if not understanding.speakers:
            return understanding
        named = [name for name in known if name.lower() in understanding.speakers]
        asked = Ask(understanding, filters, as_of, 1)
        within = await self._candidates.speakers(tenant.partitions, asked, named)
        return understanding if len(within) == len(named) else understand(text, intents, within)
