"""How far a consumer group is: what it has before it, in hand, to do once more, and missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import time
from typing import Any, NamedTuple

import orjson
from redis.exceptions import ResponseError

from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient, slices, store_errors
from context_graph.store.keys import PartitionKeys

_IN_HAND = 4096  # entries delivered once more that are looked through for the first of them


@dataclass(frozen=True, slots=True)
class GroupState:
    """How far a group is in a partition: `lag` entries undelivered, `pending` delivered but not acknowledged.

    `again`: entries that are to be delivered once more (re-driven, found in the archive, or done in part); `taken`: of
    these in somebody's hand. `parked`: those that wait behind a failed one of their session. `gaps`: what was trimmed
    unread and is not made good yet, in words; `gap_problems`: the same where that does not go on, and why.
    `unfinished`: the first position that is to be delivered once more, or that was trimmed unread.
    """

    lag: int
    pending: int
    oldest_pending_ms: int | None
    first_pending: Position | None
    last_delivered: Position | None
    consumers: int
    again: int = 0
    taken: int = 0
    parked: int = 0
    gaps: tuple[str, ...] = ()
    gap_problems: tuple[str, ...] = ()
    unfinished: Position | None = None

    def has_passed(self, position: Position) -> bool:
        """Whether the group has finished everything up to and including `position`."""
        if self.last_delivered is None or self.last_delivered < position:
            return False
        return all(first is None or first > position for first in (self.first_pending, self.unfinished))


@dataclass(frozen=True, slots=True)
class Gap:
    """What `group_read.lua` noted: `left` events are missing behind `after`, at least 1 where it is unknown."""

    after: Position
    left: int
    words: str
    problem: str

    @classmethod
    def of(cls, bucket: int, raw: bytes) -> Gap:
        known: Any = orjson.loads(raw)
        left = max(known["expected"] - known["found"], 1)
        words = f"{left:,} events behind {known['after']} were trimmed unread"
        return cls(Position.of_stream_id(bucket, known["after"]), left, words, known["problem"])


async def read_states(redis: RedisClient, groups: Sequence[tuple[Partition, str]]) -> list[GroupState]:
    """How far each of these groups is, in their order; one round trip for a bounded number of them.

    A group that does not exist yet has the whole ledger before it. Raises StoreUnavailable.
    """
    found: list[GroupState] = []
    for some in slices(groups):
        streams = list(dict.fromkeys(partition for partition, _ in some))
        pipe = redis.pipeline(transaction=False)
        for partition in streams:
            pipe.xinfo_groups(PartitionKeys(partition).ledger)
            pipe.xlen(PartitionKeys(partition).ledger)
        for partition, group in some:
            keys = PartitionKeys(partition)
            pipe.xpending_range(keys.ledger, group, "-", "+", 1)
            pipe.zcard(keys.again(group))
            pipe.zrangebyscore(keys.again(group), f"({_now_ms()}", "+inf", start=0, num=_IN_HAND)
            pipe.zrange(keys.again(group), 0, 0)  # of those of one score, as all are that wait, the first by position
            pipe.zcard(keys.parked(group))
            pipe.hgetall(keys.gaps(group))
        with store_errors("reading the state of groups"):
            answers: list[Any] = await pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception) and not is_absence(answer):
                    raise answer
        told = iter(answers)
        of_streams = {partition: (next(told), next(told)) for partition in streams}
        for partition, group in some:
            answered = _Answered(*of_streams[partition], *(next(told) for _ in range(6)))
            found.append(await _state(redis, partition, group, answered))
    return found


class _Answered(NamedTuple):
    """What one group's commands answered; an error where there is no such stream or group."""

    groups: Any
    length: Any
    pending: Any
    again: int
    taken: list[bytes]
    due: list[bytes]
    parked: int
    gaps: dict[bytes, bytes]


async def _state(redis: RedisClient, partition: Partition, group: str, answered: _Answered) -> GroupState:
    groups, length, pending, again, taken, due, parked, gaps = answered
    ledger, bucket = PartitionKeys(partition).ledger, partition.bucket
    mine = [g for g in groups if g["name"] == group.encode()] if isinstance(groups, list) else []
    if not mine:
        return GroupState(length if isinstance(length, int) else 0, 0, None, None, None, 0)
    info = mine[0]
    first = pending[0] if isinstance(pending, list) and pending else None
    last = Position.of_stream_id(bucket, info["last-delivered-id"].decode())
    open_gaps = [Gap.of(bucket, raw) for raw in gaps.values()]
    worked_on = [Position.of_sort_key(bucket, raw.decode()) for raw in [*taken, *due]] + [
        gap.after for gap in open_gaps
    ]
    return GroupState(
        lag=await _undelivered(redis, ledger, info, last) + sum(gap.left for gap in open_gaps),
        pending=int(info["pending"]),
        oldest_pending_ms=int(first["time_since_delivered"]) if first else None,
        first_pending=Position.of_stream_id(bucket, first["message_id"].decode()) if first else None,
        last_delivered=last,
        consumers=int(info["consumers"]),
        again=again,
        taken=len(taken),
        parked=parked,
        gaps=tuple(gap.words for gap in open_gaps if not gap.problem),
        gap_problems=tuple(f"{gap.words}: {gap.problem}" for gap in open_gaps if gap.problem),
        unfinished=min(worked_on, default=None),
    )


async def _undelivered(redis: RedisClient, key: str, info: Any, last: Position) -> int:
    """The lag; where Redis does not know it (an entry was deleted), 1 for any number above 0."""
    if info["lag"] is not None:
        return int(info["lag"])
    with store_errors("reading the end of the ledger"):
        behind: Any = await redis.xrange(key, f"({last.stream_id}", "+", count=1)
    return len(behind)


def is_absence(error: Exception) -> bool:
    return isinstance(error, ResponseError) and ("no such key" in str(error) or "NOGROUP" in str(error))


def _now_ms() -> int:
    return int(time() * 1000)
