"""The sweep of records: receipts that can no longer be read, the opinions given on them, and who was in a session.

A receipt is erased with any person it tells about, and with its session. What stays is what a rebuild makes of its
place: that it was there, and which events it held. Its people and the opinions on it go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, cast

import orjson

from context_graph.domain.erasure import Subject
from context_graph.domain.event import opinion_id
from context_graph.store.connection import RedisClient
from context_graph.store.graph import EVENT_PEOPLE
from context_graph.store.keys import GraphKeys

_PAGE = 500
_MEMBER_ID = 17  # a member is a sort key of 17 characters, then the id


class RecordSweep:
    """Sweeps the records of any partition."""

    def __init__(self, derived: RedisClient) -> None:
        self._derived = derived
        source = files("context_graph.store").joinpath("lua/withdraw.lua").read_text()
        self._withdraw = derived.register_script(source)

    async def sweep(self, keys: GraphKeys, subject: Subject, sessions: Iterable[str]) -> int:
        """Remove what concerns the subject; `sessions` are those it was in. Returns how many receipts were swept.

        The list by which the receipts are found goes last, so an interrupted sweep finds them again.
        """
        index, start, swept = keys.receipts(subject.kind, subject.id), 0, 0
        while members := cast("list[bytes]", await self._derived.zrange(index, start, start + _PAGE - 1)):
            await self._forget(keys, [member.decode() for member in members], without=subject)
            start += len(members)
            swept += len(members)
        if subject.kind == "user":
            await self._derived.delete(index)
        await self._leave_sessions(keys, subject, sessions)
        return swept

    async def _forget(self, keys: GraphKeys, members: list[str], *, without: Subject) -> None:
        await self._withdraw_opinions(keys, [member[_MEMBER_ID:] for member in members])
        pipe = self._derived.pipeline(transaction=False)
        for member in members:
            pipe.hget(keys.event(member[_MEMBER_ID:]), EVENT_PEOPLE)
        known: list[bytes | None] = await pipe.execute()
        for member, people in zip(members, known, strict=True):
            for person in orjson.loads(people or b"[]"):
                if without.kind != "user" or person != without.id:
                    pipe.zrem(keys.receipts("user", person), member)
            pipe.hdel(keys.event(member[_MEMBER_ID:]), EVENT_PEOPLE)
        await pipe.execute()

    async def _withdraw_opinions(self, keys: GraphKeys, receipt_ids: list[str]) -> None:
        """Opinions are numbered, so they are found without a list; their causes are what they judge."""
        number = 1
        while receipt_ids:
            pipe = self._derived.pipeline(transaction=False)
            for receipt_id in receipt_ids:
                pipe.hget(keys.event(opinion_id(receipt_id, number)), "causes")
            found = list(zip(receipt_ids, await pipe.execute(), strict=True))
            judged = {receipt_id: orjson.loads(causes) for receipt_id, causes in found if causes is not None}
            for receipt_id, ids in judged.items():
                for event_id in ids:
                    judging = [keys.feedback(event_id), keys.opined]
                    await self._withdraw(keys=judging, args=[receipt_id, event_id], client=pipe)
            await pipe.execute()
            receipt_ids, number = list(judged), number + 1

    async def withdraw_citations(self, keys: GraphKeys, cited: Mapping[str, Sequence[str]]) -> None:
        """What these events cite was not of use to them any more. `cited`: by event."""
        pipe = self._derived.pipeline(transaction=False)
        for event_id, others in cited.items():
            for other in others:
                judging = [keys.feedback(other), keys.opined]
                await self._withdraw(keys=judging, args=[event_id, other], client=pipe)
        await pipe.execute()

    async def _leave_sessions(self, keys: GraphKeys, subject: Subject, sessions: Iterable[str]) -> None:
        """A session no longer says that a person was in it; an erased one names nobody."""
        pipe = self._derived.pipeline(transaction=False)
        if subject.kind == "user":
            for session_id in sorted(sessions):
                pipe.hdel(keys.session(session_id), f"user:{subject.id}")
        else:
            fields: Any = await self._derived.hkeys(keys.session(subject.id))
            people = [name for name in fields if name.startswith(b"user:")]
            if people:
                pipe.hdel(keys.session(subject.id), *people)
            for name in people:
                pipe.zrem(keys.sessions_of(name.decode().removeprefix("user:")), subject.id)
        await pipe.execute()
