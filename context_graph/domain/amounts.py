"""Amounts of money as people write them: `1,234.56`, `1.234,56`, `1 234,56`, `1'234.56`.

A mark with one or two digits behind it at the end is the decimal mark; groups of three are thousands, also a single one
(`1.234` of money is a thousand and more, `0.002` is not). Pure functions of the text.
"""

from __future__ import annotations

import re

_GROUPS = r"(?:,[0-9]{2,3})*,[0-9]{3}|(?:\.[0-9]{3})+|(?:['’][0-9]{3})+"
_BLANK_GROUPS = r"(?:[ \u00a0\u2009\u202f][0-9]{3})+"


def _pattern(groups: str) -> str:
    return rf"(?:[0-9]{{1,3}}(?:{groups})(?![0-9])(?:[.,][0-9]+)?|[0-9]+(?:[.,][0-9]+)?(?![0-9]))"


AMOUNT = _pattern(f"{_GROUPS}|{_BLANK_GROUPS}")
"""The form of an amount, without its currency."""
AMOUNT_IN_ONE_WORD = _pattern(_GROUPS)
"""The same without blanks between thousands: behind `$` the next number of a sentence is not the amount's."""

_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}([.,])(?:[0-9]{2,3}\1)*[0-9]{3}")
_NO_MARK = re.compile(r"[^0-9.,]")


def plain_amount(amount: str) -> str:
    """`amount` (in the form AMOUNT) without separators of thousands and with a point as decimal mark."""
    marked = _NO_MARK.sub("", amount)
    last = max(marked.rfind("."), marked.rfind(","))
    grouped_by_mark = marked == amount and _THOUSANDS.fullmatch(marked) is not None
    if last < 0 or grouped_by_mark:
        return re.sub("[.,]", "", marked)
    return f"{re.sub('[.,]', '', marked[:last])}.{marked[last + 1 :]}"
