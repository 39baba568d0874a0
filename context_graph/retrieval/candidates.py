"""Candidates: what the channels find for a query, fused into one ranking.

Every channel is asked of every partition at once; its scores are brought to 0..1 within the query, so that "best of
this channel" means the same everywhere. Documents are read once, for the union, and each is checked again against the
filters and the as-of before it may go on: an index answer is a proposal, never a permission.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from context_graph.domain.document import filter_tag
from context_graph.domain.filters import Condition, Filters, TagCondition, holds
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.query import Understanding
from context_graph.domain.scoring import fused, scaled
from context_graph.retrieval.items import Candidate
from context_graph.retrieval.request import AsOf
from context_graph.store.documents import StoredDocument
from context_graph.store.graph import Graph
from context_graph.store.index import Index
from context_graph.store.queries import Hits, Searcher

DocumentKey = tuple[Partition, str]


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to the channels: what is understood, its vector (float32 bytes), filters, as-of, how many."""

    understanding: Understanding
    vector: bytes | None
    filters: Filters
    as_of: AsOf | None
    limit: int

    @property
    def by_entity(self) -> bool:
        """Whether the filters name entities."""
        return any(condition.field == "entity" for condition in self.filters.conditions)

    @property
    def checked(self) -> Filters:
        """The filters as documents are checked with: entities are kept as digests."""

        def digested(condition: Condition) -> Condition:
            if isinstance(condition, TagCondition) and condition.field == "entity":
                return replace(condition, values=tuple(filter_tag(value) for value in condition.values))
            return condition

        return Filters(tuple(map(digested, self.filters.conditions)), self.filters.alternatives)


class Candidates:
    """Finds and expands candidates of a tenant."""

    def __init__(self, searcher: Searcher, index: Index, graph: Graph) -> None:
        self._searcher = searcher
        self._index = index
        self._graph = graph

    async def find(self, tenant: Tenant, ask: Ask, *, use_text: bool = True) -> list[Candidate]:
        """Candidates of the vector and text channels, best first."""
        until = ask.as_of.ms if ask.as_of is not None else None
        words = ask.understanding.terms if use_text else ()
        hits = await asyncio.gather(
            *(
                self._searcher.hits(
                    partition,
                    vector=ask.vector,
                    terms=words,
                    filters=ask.filters,
                    limit=ask.limit,
                    recorded_until=until,
                )
                for partition in tenant.partitions
            )
        )
        channels = _channel_scores(dict(zip(tenant.partitions, hits, strict=True)))
        return await self.read(channels, ask)

    async def latest(self, tenant: Tenant, ask: Ask) -> list[Candidate]:
        """The latest documents of the scope, for a request without a query."""
        until = ask.as_of.ms if ask.as_of is not None else None
        found = await asyncio.gather(
            *(self._searcher.latest(partition, ask.filters, ask.limit, until) for partition in tenant.partitions)
        )
        channels: dict[DocumentKey, dict[str, float]] = {}
        for partition, ids in zip(tenant.partitions, found, strict=True):
            for place, doc_id in enumerate(ids):
                channels[(partition, doc_id)] = {"recency": 1.0 / (1 + place)}
        return await self.read(channels, ask)

    async def tail(self, partition: Partition, session_id: str, ask: Ask) -> list[Candidate]:
        """The newest events of a session, newest first."""
        entries = await self._graph.timeline(partition, "session", session_id, limit=ask.limit, newest_first=True)
        channels = {(partition, e.event_id): {"recency": 1.0 / (1 + place)} for place, e in enumerate(entries)}
        return await self.read(channels, ask)

    async def expand(self, seeds: Sequence[Candidate], ask: Ask, *, depth: int, max_nodes: int) -> list[Candidate]:
        """Causes, effects and session neighbours of the seeds, with scores that fall off with each step."""
        channels: dict[DocumentKey, dict[str, float]] = {}
        for partition in sorted({seed.partition for seed in seeds}):
            mine = [seed for seed in seeds if seed.partition == partition and seed.document.kind == "event"]
            strengths = {seed.document.id: seed.score for seed in mine}
            causal, neighbours = await asyncio.gather(
                self._causal(partition, strengths, depth, max_nodes), self._neighbours(partition, mine)
            )
            for name, scores in (("causal", causal), ("neighbour", neighbours)):
                for event_id, score in scores.items():
                    channels.setdefault((partition, event_id), {})[name] = score
        best = max((seed.score for seed in seeds), default=1.0) or 1.0
        return await self.read({key: _relative(scores, best) for key, scores in channels.items()}, ask)

    async def _causal(
        self, partition: Partition, strengths: Mapping[str, float], depth: int, max_nodes: int
    ) -> dict[str, float]:
        """Causes and effects of the seeds: each step one round of reads, its scores a fixed part of the last step's."""
        causal: dict[str, float] = {}
        frontier = dict(strengths)
        for _ in range(depth):
            nodes, effects = await asyncio.gather(
                self._graph.events(partition, list(frontier)),
                self._graph.effects(partition, list(frontier), _FAN_OUT),
            )
            reached: dict[str, float] = {}
            for event_id, score in frontier.items():
                node = nodes.get(event_id)
                linked = [*(node.causes if node else ()), *(entry.event_id for entry in effects.get(event_id, []))]
                for other in linked:
                    reached[other] = max(reached.get(other, 0.0), score * _FALL_OFF)
            new = {i: s for i, s in reached.items() if i not in causal and i not in strengths}
            frontier = dict(list(new.items())[: max(0, max_nodes - len(causal))])
            causal |= frontier
            if not frontier:
                break
        return causal

    async def _neighbours(self, partition: Partition, seeds: Sequence[Candidate]) -> dict[str, float]:
        """What stands beside the seeds in their sessions."""
        members = [(c.document.session_id, c.document.position, c.document.id) for c in seeds]
        around = await self._graph.around(partition, members, reach=1)
        strengths = {seed.document.id: seed.score for seed in seeds}
        neighbours: dict[str, float] = {}
        for event_id, entries in around.items():
            for entry in entries:
                if entry.event_id not in strengths:
                    neighbours[entry.event_id] = max(neighbours.get(entry.event_id, 0.0), strengths[event_id])
        return neighbours

    async def read(self, channels: Mapping[DocumentKey, Mapping[str, float]], ask: Ask) -> list[Candidate]:
        """The documents behind channel scores, those that pass the filters and the as-of; best first."""
        by_partition: dict[Partition, list[str]] = {}
        for partition, doc_id in channels:
            by_partition.setdefault(partition, []).append(doc_id)
        found: list[Candidate] = []
        for partition, ids in by_partition.items():
            documents = await self._index.read_documents(partition, ids, entities=ask.by_entity)
            for doc_id, stored in zip(ids, documents, strict=True):
                if stored is not None and _allowed(stored, ask):
                    scores = channels[(partition, doc_id)]
                    found.append(Candidate(partition, stored.document, scores, fused(scores)))
        return sorted(found, key=lambda c: (-c.score, c.document.position, c.document.id))


_FAN_OUT = 20  # effects followed from one event
_FALL_OFF = 0.6  # of a seed's score, for each causal step


def _relative(scores: Mapping[str, float], best: float) -> dict[str, float]:
    return {name: score / best for name, score in scores.items()}


def _channel_scores(hits: Mapping[Partition, Hits]) -> dict[DocumentKey, dict[str, float]]:
    """Each channel over all partitions brought to 0..1."""
    channels: dict[DocumentKey, dict[str, float]] = {}
    vector = {(p, doc_id): score for p, found in hits.items() for doc_id, score in found.vector.items()}
    text = {(p, doc_id): score for p, found in hits.items() for doc_id, score in found.text.items()}
    for name, scores, from_zero in (("vector", vector, False), ("text", text, True)):
        texts = {f"{partition}\0{doc_id}": score for (partition, doc_id), score in scores.items()}
        relative = scaled(texts, from_zero=from_zero)
        for key in scores:
            channels.setdefault(key, {})[name] = relative[f"{key[0]}\0{key[1]}"]
    return channels


def _allowed(stored: StoredDocument, ask: Ask) -> bool:
    document = stored.document
    if ask.as_of is not None and not ask.as_of.includes(document.position):
        return False
    values: dict[str, Sequence[str] | float | None] = {
        "event_type": [document.event_type],
        "tool_name": [document.tool_name] if document.tool_name else [],
        "agent_id": [document.agent_id],
        "user_id": [document.user_id] if document.user_id else [],
        "session_id": [document.session_id],
        "entity": stored.entity_tags,
        "status": [document.status] if document.status else [],
        "origin": [document.origin],
        "kind": [document.kind],
        "occurred_at": float(document.occurred_at),
        "importance": float(document.importance),
    }
    return holds(ask.checked, values)
