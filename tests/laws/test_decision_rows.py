"""Law: what a generation keeps of a decision is the decision, whatever its stretches, in few bytes."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import orjson
from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.forgetting import Decision, Place, Stretch, decisions, standing
from context_graph.domain.position import LAST_MS, LAST_SEQ, Position
from context_graph.store.forgotten import decision_of_row, decision_row

ORDERS = st.builds(lambda ms, seq: Position(0, ms, seq).sort_key, st.integers(0, LAST_MS), st.integers(0, LAST_SEQ))
PLACES = st.builds(Place, st.integers(0, 2**44), ORDERS)
DECISIONS = st.builds(
    Decision, st.just("s"), ORDERS, st.booleans(), st.integers(0, 2**44),
    st.lists(st.builds(Stretch, PLACES, PLACES, ORDERS), max_size=8).map(tuple),
    summaries_through=st.just("") | ORDERS, places=st.booleans(),
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
    assert decision_of_row("s", decision.order, row) == replace(decision, summaries_through="", places=False)


def test_a_stretch_of_neighbours_costs_at_most_thirty_bytes() -> None:
    at = 1_750_000_000_000
    order = [Position(0, at + i * 4000, 0).sort_key for i in range(40)]
    stretches = tuple(
        Stretch(Place(at + i * 4000, order[i]), Place(at + (i + 1) * 4000, order[i + 1]), order[i + 1])
        for i in range(0, 40, 4)
    )
    assert len(decision_row(Decision("s", order[-1], True, at, stretches))) < 60 + 30 * len(stretches)


# Few places, so that stretches meet; decisions of one session, each with an order of its own.
NEAR = [Place(i // 2, Position(0, i, 0).sort_key) for i in range(8)]
STRETCHES = st.builds(
    lambda a, b, c: Stretch(min(a, b), max(a, b), c.order), st.sampled_from(NEAR), st.sampled_from(NEAR),
    st.sampled_from(NEAR),
)  # fmt: skip
MEETING = st.lists(
    st.builds(
        Decision, st.just("s"), st.integers(100, 200).map(lambda ms: Position(0, ms, 0).sort_key), st.booleans(),
        st.integers(0, 9), st.lists(STRETCHES, max_size=3).map(tuple),
        summaries_through=st.just("") | st.sampled_from(NEAR).map(lambda place: place.order), places=st.booleans(),
    ),
    max_size=7, unique_by=lambda decision: decision.order,
)  # fmt: skip


@given(MEETING, st.randoms(use_true_random=False))
def test_what_is_overruled_says_nothing_and_goes_in_any_order(known: list[Decision], chance: Random) -> None:
    """Kept one after another, what is overruled dropped in between: the same decisions stay, and decide the same."""
    final = decisions(standing(known))
    arriving, kept = [*known, *known], list[Decision]()
    chance.shuffle(arriving)
    for decision in arriving:
        kept = standing([*(one for one in kept if one != decision), decision])
    assert decisions(kept) == final
    before = decisions(known)
    for place in NEAR:
        assert final.deciding(place) == before.deciding(place)
        assert final.deciding_summary(place.order) == before.deciding_summary(place.order)
