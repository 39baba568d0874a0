"""Stage 2 as a pure function, as far as it needs no model: documents, what vectors are made from.

Entities are left out: they need the recogniser. Two generations are compared by them, a replay is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from context_graph.derivations import Derivation
from context_graph.domain.event import LedgerEvent
from context_graph.store.facts import DOCUMENT, VECTOR, Fact, document_fact, vector_fact
from enrichment.enrich import embedded_text, text_hash
from enrichment.indexing import documents_of


def _facts(events: Sequence[LedgerEvent]) -> Iterator[Fact]:
    for document in documents_of(events):
        yield document_fact(document)
        yield vector_fact(document, text_hash(embedded_text(document)))


DERIVATION = Derivation("enrichment", (DOCUMENT, VECTOR), _facts)
