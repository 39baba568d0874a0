"""Law: what a generation keeps of a decision is the decision, whatever its stretches, in few bytes."""

from __future__ import annotations

from dataclasses import replace

import orjson
from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.forgetting import Decision, Place, Stretch
from context_graph.domain.position import LAST_MS, LAST_SEQ, Position
from context_graph.store.forgotten import decision_of_row, decision_row

ORDERS = st.builds(lambda ms, seq: Position(0, ms, seq).sort_key, st.integers(0, LAST_MS), st.integers(0, LAST_SEQ))
PLACES = st.builds(Place, st.integers(0, 2**44), ORDERS)
DECISIONS = st.builds(
    Decision, st.just("s"), ORDERS, st.booleans(), st.integers(0, 2**44),
    st.lists(st.builds(Stretch, PLACES, PLACES, ORDERS), max_size=8).map(tuple),
    summaries_through=st.just("") | ORDERS,
)  # fmt: skip


@given(DECISIONS)
def test_a_row_leads_back_to_its_decision(decision: Decision) -> None:
    assert decision_of_row("s", decision.order, decision_row(decision)) == decision


@given(DECISIONS)
def test_rows_of_fold_version_4_are_read(decision: Decision) -> None:
    stretches = [
        [s.first.occurred_at, s.first.order, s.last.occurred_at, s.last.order, s.through] for s in decision.stretches
    ]
    row = orjson.dumps([int(decision.forgotten), decision.at, stretches])
    assert decision_of_row("s", decision.order, row) == replace(decision, summaries_through="")


def test_a_stretch_of_neighbours_costs_at_most_thirty_bytes() -> None:
    at = 1_750_000_000_000
    order = [Position(0, at + i * 4000, 0).sort_key for i in range(40)]
    stretches = tuple(
        Stretch(Place(at + i * 4000, order[i]), Place(at + (i + 1) * 4000, order[i + 1]), order[i + 1])
        for i in range(0, 40, 4)
    )
    assert len(decision_row(Decision("s", order[-1], True, at, stretches))) < 60 + 30 * len(stretches)
