"""Stage 2, first half: every event findable by its text at once.

No model is asked, so this stage keeps up with the ledger while the vectors (`enrich.py`) follow at the model's pace.
"""

from __future__ import annotations

from collections.abc import Sequence

from context_graph.domain.document import Document
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.text import document_of, indexed
from context_graph.store.index import Index
from enrichment.importance import importance_of


def documents_of(events: Sequence[LedgerEvent]) -> list[Document]:
    """The documents of the events that are searched, in order; of an erased one nothing is."""
    return [
        document_of(event, importance_of(event.envelope))
        for event in events
        if indexed(event.envelope) and not event.erased
    ]


class IndexingHandler:
    """Puts the documents of a batch into the index."""

    def __init__(self, index: Index) -> None:
        self._index = index

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        """Index the batch, whole, in one round trip. Raises StoreUnavailable."""
        documents = documents_of(events)
        if documents:
            await self._index.put_documents(partition, documents)
