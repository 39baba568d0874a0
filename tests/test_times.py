"""Time expressions: which periods a text speaks of, and how close an event is to them."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_graph.domain.times import Period, closeness, day_of, periods

TODAY = date(2023, 10, 5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what happened on 2023-05-08?", Period(2023, 5, 8)),
        ("what happened on 8 May 2023?", Period(2023, 5, 8)),
        ("what happened on May 8th, 2023?", Period(2023, 5, 8)),
        ("where did she go in June?", Period(None, 6)),
        ("what did he buy in 2021?", Period(2021)),
        ("who called yesterday?", Period(2023, 10, 4)),
        ("what did we do last month?", Period(2023, 9)),
        ("what was said two weeks ago?", Period(2023, 9, 21)),
        ("the trip last August", Period(2023, 8)),
        ("the trip last December", Period(2022, 12)),
    ],
)
def test_periods_are_read_and_resolved_against_the_day_given(text: str, expected: Period) -> None:
    assert expected in periods(text, TODAY)


@pytest.mark.parametrize("text", ["may I ask you something", "30 February", "order 2023", "the march on the town hall"])
def test_what_is_no_time_is_not_taken_for_one(text: str) -> None:
    assert periods(text, TODAY) == ()


def test_closeness_falls_with_the_days_and_with_the_months() -> None:
    day, month = Period(2023, 5, 8), Period(2023, 5)
    assert day.closeness(date(2023, 5, 8)) == 1.0
    assert 1.0 > day.closeness(date(2023, 5, 9)) > day.closeness(date(2023, 5, 20)) > 0
    assert (month.closeness(date(2023, 5, 30)), month.closeness(date(2023, 6, 1))) == (1.0, 0.5)
    assert month.closeness(date(2024, 5, 8)) == 0.0
    assert Period(None, 5).closeness(date(2024, 5, 8)) == 1.0


@given(text=st.text(max_size=60) | st.from_regex(r"(\d{1,6}|a|last) (days?|years?|May|29 February|week) ?(ago|\d{4})?"),
       ms=st.integers(-62_000_000_000_000, 250_000_000_000_000))  # fmt: skip
def test_any_text_gives_a_closeness_between_nothing_and_all(text: str, ms: int) -> None:
    assert 0.0 <= closeness(periods(text, day_of(ms)), ms) <= 1.0
