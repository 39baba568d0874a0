"""Shifts of topic: found where the words change, nowhere else, and the same every time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.position import Position
from enrichment.reconsolidation.episodes import Moment, cut
from enrichment.reconsolidation.sentences import terms
from enrichment.reconsolidation.topics import SHORTEST, Words, topic_borders, words_of
from tests.quality.episodes import DATA, Meeting, compared, errors_of, meetings

PARCELS = "parcel carrier depot address delivery driver label customs tracking warehouse".split()
PAYMENTS = "refund invoice card payment bank charge currency receipt balance dispute".split()


def turn(words: list[str], number: int) -> Words:
    """Six of the words, other ones each time."""
    return words_of(terms(" ".join(words[(number * 7 + i * 3) % len(words)] for i in range(6))))


def talk(*topics: tuple[list[str], int]) -> list[Words]:
    return [turn(words, number) for words, count in topics for number in range(count)]


def test_a_border_stands_where_the_words_change() -> None:
    (border,) = topic_borders(talk((PARCELS, 80), (PAYMENTS, 120)))
    assert abs(border - 80) <= 2


def test_a_topic_that_returns_is_a_segment_of_its_own() -> None:
    borders = topic_borders(talk((PARCELS, 60), (PAYMENTS, 60), (PARCELS, 60)))
    assert [round(border, -1) for border in borders] == [60, 120]


def test_one_topic_has_no_border() -> None:
    assert topic_borders(talk((PARCELS, 300))) == []


@pytest.mark.parametrize("silent", [0, 10, 59])
def test_a_short_stretch_has_no_border(silent: int) -> None:
    assert topic_borders(talk((PARCELS, silent // 2), (PAYMENTS, silent - silent // 2))) == []


def test_events_without_words_are_no_trouble() -> None:
    assert topic_borders([words_of([])] * 100) == []


WORDS = st.lists(st.sampled_from(PARCELS + PAYMENTS), max_size=12).map(words_of)


@given(st.lists(WORDS, max_size=200))
def test_segments_are_long_enough_in_order_and_the_same_again(events: list[Words]) -> None:
    borders = topic_borders(events)
    edges = [0, *borders, len(events)]
    assert all(end - start >= SHORTEST for start, end in pairwise(edges)) or not borders
    assert borders == topic_borders(events)


def test_a_very_long_session_is_cut_in_coarser_steps() -> None:
    (border,) = topic_borders(talk((PARCELS, 6000), (PAYMENTS, 6000)))
    assert abs(border - 6000) <= 24


def test_silence_and_topics_both_end_an_episode() -> None:
    words = talk((PARCELS, 60), (PAYMENTS, 60), (PAYMENTS, 10))
    times = [*range(120), *range(10_000, 10_010)]  # seconds
    moments = [Moment(f"e{i}", Position(0, i, 0), second * 1000) for i, second in enumerate(times)]
    episodes = cut(moments, 1800, words)
    assert [len(episode.event_ids) for episode in episodes][-1] == 10
    assert len(episodes) == 3
    assert [len(episode.event_ids) for episode in cut(moments, 1800)] == [120, 10]


def test_the_error_rates_are_those_of_the_literature() -> None:
    meeting = Meeting("made", [words_of([])] * 20, [10])
    assert errors_of(meeting, [10]) == (0.0, 0.0)
    pk, window_diff = errors_of(meeting, [])
    assert pk == window_diff == 5 / 15  # the windows of 5 that reach over the border
    assert errors_of(meeting, [9])[0] == 2 / 15


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the development data is not here ({DATA})")
def test_on_real_meetings_the_cut_beats_windows_of_the_same_length() -> None:
    ours, windows, *_ = compared(list(meetings())).values()
    assert ours.pk < 0.85 * windows.pk
    assert ours.window_diff < 0.95 * windows.window_diff
