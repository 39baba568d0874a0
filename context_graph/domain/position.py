"""Positions: where in the ledger an event stands.

A position is a partition's bucket and a Redis stream id. Callers get it as an opaque string and may only hand it back
(`after`, `min_position`, `as_of`); inside, positions of one bucket are ordered. `sort_key` is the fixed-width form used
where Redis orders by bytes (members of sorted sets with equal scores), so that ties in time break by position.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TEXT = re.compile(r"(\d{1,4})-(\d{1,15})-(\d{1,18})")
_SORT_WIDTH = 17  # 11 hex digits of milliseconds (to the year 2527), 6 of sequence (16.7 million events a millisecond)
LAST_MS, LAST_SEQ = 16**11 - 1, 16**6 - 1
"""What a sort key can hold."""


class Position(NamedTuple):
    """`bucket` of the tenant, then the stream id `ms`-`seq` (both integers as Redis assigns them).

    A named tuple, not a dataclass: one is made for every event that is written or read, in a third of the time.
    """

    bucket: int
    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.bucket}-{self.ms}-{self.seq}"

    @property
    def stream_id(self) -> str:
        """The Redis stream id."""
        return f"{self.ms}-{self.seq}"

    @property
    def sort_key(self) -> str:
        """17 characters whose byte order is the order of positions within a bucket."""
        return f"{self.ms:011x}{self.seq:06x}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The inverse of `str`. Raises ValueError when `text` is not a position."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a position: hand back one that the service returned")
        return cls(*(int(part) for part in match.groups()))

    @classmethod
    def of_stream_id(cls, bucket: int, stream_id: str) -> Position:
        """From a Redis stream id `ms-seq`."""
        ms, _, seq = stream_id.partition("-")
        return cls(bucket, int(ms), int(seq or 0))

    @classmethod
    def of_sort_key(cls, bucket: int, key: str) -> Position:
        """The inverse of `sort_key`."""
        return cls(bucket, int(key[:11], 16), int(key[11:_SORT_WIDTH], 16))
