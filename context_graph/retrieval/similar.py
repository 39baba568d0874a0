"""SIMILAR_TO: the events nearest in meaning, found when they are asked for.

An edge that is stored when an event comes knows nothing of those that come later, and an edge that is written to both
ends depends on the order of arrival. Asked of the vectors instead, the answer is of what is in the ledger now, from
either end: similarity is one number for both. Approximate as HNSW is (recall 0.998, adr/0020); of a long text the head
is compared with every passage of the others.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from context_graph.domain.document import Document
from context_graph.domain.filters import Filters, TagCondition
from context_graph.domain.partition import Partition, Tenant
from context_graph.errors import UnknownThing
from context_graph.retrieval.request import AsOf
from context_graph.store.index import Index
from context_graph.store.queries import Searcher

THRESHOLD = 0.6
"""Cosine of MiniLM from which turns of one conversation are 14 times as often about one thing as any two of them.

At 0.5 it is 7 times and five times as many links; at 0.7 seven turns of ten have none (tests/quality/links.py).
"""
_EVENTS = Filters((TagCondition("kind", "eq", ("event",)),))
_PASSAGES = 4  # vectors looked at for each event asked for: a long one has several


@dataclass(frozen=True, slots=True)
class Similar:
    """An event near another: cosine similarity of their texts."""

    document: Document
    score: float


@dataclass(frozen=True, slots=True)
class SimilarEvents:
    """An event and those near it, nearest first. `ready`: its vector is there; without one nothing is near yet."""

    event: Document
    near: tuple[Similar, ...]
    ready: bool


async def similar_events(
    index: Index,
    searcher: Searcher,
    tenant: Tenant,
    event_id: str,
    *,
    limit: int,
    threshold: float = THRESHOLD,
    as_of: AsOf | None = None,
) -> SimilarEvents:
    """Events of all the tenant's partitions that were there, at most `limit`, none below `threshold`.

    Raises UnknownThing, also for an event that came later than `as_of`.
    """
    partition, event = await _find(index, tenant, event_id)
    if as_of is not None and not as_of.includes(event.position):
        raise UnknownThing("event", event_id)
    [answer] = await index.read_answers(partition, [event_id])
    if answer is None:
        return SimilarEvents(event, (), False)
    wanted = (limit + 1) * _PASSAGES
    found = await asyncio.gather(
        *(searcher.near(p, answer.vector, _EVENTS, wanted, _until(as_of, p)) for p in tenant.partitions)
    )
    near: list[Similar] = []
    for place, scores in zip(tenant.partitions, found, strict=True):
        ids = [one for one, score in scores.items() if score >= threshold and one != event_id]
        documents = await index.read_documents(place, ids)
        near += [
            Similar(d.document, scores[d.document.id])
            for d in documents
            if d and (as_of is None or as_of.includes(d.document.position))
        ]
    near.sort(key=lambda one: (-one.score, one.document.position.sort_key))
    return SimilarEvents(event, tuple(near[:limit]), True)


def _until(as_of: AsOf | None, partition: Partition) -> int | None:
    """The index knows of a position no more than its millisecond."""
    return None if as_of is None else as_of.last(partition.bucket).ms


async def _find(index: Index, tenant: Tenant, event_id: str) -> tuple[Partition, Document]:
    for partition in tenant.partitions:
        [stored] = await index.read_documents(partition, [event_id])
        if stored is not None and stored.document.kind == "event":
            return partition, stored.document
    raise UnknownThing("event", event_id)
