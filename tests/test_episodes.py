"""Episodes: a session is cut where it was silent, and nowhere else."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.position import Position
from enrichment.reconsolidation.episodes import Moment, cut


def moments(*seconds: int) -> list[Moment]:
    return [Moment(f"e{i}", Position(0, i + 1, 0), at * 1000) for i, at in enumerate(seconds)]


def test_a_session_without_events_has_no_episodes() -> None:
    assert cut([], 1800) == ()


def test_a_single_event_is_an_episode_of_its_own() -> None:
    (episode,) = cut(moments(7), 1800)
    assert (episode.index, episode.started_at, episode.ended_at, episode.event_ids) == (0, 7000, 7000, ("e0",))


def test_silence_longer_than_the_gap_ends_an_episode_and_the_gap_itself_does_not() -> None:
    first, second = cut(moments(0, 1800, 3601), 1800)
    assert first.event_ids == ("e0", "e1")
    assert (first.started_at, first.ended_at) == (0, 1_800_000)
    assert second.event_ids == ("e2",)
    assert second.index == 1


def test_times_before_1970_and_equal_times_are_cut_as_any_others() -> None:
    assert [e.event_ids for e in cut(moments(-4000, -4000, -1, 0), 60)] == [("e0", "e1"), ("e2", "e3")]


def test_events_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="order of occurrence"):
        cut(moments(5, 4), 1800)


@given(st.lists(st.integers(0, 10**6), max_size=60).map(sorted), st.integers(1, 10**5))
def test_every_event_is_in_exactly_one_episode_and_only_gaps_separate_them(times: list[int], gap: int) -> None:
    episodes = cut(moments(*times), gap)
    assert [i for e in episodes for i in e.event_ids] == [f"e{i}" for i in range(len(times))]
    assert [e.index for e in episodes] == list(range(len(episodes)))
    for before, after in pairwise(episodes):
        assert after.started_at - before.ended_at > gap * 1000
    for episode in episodes:
        inside = [times[int(i[1:])] for i in episode.event_ids]
        assert all(b - a <= gap for a, b in pairwise(inside))
