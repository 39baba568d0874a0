"""Stage 2, first half: every event findable by its text at once.

No model is asked, so this stage keeps up with the ledger while the vectors (`enrich.py`) follow at the model's pace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from context_graph.domain.document import Document
from context_graph.domain.event import ENTITY_MERGE_TYPE, ENTITY_SPLIT_TYPE, LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.text import document_of, indexed, searchable
from context_graph.errors import PermanentError
from context_graph.store.entities import EntityDecision
from context_graph.store.index import Index
from enrichment.importance import importance_of


def documents_of(events: Sequence[LedgerEvent]) -> list[Document]:
    """The documents of the events that are searched, in order; of an erased one nothing is."""
    spoken = [(e, searchable(e.envelope)) for e in events if indexed(e.envelope) and not e.erased]
    return [document_of(event, importance_of(event.envelope, found), found) for event, found in spoken]


def decisions_of(events: Sequence[LedgerEvent]) -> list[EntityDecision]:
    """What these events decide about pairs of entities: all names of a merge are one thing, of a split none is."""
    return [
        decision
        for event in events
        if event.envelope.event_type in (ENTITY_MERGE_TYPE, ENTITY_SPLIT_TYPE) and not event.erased
        for decision in _decided(event)
    ]


def _decided(event: LedgerEvent) -> Iterator[EntityDecision]:
    envelope = event.envelope
    payload = envelope.payload if isinstance(envelope.payload, dict) else {}
    named, note = payload.get("entities"), payload.get("note")
    names = sorted({name for name in named if isinstance(name, str)}) if isinstance(named, list) else []
    if len(names) < 2:
        raise PermanentError(f"{envelope.event_type} {envelope.event_id!r} names fewer than two entities")
    for left, right in combinations(names, 2):
        yield EntityDecision(
            left=left,
            right=right,
            same=envelope.event_type == ENTITY_MERGE_TYPE,
            event_id=envelope.event_id,
            position=event.position,
            note=note if isinstance(note, str) else None,
        )


class IndexingHandler:
    """Puts the documents of a batch into the index, and what is decided about entities beside them."""

    def __init__(self, index: Index) -> None:
        self._index = index

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        """Index the batch, whole, in one round trip. Raises StoreUnavailable."""
        documents = documents_of(events)
        if documents:
            await self._index.put_documents(partition, documents)
        decisions = decisions_of(events)
        if decisions:
            await self._index.entities.put_decisions(partition, decisions)
