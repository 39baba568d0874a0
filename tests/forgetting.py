"""Forgetting in tests: the three stages over one batch after another, without models, and decisions as events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

import numpy as np

from context_graph.bootstrap import Resources
from context_graph.delivery.forgetting import ForgettingHandler, place_of
from context_graph.delivery.source import Handler
from context_graph.domain.document import Document, Enrichment, Mention
from context_graph.domain.event import Envelope, LedgerEvent
from context_graph.domain.forgetting import Member, Stretch, decision_event
from context_graph.domain.partition import Partition
from context_graph.domain.stages import STAGES
from context_graph.store import codec
from context_graph.store.forgotten import Forgotten
from context_graph.store.index import Index
from context_graph.store.keys import PartitionKeys
from context_graph.store.ledger import Appendable
from enrichment.generation import IndexingOf
from enrichment.indexing import documents_of
from enrichment.reconsolidation.forgetting_pass import Forgot, forget
from enrichment.reconsolidation.run import consolidate
from projections.worker import forgetting


def vector_of(text: str, dimensions: int = 384) -> bytes:
    """A unit vector made of the words: texts with common words are near each other. No model."""
    vector = np.zeros(dimensions, dtype=np.float32)
    for word in text.lower().split():
        digest = blake2b(word.encode(), digest_size=8).digest()
        vector[int.from_bytes(digest) % dimensions] += 1.0
    norm = float(np.linalg.norm(vector))
    return (vector / norm if norm else vector).tobytes()


@dataclass(frozen=True, slots=True)
class MadeVectors:
    """Stage 2's second half with vectors made of words, and each word with a capital as an entity."""

    index: Index

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        documents = documents_of(events)
        if documents:
            await self.index.put_enrichments(partition, [_enriched(document) for document in documents])


def _enriched(document: Document) -> Enrichment:
    names = dict.fromkeys(word for word in document.text.split() if word[:1].isupper())
    mentions = tuple(Mention(f"person:{n.lower()}", n, "PERSON", 0, len(n)) for n in list(names)[:5])
    return Enrichment(document, vector_of(document.text), "made", "0" * 32, mentions)


def stages(resources: Resources, generation: int = 1) -> tuple[Handler, ...]:
    """All that writes a generation, each as its worker runs it."""
    graph = resources.graph.at(generation)
    forgotten = Forgotten(resources.derived_redis, graph)
    made = MadeVectors(resources.index.at(generation))
    enriching = ForgettingHandler(
        made, forgotten, resources.ledger, forgotten.remove_enrichments, spares=True,
        remove_summaries=partial(forgotten.remove_summaries, vectors=True),
    )  # fmt: skip
    return (forgetting(resources, graph), IndexingOf(resources, generation), enriching)


async def append(resources: Resources, partition: Partition, envelopes: Sequence[Envelope]) -> None:
    """Append; derived events in the clear, as the service does it."""
    events = [Appendable(e.event_id, e.session_id, codec.encode(e), clear=e.is_derived) for e in envelopes]
    for start in range(0, len(events), 1000):
        await resources.ledger.append(partition, events[start : start + 1000])


async def everything(resources: Resources, partition: Partition) -> list[LedgerEvent]:
    """The whole ledger."""
    return await resources.ledger.after(partition, None, 1_000_000)


async def derive(
    resources: Resources, partition: Partition, events: Sequence[LedgerEvent] | None = None, generation: int = 1
) -> None:
    """Let every stage handle these events (or all there are)."""
    found = await everything(resources, partition) if events is None else events
    for stage in stages(resources, generation):
        for start in range(0, len(found), 500):
            await stage.handle(partition, found[start : start + 500])


def decided(
    events: Sequence[LedgerEvent], *, forgotten: bool, occurred_at: int, after: str = "", places: bool = False
) -> Envelope:
    """A decision about the stretch from the first to the last of these events of a session, which are in order."""
    stands = [place_of(event) for event in events]
    stretch = Stretch(stands[0], stands[-1], max(place.order for place in stands))
    members = [Member(event.envelope.event_id, place_of(event)) for event in events]
    first = events[0]
    return decision_event(
        forgotten, first.position.bucket, first.envelope.session_id, [stretch], members,
        occurred_at=occurred_at, after=after, places=places,
    )  # fmt: skip


async def passed(resources: Resources, partition: Partition) -> None:
    """The stages' groups have finished everything, as their workers would leave them."""
    for stage in STAGES:
        await resources.groups.ensure(partition, stage.group)
        await resources.ledger_redis.xgroup_setid(PartitionKeys(partition).ledger, stage.group, "$")


async def lived(resources: Resources, partition: Partition, now: int, *, consolidated: bool = True) -> Forgot:
    """Everything derived, consolidated, forgotten as of `now`, and that derived too: what workers do between events."""
    await derive(resources, partition)
    await passed(resources, partition)
    if consolidated:
        await consolidate(resources, partition, "test")
        await derive(resources, partition)
        await passed(resources, partition)
    done = await forget(resources, partition, "test", now)
    if done.appended:
        await derive(resources, partition)
        await passed(resources, partition)
    return done
