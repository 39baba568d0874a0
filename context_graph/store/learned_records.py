"""Facts and what took their place as records: how they are written, read back, and taken away when erased.

A fact is a hash; lists in the order of the ledger say which there are of a user, a session, a subject, an event, a
statement. What says that a fact holds no longer is a row beside the fact, in the partition of whatever said it. Every
write may be repeated and come in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import orjson

from context_graph.domain.erasure import Subject
from context_graph.domain.graph import GraphDelta
from context_graph.domain.learned import LearnedFact, Supersession, plain
from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient
from context_graph.store.keys import GraphKeys

EVERYBODY = "-"
"""The identifier of the list of all facts."""
SAME = "same"
"""The list of the facts that say the same of the same person (`LearnedFact.statement_id`)."""
SUPERSEDED_BY = "superseded-by"
"""The list of the facts that one took the place of."""
_PAGE = 500
_MEMBER_ID = 17  # a member is a sort key of 17 characters, then the id


def learned_fields(fact: LearnedFact) -> dict[str, str | bytes]:
    """A fact's hash."""
    body = {
        "session_id": fact.session_id,
        "user_id": fact.user_id,
        "subject": fact.subject,
        "predicate": fact.predicate,
        "object": fact.object,
        "kind": fact.kind,
        "quote": fact.quote,
        "event_id": fact.event_id,
        "event_position": str(fact.event_position),
        "valid_from": fact.valid_from,
    }
    return {"at": fact.position.sort_key, "fact": orjson.dumps(body, option=orjson.OPT_SORT_KEYS)}


def learned_fact(fact_id: str, bucket: int, fields: Mapping[bytes, bytes]) -> LearnedFact:
    """The inverse of `learned_fields`."""
    body: Any = orjson.loads(fields[b"fact"])
    body["event_position"] = Position.parse(body["event_position"])
    return LearnedFact(id=fact_id, position=Position.of_sort_key(bucket, fields[b"at"].decode()), **body)


def superseded_row(supersession: Supersession) -> bytes:
    """What is kept beside the fact that holds no longer."""
    body = {
        "new": supersession.new,
        "session_id": supersession.session_id,
        "user_id": supersession.user_id,
        "reason": supersession.reason,
        "valid_to": supersession.valid_to,
    }
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def supersession(fact_id: str, bucket: int, at: bytes, row: bytes) -> Supersession:
    """The inverse of `superseded_row`."""
    return Supersession(old=fact_id, position=Position.of_sort_key(bucket, at.decode()), **orjson.loads(row))


def lists_of(fact: LearnedFact) -> Iterator[tuple[str, str]]:
    """The lists that a fact is on."""
    yield "all", EVERYBODY
    yield "session", fact.session_id
    yield "event", fact.event_id
    yield "subject", plain(fact.subject)
    yield SAME, fact.statement_id
    if fact.user_id is not None:
        yield "user", fact.user_id


def lists_of_end(supersession: Supersession) -> Iterator[tuple[str, str]]:
    """The lists by which what is said of a fact is found: by erasure, and from the fact that took its place."""
    yield SUPERSEDED_BY, supersession.new
    yield "superseded-session", supersession.session_id
    if supersession.user_id is not None:
        yield "superseded-user", supersession.user_id


def put_learned(pipe: Any, keys: GraphKeys, delta: GraphDelta) -> None:
    """Add the delta's facts to a pipeline."""
    for fact in delta.learned.values():
        pipe.hset(keys.fact(fact.id), mapping=learned_fields(fact))
        for of, identifier in lists_of(fact):
            pipe.zadd(keys.facts(of, identifier), {fact.position.sort_key + fact.id: 0})
    for said in delta.superseded:
        at = said.position.sort_key
        pipe.hset(keys.superseded(said.old), at, superseded_row(said))
        for of, identifier in lists_of_end(said):
            pipe.zadd(keys.facts(of, identifier), {at + said.old: 0})


class LearnedSweep:
    """Takes away what was noted of an erased person or in an erased session."""

    def __init__(self, derived: RedisClient) -> None:
        self._derived = derived

    async def sweep(self, keys: GraphKeys, subject: Subject) -> int:
        """The subject's facts, and what was said in its name of others; how many facts these were.

        The lists by which they are found lose their members in the step that takes the fact, so an interrupted sweep
        finds the rest.
        """
        swept = 0
        while members := await self._first(keys.facts(subject.kind, subject.id)):
            swept += await self._drop_facts(keys, subject, members)
        while members := await self._first(keys.facts(f"superseded-{subject.kind}", subject.id)):
            await self._drop_ends(keys, subject, members)
        return swept

    async def _first(self, key: str) -> list[str]:
        found = cast("list[bytes]", await self._derived.zrange(key, 0, _PAGE - 1))
        return [member.decode() for member in found]

    async def _drop_facts(self, keys: GraphKeys, subject: Subject, members: list[str]) -> int:
        pipe = self._derived.pipeline(transaction=False)
        for member in members:
            pipe.hgetall(keys.fact(member[_MEMBER_ID:]))
        known: list[dict[bytes, bytes]] = await pipe.execute()
        drop = self._derived.pipeline(transaction=True)
        for member, fields in zip(members, known, strict=True):
            fact_id = member[_MEMBER_ID:]
            lists = {(str(subject.kind), subject.id)}
            if fields:
                lists |= set(lists_of(learned_fact(fact_id, keys.partition.bucket, fields)))
            for of, identifier in lists:
                drop.zrem(keys.facts(of, identifier), member)
            drop.hdel(keys.event(fact_id), "user_id")
        for member in members:
            drop.delete(keys.fact(member[_MEMBER_ID:]))
        answers = await drop.execute()
        return sum(answers[-len(members) :])  # another sweep may have been faster

    async def _drop_ends(self, keys: GraphKeys, subject: Subject, members: list[str]) -> None:
        pipe = self._derived.pipeline(transaction=False)
        for member in members:
            pipe.hget(keys.superseded(member[_MEMBER_ID:]), member[:_MEMBER_ID])
        rows: list[bytes | None] = await pipe.execute()
        drop = self._derived.pipeline(transaction=True)
        for member, row in zip(members, rows, strict=True):
            at, old = member[:_MEMBER_ID], member[_MEMBER_ID:]
            lists = {(f"superseded-{subject.kind}", subject.id)}
            if row is not None:
                lists |= set(lists_of_end(supersession(old, keys.partition.bucket, at.encode(), row)))
            for of, identifier in lists:
                drop.zrem(keys.facts(of, identifier), member)
            drop.hdel(keys.superseded(old), at)
        await drop.execute()
