"""The sweep: what was derived from an erased subject's events leaves a partition's graph and index.

Each stage's data is found by that stage's own index of the subject: the timeline (projection), the text index
(indexing) and the vector index (enrichment), so what one stage has not seen, or gave up on, hides nothing of another.
What stays is what a rebuild from the erased ledger makes: an event's place, type, agent, session and causes, without
person, text, vector and entities. Entities and people whom nobody else mentions go; the session's summaries
made before the tombstone go, and the next consolidation writes them anew without the subject.

Every generation that has a key is swept, those of the tenant's table and whatever else a rebuild has left.

Sweeping twice changes nothing. The caller makes sure that no stage still holds an event from before the tombstone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, cast

import orjson
from redis.exceptions import ResponseError

from context_graph.domain.document import filter_tag
from context_graph.domain.erasure import Removal, Subject
from context_graph.domain.event import cited_among
from context_graph.domain.graph import split_member
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.text import SUMMARY_ID_PREFIX, session_scope
from context_graph.store import documents as fields
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.dead_letters import DeadLetter, DeadLetters
from context_graph.store.decision_sweep import DecisionSweep
from context_graph.store.entities import EVENT_ENTITIES, EVENT_MENTIONS, forget_names
from context_graph.store.generations import Generations
from context_graph.store.index_state import is_missing_index
from context_graph.store.keys import GraphKeys, PartitionKeys
from context_graph.store.learned_records import LearnedSweep
from context_graph.store.sweeping_clear import ClearText
from context_graph.store.sweeping_records import RecordSweep
from context_graph.store.sweeping_scopes import ScopeSweep

HIDDEN_KINDS = ("documents", "vectors", "attributes", "mentions", "entities", "summaries", "facts")
"""What `Sweeper.hide` counts."""
_PAGE = 500
_SCAN = 2000  # keys looked at in a round trip


@dataclass(frozen=True, slots=True)
class _Found:
    """A derived event as it was found: what of it must go, and from where."""

    id: str
    sort_key: str | None
    session_id: str | None
    user_id: str | None
    entities: tuple[str, ...]
    cited: tuple[str, ...]


@dataclass(slots=True)
class _Tally:
    scanned: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    first: Position | None = None
    last: Position | None = None
    in_clear: set[Position] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)

    def touch(self, position: Position) -> None:
        self.first = position if self.first is None or position < self.first else self.first
        self.last = position if self.last is None or position > self.last else self.last


class Sweeper:
    """Sweeps any partition; `ledger` and `derived` may be the same server."""

    def __init__(self, ledger: RedisClient, derived: RedisClient, generations: Generations) -> None:
        self._ledger = ledger
        self._derived = derived
        self._tables = generations
        self._dead_letters = DeadLetters(ledger)
        self._records = RecordSweep(derived)
        self._decisions = DecisionSweep(ledger, derived)
        self._learned = LearnedSweep(derived)
        self._scopes = ScopeSweep(ledger, derived)
        self._clear = ClearText(ledger, derived)
        scripts = files("context_graph.store").joinpath("lua")
        self._settle = derived.register_script(scripts.joinpath("settle_timeline.lua").read_text())
        self._drop = derived.register_script(scripts.joinpath("drop_if_older.lua").read_text())
        self._command: Any = derived.execute_command

    async def sweep(self, partition: Partition, subject: Subject, tombstone: Position) -> Removal:
        """Remove what was derived from the subject's events here, in every generation. Raises StoreUnavailable."""
        tally = _Tally()
        with store_errors("sweeping what was derived"):
            for keys in await self._generations(partition):
                await self._sweep_generation(partition, keys, subject, tombstone, tally)
            await self._drop_dead_letters(partition, tally)
        return Removal(
            scanned=dict(tally.scanned),
            removed={kind: count for kind, count in sorted(tally.removed.items()) if count},
            first=None if tally.first is None else str(tally.first),
            last=None if tally.last is None else str(tally.last),
            left_in_clear=len(tally.in_clear),
        )

    async def hide(self, partition: Partition, subject: Subject, tombstone: Position) -> dict[str, int]:
        """Remove what answers could quote of the subject, while stages are behind; what was removed, by kind.

        What it is found by stays, so that `sweep` finds all of it again, and what was in flight meanwhile too.
        Raises StoreUnavailable.
        """
        tally = _Tally()
        with store_errors("hiding what was derived"):
            for number in (await self._tables.read(partition.tenant)).all:
                keys = GraphKeys(partition, number)
                await self._sweep_quoting(partition, keys, subject, tally)
                tally.removed["summaries"] += await self._scopes.hide(keys, subject)
                tally.removed["facts"] += await self._learned.sweep(keys, subject)
                await self._drop_summaries(keys, tombstone, tally)
        return {kind: count for kind, count in sorted(tally.removed.items()) if count}

    async def _generations(self, partition: Partition) -> list[GraphKeys]:
        """Every generation of the tenant's table, and every other that has a key or an index here."""
        table = await self._tables.read(partition.tenant)
        prefix = f"cg:{partition.tag}:g"
        names = [name.decode() for name in await self._command("FT._LIST")]
        key: Any
        async for key in self._derived.scan_iter(match=f"{prefix}*", count=_SCAN):
            names.append(key.decode(errors="replace"))
        found = {int(match[1]) for name in names if (match := re.match(re.escape(prefix) + r"(\d+):", name))}
        return [GraphKeys(partition, number) for number in sorted(found | set(table.all))]

    async def _sweep_generation(
        self, partition: Partition, keys: GraphKeys, subject: Subject, tombstone: Position, tally: _Tally
    ) -> None:
        await self._sweep_quoting(partition, keys, subject, tally)
        if subject.kind == "user":
            await self._forget_user(keys, subject.id, tally)
        tally.removed["receipts"] += await self._records.sweep(keys, subject, tally.sessions)
        fed = keys.generation in (await self._tables.read(partition.tenant)).fed
        tally.removed["summaries"] += await self._scopes.sweep(keys, subject, fed=fed)
        tally.removed["facts"] += await self._learned.sweep(keys, subject)
        tally.removed["decisions"] += await self._decisions.sweep(keys)
        await self._drop_summaries(keys, tombstone, tally)
        tally.scanned["generations"] += 1

    async def _sweep_quoting(self, partition: Partition, keys: GraphKeys, subject: Subject, tally: _Tally) -> None:
        """Documents and vectors of the subject's events; `tally.sessions` are those it was in."""
        if subject.kind == "session":
            tally.sessions.add(subject.id)
        else:
            sessions: Any = await self._derived.zrange(keys.sessions_of(subject.id), 0, -1)
            tally.sessions |= {session.decode() for session in sessions}  # forgotten events do not name theirs any more
        touched, in_clear = await self._clear.forgotten_of(keys, subject, sorted(tally.sessions))
        for position in touched:
            tally.touch(position)
        tally.in_clear |= in_clear
        await self._by_timeline(partition, keys, subject, tally)
        for index, prefix in (
            (keys.text_index, keys.document_prefix),
            (keys.vector_index, keys.vector_prefix + "0:"),
        ):
            await self._by_index(keys, subject, tally, index, prefix)

    async def _by_timeline(self, partition: Partition, keys: GraphKeys, subject: Subject, tally: _Tally) -> None:
        """Oldest first; the timeline itself stays until the end, so that an interrupted sweep finds the same again."""
        timeline, start = keys.timeline(subject.kind, subject.id), 0
        while members := cast("list[bytes]", await self._derived.zrange(timeline, start, start + _PAGE - 1)):
            read = [split_member(partition.bucket, member.decode()) for member in members]
            for position, _ in read:
                tally.touch(position)
            tally.in_clear |= await self._clear.among(partition, [position for position, _ in read])
            await self._remove(keys, subject, {event_id: at.sort_key for at, event_id in read}, tally)
            start += len(members)

    async def _by_index(self, keys: GraphKeys, subject: Subject, tally: _Tally, index: str, prefix: str) -> None:
        """What the index still finds, page by page: what was removed is not found again."""
        name = fields.USER if subject.kind == "user" else fields.SESSION
        query = f"@{name}:{{{filter_tag(subject.id)}}}"
        seen: set[str] = set()
        while True:
            try:
                answer = await self._command("FT.SEARCH", index, query, "NOCONTENT", "LIMIT", 0, _PAGE, "DIALECT", 2)
            except ResponseError as error:
                if is_missing_index(error):
                    return
                raise
            ids = {key.decode()[len(prefix) :] for key in answer[1:]} - seen
            if not ids:
                return
            seen |= ids
            summaries = {doc_id for doc_id in ids if doc_id.startswith(SUMMARY_ID_PREFIX)}
            of_session = SUMMARY_ID_PREFIX + session_scope("")
            tally.sessions |= {doc_id.removeprefix(of_session) for doc_id in summaries if doc_id.startswith(of_session)}
            await self._remove(keys, subject, dict.fromkeys(ids - summaries), tally)

    async def _remove(self, keys: GraphKeys, subject: Subject, ids: dict[str, str | None], tally: _Tally) -> None:
        """Documents, vectors and personal attributes of these events; `ids` says where they stand, if known."""
        found = await self._read(keys, ids)
        tally.scanned["events"] += len(set(ids) - tally.ids)
        tally.ids |= set(ids)
        # Timelines first: what they are found by is in what goes next, and a sweep may be interrupted.
        tally.sessions |= {event.session_id for event in found if event.session_id is not None}
        await self._leave_entities(keys, found, tally)
        await self._records.withdraw_citations(keys, {event.id: event.cited for event in found if event.cited})
        if subject.kind == "session":
            await self._leave_users(keys, found)
        pipe = self._derived.pipeline(transaction=False)
        for event in found:
            pipe.delete(keys.document(event.id))
            pipe.delete(*keys.vectors(event.id))
            pipe.hdel(keys.event(event.id), "user_id", EVENT_ENTITIES, EVENT_MENTIONS)
        answers = await pipe.execute()
        for kind, offset in (("documents", 0), ("vectors", 1), ("attributes", 2)):
            tally.removed[kind] += sum(answers[offset::3])

    async def _leave_entities(self, keys: GraphKeys, found: Sequence[_Found], tally: _Tally) -> None:
        left: dict[str, list[str]] = {}
        for event in found:
            if event.sort_key is not None:
                for entity in event.entities:
                    left.setdefault(entity, []).append(event.sort_key + event.id)
        pipe = self._derived.pipeline(transaction=False)
        for name, members in left.items():
            timeline = keys.timeline("entity", name)
            pipe.zrem(timeline, *members)
            touched = [timeline, keys.registry("entity"), keys.entity(name)]
            await self._settle(keys=touched, args=[name], client=pipe)
        answers = await pipe.execute() if left else []
        tally.removed["mentions"] += sum(answers[0::2])
        tally.removed["entities"] += sum(answers[1::2])
        gone = [name for name, removed in zip(left, answers[1::2], strict=True) if removed]
        await forget_names(self._derived, keys, gone)

    async def _leave_users(self, keys: GraphKeys, found: Sequence[_Found]) -> None:
        """An erased session's events leave the timelines of whom they were about. A person's own goes at the end."""
        by_user: dict[str, list[str]] = {}
        for event in found:
            if event.sort_key is not None and event.user_id is not None:
                by_user.setdefault(event.user_id, []).append(event.sort_key + event.id)
        pipe = self._derived.pipeline(transaction=False)
        for user_id, members in by_user.items():
            timeline = keys.timeline("user", user_id)
            pipe.zrem(timeline, *members)
            # A person has no node of its own: the timeline stands for it.
            await self._settle(keys=[timeline, keys.registry("user"), timeline], args=[user_id], client=pipe)
        if by_user:
            await pipe.execute()

    async def _read(self, keys: GraphKeys, ids: dict[str, str | None]) -> list[_Found]:
        pipe = self._derived.pipeline(transaction=False)
        for event_id in ids:
            pipe.hmget(keys.event(event_id), "session", "user_id", EVENT_ENTITIES, "causes")
            pipe.hget(keys.vector(event_id), fields.AT)
            pipe.hmget(keys.document(event_id), fields.AT, fields.META)
        answers = await pipe.execute() if ids else []
        return [
            _found(event_id, known, *answers[3 * place : 3 * place + 3])
            for place, (event_id, known) in enumerate(ids.items())
        ]

    async def _forget_user(self, keys: GraphKeys, user_id: str, tally: _Tally) -> None:
        pipe = self._derived.pipeline(transaction=False)
        pipe.delete(keys.timeline("user", user_id))
        pipe.zrem(keys.registry("user"), user_id)
        pipe.delete(keys.sessions_of(user_id))
        tally.removed["timelines"] += (await pipe.execute())[0]

    async def _drop_summaries(self, keys: GraphKeys, tombstone: Position, tally: _Tally) -> None:
        """Of every session touched; one made after the tombstone knows nothing of the subject and stays."""
        for session_id in sorted(tally.sessions):
            scope = f"session/{session_id}"
            document = SUMMARY_ID_PREFIX + scope
            pipe = self._derived.pipeline(transaction=False)
            for key, version in (
                (keys.summary(scope), "order"),
                (keys.document(document), fields.AT),
                (keys.vector(document), fields.AT),
            ):
                await self._drop(keys=[key], args=[version, tombstone.sort_key], client=pipe)
            versions: Any = keys.versions(scope)
            pipe.zremrangebylex(versions, "-", f"({tombstone.sort_key}")
            pipe.delete(keys.consolidated(session_id), keys.episodes(session_id))
            answers = await pipe.execute()
            tally.removed["summaries"] += int(any(answers[:3]))
        tally.scanned["sessions"] = len(tally.sessions)

    async def _drop_dead_letters(self, partition: Partition, tally: _Tally) -> None:
        """Letters of events that nobody can open any more, and of the events swept; what is said of them goes."""
        after: str | None = None
        while page := await self._dead_letters.listed(partition, after=after, limit=_PAGE):
            after = page[-1].id
            tally.scanned["dead_letters"] += len(page)
            gone = await self._erased_among(partition, page, tally)
            tally.removed["dead_letters"] += await self._dead_letters.discard(partition, gone)

    async def _erased_among(self, partition: Partition, page: Sequence[DeadLetter], tally: _Tally) -> list[DeadLetter]:
        tags = sorted({tag for letter in page for tag in letter.subjects})
        held: Any = await self._ledger.hmget(PartitionKeys(partition).vault, tags) if tags else []
        erased = {tag for tag, key in zip(tags, held, strict=True) if key is None}
        return [letter for letter in page if erased.intersection(letter.subjects) or letter.event_id in tally.ids]


def _found(event_id: str, known: str | None, node: Any, vector_at: bytes | None, document: Any) -> _Found:
    session, user, entities, causes = node
    at = vector_at or document[0]
    shown_session, shown_user = fields.named_in(document[1]) if document[1] else (None, None)
    return _Found(
        id=event_id,
        sort_key=known or (at.decode() if at else None),
        session_id=session.decode() if session else shown_session,
        user_id=user.decode() if user else shown_user,
        entities=tuple(orjson.loads(entities)) if entities else (),
        cited=cited_among(orjson.loads(causes)) if causes else (),
    )
