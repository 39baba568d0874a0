"""Laws of receipts: from a receipt and the ledger come the very bytes, in every format, or the truth about why not."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.event import Envelope, EventId, LedgerEvent, SessionId, TenantId
from context_graph.domain.position import Position
from context_graph.domain.text import document_of
from context_graph.models.tokens import TokenCounter, open_counter
from context_graph.retrieval.context import shortened
from context_graph.retrieval.items import DEFAULT_SHARES, SECTIONS, Item
from context_graph.retrieval.pack import Packed, pack
from context_graph.retrieval.receipts import digest, ends_of, read_receipt, receipt_of, reproduce
from context_graph.retrieval.render import FORMATS
from context_graph.retrieval.request import ContextQuery
from context_graph.store import codec
from tests.laws.strategies import LEDGERS


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    return open_counter("o200k_base")


SUMMARY = Envelope(
    event_id=EventId("summary-1"), event_type="memory.summary", session_id=SessionId("s1"), agent_id="context-graph",
    occurred_at=6000, origin="derived",
    payload={"scope": "session/s1", "text": "It was refunded … twice.", "sentences": [{"event_ids": ["e1", "e2"]}]},
)  # fmt: skip


def _served(ledger: list[LedgerEvent], sections: list[int], limit: int) -> list[Item]:
    items = []
    for rank, event in enumerate(ledger, 1):
        document = document_of(event, 5)
        text, cut = shortened(document.text, limit)
        section = "summary" if document.kind == "summary" else SECTIONS[1 + sections[rank % len(sections)]]
        items.append(Item(document, section, text, 1 / rank, {"text": 1.0}, rank, document.id, cut))
    return [item for item in items if item.text]


def _receipt(query: ContextQuery, packed: Packed) -> LedgerEvent:
    """As the ledger gives it back: through its bytes."""
    written = codec.encode(receipt_of(EventId("receipt-1"), query, packed, 9000))
    return LedgerEvent(TenantId("default"), Position(0, 9000, 0), codec.decode(written))


@given(
    ledger=LEDGERS,
    sections=st.lists(st.integers(0, 1), min_size=1, max_size=5),
    limit=st.sampled_from([12, 40, 240]),
    budget=st.integers(16, 800),
    shape=st.sampled_from(sorted(FORMATS)),
)
def test_a_receipt_reproduces_its_bytes(
    counter: TokenCounter, ledger: list[LedgerEvent], sections: list[int], limit: int, budget: int, shape: str
) -> None:
    ledger = [*ledger, LedgerEvent(TenantId("default"), Position(0, 1_800_000_000_000, 0), SUMMARY)]
    items = _served(ledger, sections, limit)
    format_ = FORMATS[shape]
    packed = pack(items, limit=budget, shares=DEFAULT_SHARES, shape=format_, count=counter.count)
    query = ContextQuery(query="why?", format=shape, token_budget=budget)
    receipt = read_receipt(_receipt(query, packed))
    again = reproduce(receipt, {event.position: event for event in ledger})
    assert again.state == "reproduced"
    assert orjson.dumps(again.content) == orjson.dumps(format_.content(packed.items))
    assert again.sha256 == again.served_sha256 == digest(shape, packed.items)
    assert [item.event_ids for item in again.items] == [item.event_ids for item in packed.items]


@given(ledger=LEDGERS.filter(bool), shape=st.sampled_from(sorted(FORMATS)), gone=st.integers(0, 11))
def test_what_was_erased_or_is_missing_is_named_and_never_made_up(
    counter: TokenCounter, ledger: list[LedgerEvent], shape: str, gone: int
) -> None:
    packed = pack(
        _served(ledger, [0], 240), limit=5000, shares=DEFAULT_SHARES, shape=FORMATS[shape], count=counter.count
    )
    receipt = read_receipt(_receipt(ContextQuery(query="why?", format=shape), packed))
    events = {event.position: event for event in ledger}
    lost = packed.items[gone % len(packed.items)]
    rest = [item.id for item in packed.items if item.id != lost.id]
    there = events.pop(lost.document.position)
    without = reproduce(receipt, events)
    assert (without.state, without.content, without.missing) == ("incomplete", None, (lost.id,))
    erased = replace(there, envelope=replace(there.envelope, payload=None), erased=True)
    after = reproduce(receipt, events | {erased.position: erased})
    assert (after.state, after.content, after.erased) == ("erased", None, (lost.id,))
    assert [item.id for item in after.items] == [item.id for item in without.items] == rest


@given(whole=st.text(alphabet="ab … ", min_size=1, max_size=400), limit=st.integers(10, 200))
def test_a_cut_is_told_by_its_two_ends(whole: str, limit: int) -> None:
    text, cut = shortened(whole, limit)
    if cut:
        head, tail = ends_of(text, whole)
        assert whole[:head] + " … " + whole[len(whole) - tail :] == text
