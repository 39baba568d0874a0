"""Time expressions of a query: which days, months or years it speaks of, and how close an event is to them. Pure.

Absolute ones ("3 June 2023", "in May", "2022-11-04", "2021") are read as they stand; relative ones ("yesterday", "last
week", "two months ago", "last May") are resolved against a day of the conversation, not the clock: a memory is asked in
the time of what it remembers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

_MONTH_NAMES = "january february march april may june july august september october november december".split()
_MONTHS: Mapping[str, int] = {name[:size]: i for i, name in enumerate(_MONTH_NAMES, 1) for size in (3, len(name))}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_ISO = re.compile(r"\b(\d{4})-(\d{2})(?:-(\d{2}))?\b")
_NAMED = re.compile(
    rf"\b(?:{_DAY} (?:of )?)?({_MONTH})\b\.?(?: {_DAY}\b(?!\d))?(?:,? (?:of )?(\d{{4}}))?", re.IGNORECASE
)
_YEAR = re.compile(r"\b(?:in|of|during|since|year) ((?:19|20)\d{2})\b", re.IGNORECASE)
_AGO = re.compile(r"\b(\d+|an?|one|two|three|four|five|six|few) (day|week|month|year)s? ago\b", re.IGNORECASE)
_RELATIVE = re.compile(r"\b(today|tonight|yesterday|last (?:night|week|weekend|month|year))\b", re.IGNORECASE)
_LAST_MONTH_NAMED = re.compile(rf"\blast ({_MONTH})\b", re.IGNORECASE)
_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "few": 3}
_UNIT_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}

# An event is told of on the day or in the days after: closeness falls to 1/e within a week, and to half in the month
# beside the one asked for. A year alone says little.
_DAYS_TO_FALL = 7.0
_NEXT_MONTH = 0.5
_YEAR_ALONE = 0.3


@dataclass(frozen=True, slots=True)
class Period:
    """A day, a month or a year; a month without a year is that month of any year."""

    year: int | None = None
    month: int | None = None
    day: int | None = None

    def closeness(self, at: date) -> float:
        """1 on the day or in the month meant, towards 0 away from it."""
        year = at.year if self.year is None else self.year
        if self.month is None:
            return _YEAR_ALONE if at.year == year else 0.0
        if self.day is None:
            away = abs((at.year - year) * 12 + at.month - self.month)
            return {0: 1.0, 1: _NEXT_MONTH}.get(away, 0.0)
        return math.exp(-abs((at - date(year, self.month, self.day)).days) / _DAYS_TO_FALL)


def periods(text: str, today: date) -> tuple[Period, ...]:
    """The periods that a text speaks of; `today` is the day that relative expressions are counted from."""
    found = [
        period
        for pattern, read in _READERS
        for match in pattern.finditer(text)
        if (period := read(match, today)) is not None
    ]
    return tuple(dict.fromkeys(found))


def closeness(spoken_of: tuple[Period, ...], occurred_at: int) -> float:
    """How close an event (ms UTC) is to the nearest of the periods, 0..1."""
    at = day_of(occurred_at)
    return max((period.closeness(at) for period in spoken_of), default=0.0)


def day_of(ms: int) -> date:
    """The day of a time in ms UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).date()


def _period(year: int | None, month: int | None, day: int | None) -> Period | None:
    """None for a day that does not exist. 29 February without a year is taken as it stands."""
    try:
        date(2024 if year is None else year, 1 if month is None else month, 1 if day is None else day)
    except ValueError:
        return None
    if year is None and month == 2 and day == 29:
        return Period(None, 2, 28)
    return Period(year, month, day)


def _iso(match: re.Match[str], _today: date) -> Period | None:
    return _period(int(match[1]), int(match[2]), int(match[3]) if match[3] else None)


def _named(match: re.Match[str], _today: date) -> Period | None:
    before, name, after, year = match.groups()
    alone = not (before or after or year)
    if alone and name[0].islower() and name.lower() in ("may", "mar", "march", "sep", "jan", "dec", "oct"):
        return None  # a verb, or no month at all
    day = before or after
    return _period(int(year) if year else None, _MONTHS[name.lower()], int(day) if day else None)


def _year(match: re.Match[str], _today: date) -> Period | None:
    return _period(int(match[1]), None, None)


def _ago(match: re.Match[str], today: date) -> Period | None:
    number = _NUMBERS.get(match[1].lower()) or min(int(match[1]), 9999) if match[1] else 1
    return _back(today, number * _UNIT_DAYS[match[2].lower()], match[2].lower())


def _relative(match: re.Match[str], today: date) -> Period | None:
    word = match[1].lower().split()[-1]
    days = {"today": 0, "tonight": 0, "yesterday": 1, "night": 1, "week": 7, "weekend": 4, "month": 30, "year": 365}
    return _back(today, days[word], word)


def _back(today: date, days: int, unit: str) -> Period | None:
    if days >= today.toordinal():
        return None
    at = today - timedelta(days=days)
    if unit == "year":
        return Period(at.year)
    return Period(at.year, at.month, None if unit == "month" else at.day)


def _last_named(match: re.Match[str], today: date) -> Period | None:
    month = _MONTHS[match[1].lower()]
    return Period(today.year if month < today.month else today.year - 1, month)


_Reader = tuple[re.Pattern[str], Callable[[re.Match[str], date], Period | None]]
_READERS: tuple[_Reader, ...] = (
    (_ISO, _iso),
    (_LAST_MONTH_NAMED, _last_named),
    (_NAMED, _named),
    (_YEAR, _year),
    (_AGO, _ago),
    (_RELATIVE, _relative),
)
