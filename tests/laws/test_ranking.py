"""Laws of ranking: it is about the turns, not about their order; what is nearer to a match is no worse for it."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.document import Document
from context_graph.domain.position import Position
from context_graph.domain.query import understand
from context_graph.retrieval.ranking import FEATURES, Match, Placed, chances_of, channels_of, features_of, promising

_NAMES = [feature.name for feature in FEATURES]


def _placed(session: str, place: int | None, turns: int, match: Match, text: str = "some words here") -> Placed:
    number = 1000 * (session == "t") + (0 if place is None else place)
    document = Document(
        id=f"{session}/{place}", kind="event", text=text, speaker="nadia", event_ids=(f"{session}/{place}",),
        position=Position(0, 1, number), event_type="user.message", session_id=session, agent_id="a",
        occurred_at=1_788_000_000_000, origin="user",
    )  # fmt: skip
    return Placed(document, place, turns, match)


_SCORE = st.floats(0, 1)
_TURNS = st.dictionaries(
    st.tuples(st.sampled_from(["s", "t"]), st.integers(0, 29)),
    st.builds(Match, _SCORE, _SCORE, _SCORE),
    min_size=1,
    max_size=20,
)
_ASKED = understand("when did nadia call last week?", known_speakers=["nadia"])


@given(turns=_TURNS, seed=st.integers(0, 100))
def test_the_order_in_which_turns_arrive_changes_nothing(turns: dict[tuple[str, int], Match], seed: int) -> None:
    placed = [_placed(session, place, 30, match) for (session, place), match in turns.items()]
    mixed = list(placed)
    random.Random(seed).shuffle(mixed)
    chances = dict(zip((p.document.id for p in placed), chances_of(features_of(placed, _ASKED)), strict=True))
    again = dict(zip((p.document.id for p in mixed), chances_of(features_of(mixed, _ASKED)), strict=True))
    assert chances.keys() == again.keys()
    assert all(np.isclose(chances[key], again[key]) for key in chances)
    assert np.isclose(sum(chances.values()), 1.0)
    assert promising(placed, 9) == promising(mixed, 9)


@given(turns=_TURNS)
def test_places_beside_matches_are_free_ones_within_reach_of_a_match(turns: dict[tuple[str, int], Match]) -> None:
    placed = [_placed(session, place, 30, match) for (session, place), match in turns.items()]
    for session, place in promising(placed, 40):
        assert 0 <= place < 30
        assert (session, place) not in turns
        assert any(session == other and abs(place - there) <= 3 for other, there in turns)


def test_a_turn_beside_a_match_is_worth_more_than_the_same_turn_far_away() -> None:
    placed = [_placed("s", n, 30, Match(1.0, 1.0) if n == 10 else Match()) for n in range(30)]
    chances = chances_of(features_of(placed, understand("what about it")))
    assert chances[10] > chances[11] > chances[25]
    assert chances[9] > chances[1]


def test_in_a_long_session_a_passage_reaches_further_than_in_a_short_one() -> None:
    def lifted(turns: int) -> float:
        """A turn a dozen turns behind a passage, beside one far away."""
        placed = [_placed("s", n, turns, Match(1.0, 1.0) if n < 8 else Match()) for n in (*range(20), 60)]
        chances = chances_of(features_of(placed, understand("what about it")))
        return float(chances[19] / chances[20])

    assert lifted(600) > lifted(61) >= 1.0


def test_what_has_no_place_stands_alone() -> None:
    placed = [_placed("s", 3, 9, Match(1.0, 1.0)), _placed("s", None, 0, Match(0.5, 0.5))]
    row = features_of(placed, understand("what about it"))[1]
    assert row[_NAMES.index("passage")] == 0.0
    assert row[_NAMES.index("before")] == 0.0


def test_channels_add_up_to_the_first_reading() -> None:
    placed = [_placed("s", n, 30, Match(0.9 - n / 20, n / 20)) for n in range(9)]
    features = features_of(placed, _ASKED)
    for row, channels in zip(features, channels_of(features), strict=True):
        total = sum(feature.weight * value for feature, value in zip(FEATURES, row, strict=True))
        assert np.isclose(sum(channels.values()), total)


@given(text=st.sampled_from(["A" * 250_000, " ".join(f"tok{number}" for number in range(25_000))]), vector=_SCORE)
def test_length_alone_never_outweighs_the_only_exact_match(text: str, vector: float) -> None:
    exact = _placed("s", 0, 10, Match(vector, 1.0), "the code is zetaseven, I think it was")
    long = _placed("s", 9, 10, Match(vector, 0.0), text)
    first, second = chances_of(features_of([exact, long], understand("zetaseven")))
    assert first > second
