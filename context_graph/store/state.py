"""The state of a generation as a set of facts, in a form that two can be compared by, whatever their size.

A fact is a kind, a name and a content: an event's node, one member of a timeline, a document. What belongs to the
state is what is a function of the ledger; `facts.KINDS` says how each key is read. Left out are marks of how far
somebody is (`consolidated`) and the vectors' numbers: what a model answers depends a little on what shares its batch,
so vectors are compared by what they were made from (text hash, filters) and by their angle.

Facts carry the position they come from, so two generations that both have passed a position are equal up to it, also
while more events arrive. The hash does not depend on order: a sum over facts, kept in buckets, so that differing facts
are found by reading these buckets again instead of holding everything.

It scans: for rebuild and verify, never for an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from redis.exceptions import ResponseError

from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.entities import name_members
from context_graph.store.facts import (
    BUCKETS,
    KINDS,
    MEMBERS,
    TIMELINE,
    TIMELINE_PREFIX,
    UNREADABLE,
    Fact,
    KeyKind,
    registered,
)
from context_graph.store.keys import GraphKeys

_MODULUS = 1 << 128
_PAGE = 1000  # keys read at once


@dataclass(slots=True)
class Tally:
    """Facts counted and summed: equal for equal sets of facts, in whatever order they came."""

    counts: Counter[str] = field(default_factory=Counter)
    sums: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def add(self, facts: Iterable[Fact]) -> None:
        """Count these."""
        for fact in facts:
            self.counts[fact.kind] += 1
            bucket = fact.bucket
            self.sums[bucket] = (self.sums[bucket] + fact.digest) % _MODULUS

    def merge(self, other: Tally) -> None:
        """Add another partition's."""
        self.counts += other.counts
        self.sums = [(mine + its) % _MODULUS for mine, its in zip(self.sums, other.sums, strict=True)]

    def differing(self, other: Tally) -> set[int]:
        """Buckets in which the two are not the same."""
        return {bucket for bucket in range(BUCKETS) if self.sums[bucket] != other.sums[bucket]}

    @property
    def hash(self) -> str:
        """32 hex digits over everything."""
        hashed = blake2b(digest_size=16)
        for value in self.sums:
            hashed.update(value.to_bytes(16))
        return hashed.hexdigest()


class StateReader:
    """Reads generations of any partition. `redis` is that of what is derived."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def facts(
        self, keys: GraphKeys, until: Position | None = None, buckets: Collection[int] | None = None
    ) -> AsyncIterator[list[Fact]]:
        """Facts from up to `until` (None: all), of these buckets (None: of all), in pages.

        A key that is written meanwhile may come twice. Raises StoreUnavailable.
        """
        limit = "~" if until is None else until.sort_key
        wanted = None if buckets is None else frozenset(buckets)
        prefix = len(keys.tag) + 1
        async for names in self._names(keys):
            for kind in KINDS:
                mine = [name for name in names if name.startswith(kind.prefix, prefix)]
                if not mine:
                    continue
                found: list[Fact] = []
                for name, answer in zip(mine, await self._read(kind, mine), strict=True):
                    known = name[prefix + len(kind.prefix) :]
                    if isinstance(answer, ResponseError):
                        found.append(_unreadable(kind.prefix + known, answer))
                    else:
                        found += kind.facts(known, answer, limit)
                if kind.prefix == TIMELINE_PREFIX:
                    found += await self._registered(keys, [fact for fact in found if fact.kind == TIMELINE])
                yield [fact for fact in found if wanted is None or fact.bucket in wanted]

    async def tally(self, keys: GraphKeys, until: Position | None = None) -> Tally:
        """All facts, summed."""
        tally = Tally()
        async for facts in self.facts(keys, until):
            tally.add(facts)
        return tally

    async def _names(self, keys: GraphKeys) -> AsyncIterator[list[str]]:
        cursor: Any = 0
        while True:
            with store_errors("listing a generation"):
                answer: Any = await self._redis.scan(cursor, match=f"{keys.tag}:*", count=_PAGE)
            cursor = answer[0]
            if answer[1]:
                yield [name.decode() for name in answer[1]]
            if int(cursor) == 0:
                return

    async def _read(self, kind: KeyKind, names: Sequence[str]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            kind.read(pipe, name)
        with store_errors("reading a generation"):
            answers: list[Any] = await pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception) and not str(answer).startswith("WRONGTYPE"):
                    raise answer
        if kind.members:
            for name, answer in zip(names, answers, strict=True):
                if not isinstance(answer, ResponseError):
                    await self._rest(name, answer)
        return answers

    async def _rest(self, name: str, answer: list[Any]) -> None:
        """The members of a long sorted set behind the first ones."""
        start = len(answer)
        while start and start % MEMBERS == 0:
            with store_errors("reading a generation"):
                page: Any = await self._redis.zrange(name, start, start + MEMBERS - 1, withscores=True)
            answer += page
            if not page:
                return
            start += len(page)

    async def _registered(self, keys: GraphKeys, entries: Sequence[Fact]) -> list[Fact]:
        """For each timeline whether the registry knows it, not earlier than the last of these entries."""
        latest: dict[str, int] = {}
        for fact in entries:
            owner = fact.name.rpartition("\0")[0]
            latest[owner] = max(int(fact.content["occurred"]), latest.get(owner, 0))
        pipe = self._redis.pipeline(transaction=False)
        places: list[int] = []
        for owner in latest:
            kind, _, identifier = owner.partition(":")
            places.append(len(pipe))
            pipe.zscore(keys.registry(kind), identifier)
            if kind == "entity":
                pipe.hlen(keys.entity(identifier))
                pipe.zmscore(keys.entity_names, name_members(identifier))
        with store_errors("reading the registries"):
            answers: list[Any] = await pipe.execute(raise_on_error=False) if latest else []
            for answer in answers:
                if isinstance(answer, Exception) and not str(answer).startswith("WRONGTYPE"):
                    raise answer
        found = []
        for (owner, occurred), place in zip(latest.items(), places, strict=True):
            kind, _, identifier = owner.partition(":")
            asked = [keys.registry(kind)]
            asked += [keys.entity(identifier), keys.entity_names] if kind == "entity" else []
            said = dict(zip(asked, answers[place : place + len(asked)], strict=True))
            wrong = {key: answer for key, answer in said.items() if isinstance(answer, ResponseError)}
            found += [_unreadable(key[len(keys.tag) + 1 :], answer) for key, answer in wrong.items()]
            found.append(registered(owner, known=not wrong and _is_known(list(said.values()), occurred)))
        return found


def _is_known(answers: Sequence[Any], occurred: int) -> bool:
    """By what registry, entity and names say."""
    if answers[0] is None or int(answers[0]) < occurred:
        return False
    return len(answers) == 1 or (answers[1] > 1 and None not in answers[2])


def _unreadable(name: str, answer: ResponseError) -> Fact:
    remedy = b"nothing of ours writes this: find out what did, then `context-graph rebuild --promote`"
    return Fact(UNREADABLE, name, {"problem": str(answer).encode(), "remedy": remedy})
