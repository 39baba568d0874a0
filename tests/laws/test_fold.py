"""Laws of Stage 1: in any order, twice, or cut into any batches, the same events give the same graph."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.event import LedgerEvent
from context_graph.domain.graph import GraphDelta
from projections.fold import fold
from tests.laws.strategies import LEDGERS, RECEIPT


@given(LEDGERS, st.randoms(use_true_random=False))
def test_order_does_not_matter(ledger: list[LedgerEvent], chance: random.Random) -> None:
    shuffled = list(ledger)
    chance.shuffle(shuffled)
    assert fold(shuffled) == fold(ledger)


@given(LEDGERS)
def test_twice_is_once(ledger: list[LedgerEvent]) -> None:
    assert fold([*ledger, *ledger]) == fold(ledger)


@given(LEDGERS, st.integers(1, 5))
def test_batches_add_up(ledger: list[LedgerEvent], size: int) -> None:
    batches = [fold(ledger[start : start + size]) for start in range(0, len(ledger), size)]
    assert GraphDelta().merge(reversed(batches)) == fold(ledger)


@given(LEDGERS)
def test_every_cause_is_known_at_both_ends(ledger: list[LedgerEvent]) -> None:
    delta = fold(ledger)
    forward = {(node.id, cause) for node in delta.events.values() for cause in node.causes}
    backward = {(member[17:], cause) for cause, effects in delta.effects.items() for member in effects}
    assert forward == backward


@given(LEDGERS)
def test_what_is_named_beside_a_receipt_is_cited_until_it_is_erased(ledger: list[LedgerEvent]) -> None:
    erased = [replace(event, erased=place % 2 == 0) for place, event in enumerate(ledger)]
    expected = {
        (cause, event.envelope.event_id)
        for event in erased
        for cause in event.envelope.causes
        if not event.erased and cause != RECEIPT and RECEIPT in event.envelope.causes
    }
    said = fold(erased).opinions
    assert {(cited, opinion.origin_id) for cited, opinions in said.items() for opinion in opinions} == expected
    assert all(opinion.verdict == 1 for opinions in said.values() for opinion in opinions)


@given(LEDGERS)
def test_a_session_is_ordered_by_occurrence_and_ties_by_position(ledger: list[LedgerEvent]) -> None:
    delta = fold(ledger)
    for (kind, identifier), members in delta.timelines.items():
        if kind == "session":
            mine = [event for event in ledger if event.envelope.session_id == identifier]
            expected = sorted(mine, key=lambda event: (event.envelope.occurred_at, event.position))
            ordered = sorted(members, key=lambda member: (members[member], member))
            assert [member[17:] for member in ordered] == [event.envelope.event_id for event in expected]
