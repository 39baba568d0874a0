"""Stage 2 as a pure function: documents, what vectors are made from, and what the rules find in what a model said.

No model is asked. Which spans the recogniser saw is taken as it is remembered beside the vectors, as the vectors are;
from there on entities are found anew. Of an event of which no spans are remembered nothing is said about entities.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from context_graph.derivations import Derivation
from context_graph.domain.event import LedgerEvent
from context_graph.store.answers import StoredAnswer
from context_graph.store.entities import shown_fields
from context_graph.store.facts import DOCUMENT, ENTITIES, VECTOR, Fact, document_fact, entity_facts, vector_fact
from enrichment.enrich import embedded_text, enrichment_of, text_hash
from enrichment.found import find
from enrichment.indexing import documents_of
from enrichment.known import unpacked_spans


def _facts(events: Sequence[LedgerEvent]) -> Iterator[Fact]:
    for document in documents_of(events):
        yield document_fact(document)
        yield vector_fact(document, text_hash(embedded_text(document)))


def _of_answers(
    events: Sequence[LedgerEvent], answers: Mapping[str, StoredAnswer], recogniser_id: str
) -> dict[str, list[Fact]]:
    found: dict[str, list[Fact]] = {}
    for document in documents_of(events):
        answer = answers.get(document.id)
        if document.kind != "event" or answer is None or answer.text_hash != text_hash(embedded_text(document)):
            continue
        spans = unpacked_spans(recogniser_id, document.text, answer.spans)
        if spans is None:
            continue
        made = enrichment_of(document, find(document, spans, b""), b"", "")
        entities = dict.fromkeys(mention.entity_id for mention in made.mentions)
        found[document.id] = entity_facts(document, shown_fields(made), entities)
    return found


DERIVATION = Derivation("enrichment", (DOCUMENT, VECTOR, ENTITIES), _facts, _of_answers)
