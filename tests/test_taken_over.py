"""What the rules found is taken over only where it is what they would find now, byte for byte."""

from __future__ import annotations

from dataclasses import replace

import pytest

from context_graph.domain.document import Document, Enrichment
from context_graph.domain.position import Position
from context_graph.models.recogniser import Span
from context_graph.store.answers import StoredAnswer, proof_of
from context_graph.store.entities import SHOWN, shown_fields
from enrichment import found as module
from enrichment.enrich import embedded_text, enrichment_of, text_hash
from enrichment.found import find, source_of, taken_over
from enrichment.known import packed_spans

RECOGNISER = "en_core_web_sm/3.8/4000/1"
TEXTS = (
    "Mia Li from Berlin, that is Mia Li, paid $120.50 for order #W0012345 (order id: #W0012345) on May 3rd.",
    "tool failed: ConnectionResetError in src/booking/refunds.py, see https://example.org/a?b=1 and `refund_create()`.",
    "nothing at all",
    "",
    "mia li wrote MIA LI and Mia  Li; É́lodie went to New York; support asks support",
)


def document(text: str, *, tool: str | None = None, agent: str = "support", status: str | None = None) -> Document:
    return Document(
        id="e1", kind="event", text=text, speaker="user", event_ids=("e1",), position=Position(0, 5, 1),
        event_type="user.message", session_id="s1", agent_id=agent, occurred_at=7, origin="user", tool_name=tool,
        status=status,
    )  # fmt: skip


def enriched(asked: Document) -> Enrichment:
    spans = [Span("Mia Li", "PERSON", 0, 6)] if asked.text.startswith("Mia Li") else []
    return enrichment_of(asked, find(asked, spans, packed_spans(RECOGNISER, spans)), b"", "model", RECOGNISER)


def stored(enrichment: Enrichment) -> StoredAnswer:
    fields = shown_fields(enrichment)
    shown = tuple(fields.get(name, b"") for name in SHOWN)
    proof = proof_of(enrichment.source, shown)
    return StoredAnswer(b"", b"model", enrichment.text_hash, enrichment.spans, proof, shown)


def source(asked: Document) -> bytes:
    return source_of(asked, text_hash(embedded_text(asked)), RECOGNISER)


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_taken_over_writes_what_was_written(text: str) -> None:
    asked = document(text)
    first = enriched(asked)
    known = taken_over(asked, stored(first), source(asked))
    assert known is not None
    again = enrichment_of(asked, known, b"", "model", RECOGNISER)
    assert shown_fields(again) == shown_fields(first)
    assert {(m.entity_id, m.label, m.name) for m in again.mentions} == {
        (m.entity_id, m.label, m.name) for m in first.mentions
    }
    assert (again.spans, again.source) == (first.spans, first.source)


def test_nothing_is_taken_over_of_a_changed_byte_another_envelope_or_other_rules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = document(TEXTS[0])
    answer = stored(enriched(asked))
    assert taken_over(asked, answer, source(asked)) is not None
    for place, value in enumerate(answer.shown):
        changed = [*answer.shown]
        changed[place] = value.replace(b"1", b"2") if b"1" in value else value + b" "
        assert taken_over(asked, replace(answer, shown=tuple(changed)), source(asked)) is None
    others = (
        document(TEXTS[0], tool="refund"),
        document(TEXTS[0], agent="sales"),
        document(TEXTS[0], status="failed"),
        document(TEXTS[1]),
    )
    for other in others:
        assert taken_over(other, answer, source(other)) is None
    monkeypatch.setattr(module, "RULES", bytes(16))
    assert taken_over(asked, answer, source(asked)) is None
