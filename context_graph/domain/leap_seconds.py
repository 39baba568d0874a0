"""Leap seconds: the 61st second of a minute, which RFC 3339 allows and no clock of this service has. Pure."""

from __future__ import annotations

import re

_LEAP = re.compile(r"(?<=[T ])(\d\d:\d\d):60(?:[.,]\d*)?")


def without_leap_second(text: str) -> str:
    """The time with second 60 as the last millisecond before it, so that it stays in its minute, day and year."""
    return _LEAP.sub(r"\g<1>:59.999", text, count=1)
