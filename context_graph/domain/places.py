"""Places: how far a reader has come in every bucket of a tenant.

A tenant's buckets are separate streams, and no clock orders what two servers assign: a single position cannot say how
far a reader of all of them is without the risk of skipping what arrived late in another. So a reader keeps one stream
id a bucket. With one bucket the text is the position itself; with several it is their positions joined by dots
(some 20 characters a bucket), whose order is that of the buckets.

A single position given for several buckets stands for a moment: (ms, seq, bucket) orders everything, as pages do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from context_graph.domain.position import Position

_JOIN = "."
_LAST_SEQ = 2**63 - 1  # behind every sequence number of a millisecond; still a signed integer everywhere


@dataclass(frozen=True, slots=True)
class Places:
    """One position a bucket, in the buckets' order; `0-0` is before everything."""

    positions: tuple[Position, ...]

    def __str__(self) -> str:
        return _JOIN.join(map(str, self.positions))

    def of(self, bucket: int) -> Position:
        """The place in this bucket."""
        return self.positions[bucket]

    def moved(self, position: Position) -> Places:
        """These places with the one of the position's bucket there."""
        before, after = self.positions[: position.bucket], self.positions[position.bucket + 1 :]
        return replace(self, positions=(*before, position, *after))

    @classmethod
    def beginning(cls, buckets: int) -> Places:
        """Before the first event of every bucket."""
        return cls(tuple(Position(bucket, 0, 0) for bucket in range(buckets)))

    @classmethod
    def at_moment(cls, position: Position, buckets: int) -> Places:
        """As far as this position in its own bucket, and as far as its moment in the others."""
        return cls(tuple(_same_moment(position, bucket) for bucket in range(buckets)))

    @classmethod
    def parse(cls, text: str, buckets: int) -> Places:
        """The inverse of `str`; a single position of several buckets is its moment. Raises ValueError."""
        positions = [Position.parse(part) for part in text.split(_JOIN)]
        if len(positions) == 1 and positions[0].bucket < buckets:
            return cls.at_moment(positions[0], buckets)
        if [position.bucket for position in positions] != list(range(buckets)):
            raise ValueError(f"{text!r} is not a position here: hand back one that the service returned")
        return cls(tuple(positions))


def _same_moment(position: Position, bucket: int) -> Position:
    """The place in `bucket` behind which lies exactly what (ms, seq, bucket) orders behind `position`."""
    if bucket <= position.bucket:
        return Position(bucket, position.ms, position.seq)
    if position.seq > 0:
        return Position(bucket, position.ms, position.seq - 1)
    return Position(bucket, position.ms - 1, _LAST_SEQ) if position.ms > 0 else Position(bucket, 0, 0)


def moment_key(position: Position) -> tuple[int, int, int]:
    """What orders positions of several buckets: (ms, seq, bucket)."""
    return position.ms, position.seq, position.bucket
