"""Dead letters: events that a stage gave up on, kept with everything needed to understand and re-drive them.

A letter holds no content of its event but what the error said; the event stays in the ledger. While a letter is
re-driven it stays where it is: only when the event was handled does it go, in the step that finishes the event, so no
crash can lose it. A letter of an event that fails again is replaced by one with a higher count, unless it was discarded
or swept by an erasure meanwhile. An entry has one letter for each group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient, slices, store_errors
from context_graph.store.gaps import Gap, Gaps
from context_graph.store.keys import WAKE_CHANNEL, PartitionKeys
from context_graph.store.scripts import PipelinedScript

_PAGE = 200
_SETTLED_AT_ONCE = 500  # entries finished by one script
_LONGEST_REASON, _LONGEST_TRACEBACK = 4_000, 40_000  # characters kept of an error


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a group gave up on an event. `id` names the dead letter within its tenant.

    `lost` over 0: no event, but that many of them that were trimmed unread and are nowhere; they were behind `after`
    up to `position`. `subjects`: tags of those whose erasure takes the letter away.
    """

    id: str
    group: str
    position: Position
    event_id: str
    reason: str
    traceback: str
    deliveries: int
    event_type: str = ""
    session_id: str = ""
    subjects: tuple[str, ...] = ()
    redriven: int = 0
    """How often it was re-driven before."""
    lost: int = 0
    after: Position | None = None
    redriving: bool = False
    """Whether it is being delivered once more just now."""

    @property
    def buried_ms(self) -> int:
        """When, milliseconds since the epoch by the server's clock."""
        return Position.parse(self.id).ms


@dataclass(frozen=True, slots=True)
class Counts:
    """Dead letters of a partition by group, and events lost by group."""

    letters: dict[str, int]
    lost: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.letters.values())


class DeadLetters:
    """The dead letters of any partition, oldest first."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._gaps = Gaps(redis)
        self._bury = PipelinedScript(redis, "bury.lua")
        self._settle = PipelinedScript(redis, "settle.lua")

    async def bury(
        self, partition: Partition, group: str, position: Position, *, event_id: str, reason: str, traceback: str,
        deliveries: int, event_type: str = "", session_id: str = "", subjects: Sequence[str] = (), lost: int = 0,
        after: Position | None = None, redriven_from: DeadLetter | None = None,
    ) -> str:  # fmt: skip
        """Record a dead letter and finish the event for its group, in one step; the letter's id.

        Characters that UTF-8 cannot hold (a lone surrogate in a file name) are kept as escapes. `redriven_from`: the
        letter that is replaced; empty is returned when it is gone, discarded or swept by an erasure meanwhile.
        """
        keys = PartitionKeys(partition)
        before = redriven_from
        values: dict[str, str | bytes | int] = {
            "group": group,
            "position": str(position),
            "event_id": _storable(event_id),
            "reason": _storable(reason[:_LONGEST_REASON]),
            "traceback": _storable(traceback[-_LONGEST_TRACEBACK:]),
            "deliveries": deliveries + (before.deliveries if before is not None else 0),
            "event_type": _storable(event_type),
            "session_id": _storable(session_id),
            "subjects": " ".join(subjects),
            "redriven": before.redriven + 1 if before is not None else 0,
            "lost": lost,
            "after": str(after) if after is not None else "",
        }
        flat = [part for item in values.items() for part in item]
        expected = _stream_id(before.id) if before is not None else ""
        with store_errors("recording a dead letter"):
            made: Any = await self._bury.one(
                [*self._keys(keys, group), keys.parked(group)],
                [group, position.stream_id, position.sort_key, expected, _storable(session_id), lost, *flat],
            )
        return f"{partition.bucket}-{made.decode()}" if made else ""

    async def settle(self, partition: Partition, group: str, positions: Sequence[Position]) -> int:
        """These are done, or given up: acknowledged, off the queue, their letters removed; how many letters."""
        keys = PartitionKeys(partition)
        removed = 0
        for start in range(0, len(positions), _SETTLED_AT_ONCE):
            part = positions[start : start + _SETTLED_AT_ONCE]
            places = [text for position in part for text in (position.stream_id, position.sort_key)]
            with store_errors("removing dead letters"):
                removed += int(await self._settle.one(self._keys(keys, group), [group, *places]))
        return removed

    async def discard(self, partition: Partition, letters: Sequence[DeadLetter]) -> int:
        """Give these up for good; how many there were still."""
        removed = 0
        for group in sorted({letter.group for letter in letters}):
            mine = [letter.position for letter in letters if letter.group == group]
            removed += await self.settle(partition, group, mine)
        if letters and removed < len(letters):  # discarded by somebody else, or of a version that kept no places
            with store_errors("removing dead letters"):
                ids = [_stream_id(letter.id) for letter in letters]
                removed += int(await self._redis.xdel(PartitionKeys(partition).dead_letters, *ids))
        await self._wake(partition)
        return removed

    async def redrive(self, partition: Partition, letters: Sequence[DeadLetter]) -> int:
        """Have the events delivered to their groups once more; how many will be. Safe to repeat.

        A letter about lost events has the archive looked through again.
        """
        keys = PartitionKeys(partition)
        with store_errors("re-driving dead letters"):
            pipe = self._redis.pipeline(transaction=False)
            for letter in letters:
                if not letter.lost and not letter.redriving:
                    pipe.zadd(keys.again(letter.group), {letter.position.sort_key: 0}, nx=True)
                    pipe.hdel(keys.tries(letter.group), letter.position.sort_key)
            await pipe.execute()
        for letter in letters:
            if letter.lost and letter.after is not None:
                gap = Gap(letter.after, letter.position, letter.lost)
                await self._gaps.note(partition, letter.group, gap)
                await self.settle(partition, letter.group, [letter.position])
        await self._wake(partition)
        return len(letters)

    async def discard_all(self, partition: Partition, group: str) -> int:
        """Those of a group that is gone for good; returns how many."""
        gone = 0
        while letters := await self.listed(partition, group=group):
            gone += await self.discard(partition, letters)
        return gone

    async def newest(self, partition: Partition) -> str | None:
        """The id of the newest letter."""
        with store_errors("reading dead letters"):
            entries: Any = await self._redis.xrevrange(PartitionKeys(partition).dead_letters, count=1)
        return f"{partition.bucket}-{entries[0][0].decode()}" if entries else None

    async def count(self, partition: Partition) -> int:
        """How many there are."""
        with store_errors("counting dead letters"):
            count: Any = await self._redis.xlen(PartitionKeys(partition).dead_letters)
        return int(count)

    async def counts(self, partition: Partition) -> Counts:
        """How many there are of each group."""
        [found] = await self.counts_of([partition])
        return found

    async def counts_of(self, partitions: Sequence[Partition]) -> list[Counts]:
        """The same of many partitions, in their order and in few round trips."""
        found: list[Counts] = []
        for some in slices(partitions):
            pipe = self._redis.pipeline(transaction=False)
            for partition in some:
                pipe.hgetall(PartitionKeys(partition).dead_counts)
            with store_errors("counting dead letters"):
                found += [_counts(raw) for raw in await pipe.execute()]
        return found

    async def get(self, partition: Partition, letter_id: str) -> DeadLetter | None:
        """The letter of that id, or None."""
        place = _stream_id(letter_id)
        with store_errors("reading a dead letter"):
            entries: Any = await self._redis.xrange(PartitionKeys(partition).dead_letters, place, place)
        found = await self._with_state(partition, [_letter(partition, *entry) for entry in entries])
        return found[0] if found else None

    async def listed(
        self, partition: Partition, *, after: str | None = None, limit: int = 100, group: str | None = None,
        reason: str | None = None,
    ) -> list[DeadLetter]:  # fmt: skip
        """Up to `limit` behind the letter `after`, oldest first; of a group, with a text in their reason."""
        found: list[DeadLetter] = []
        start = "-" if after is None else f"({_stream_id(after)}"
        size = limit if group is None and reason is None else max(limit, _PAGE)
        while len(found) < limit:
            with store_errors("reading dead letters"):
                entries: Any = await self._redis.xrange(PartitionKeys(partition).dead_letters, start, "+", count=size)
            letters = [_letter(partition, *entry) for entry in entries]
            found += [
                letter for letter in letters
                if group in (None, letter.group) and (reason is None or reason.lower() in letter.reason.lower())
            ]  # fmt: skip
            if len(entries) < size:
                break
            start = f"({entries[-1][0].decode()}"
        return await self._with_state(partition, found[:limit])

    async def _with_state(self, partition: Partition, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        if not letters:
            return []
        keys = PartitionKeys(partition)
        with store_errors("reading dead letters"):
            pipe = self._redis.pipeline(transaction=False)
            for letter in letters:
                pipe.zscore(keys.again(letter.group), letter.position.sort_key)
            scores = await pipe.execute()
        return [
            replace(letter, redriving=score is not None and not letter.lost)
            for letter, score in zip(letters, scores, strict=True)
        ]

    async def _wake(self, partition: Partition) -> None:
        """Workers look at once."""
        with store_errors("waking the workers"):
            await self._redis.publish(WAKE_CHANNEL, str(partition))

    @staticmethod
    def _keys(keys: PartitionKeys, group: str) -> list[str]:
        return [
            keys.ledger, keys.dead_letters, keys.dead_places, keys.dead_counts, keys.held(group), keys.again(group),
            keys.tries(group),
        ]  # fmt: skip


def _counts(raw: dict[bytes, bytes]) -> Counts:
    found = {name.decode(): int(count) for name, count in raw.items()}
    lost = {name.removeprefix("lost/"): count for name, count in found.items() if name.startswith("lost/")}
    return Counts({name: count for name, count in found.items() if not name.startswith("lost/")}, lost)


def _letter(partition: Partition, identifier: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode()

    return DeadLetter(
        id=f"{partition.bucket}-{identifier.decode()}",
        group=text(b"group"),
        position=Position.parse(text(b"position")),
        event_id=text(b"event_id"),
        reason=text(b"reason"),
        traceback=text(b"traceback"),
        deliveries=int(fields[b"deliveries"]),
        event_type=text(b"event_type"),
        session_id=text(b"session_id"),
        subjects=tuple(text(b"subjects").split()),
        redriven=int(fields.get(b"redriven", 0)),
        lost=int(fields.get(b"lost", 0)),
        after=Position.parse(text(b"after")) if text(b"after") else None,
    )


def _stream_id(letter_id: str) -> str:
    return letter_id.partition("-")[2]


def _storable(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
