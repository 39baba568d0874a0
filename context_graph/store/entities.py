"""Entities of a partition: their names, by which blocks they are found, what was decided about them, where they appear.

Two sorted sets of equal scores, read by ranges of their members. `names` has one member for each entity (`i`, its id)
and one for each block of each entity (`b`, the block, the id). `decisions` has two for each decision, one under each
name, in the order of the ledger. Both only grow by facts that may be written twice and in any order; a decision is
never overwritten: the last of a pair counts when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from context_graph.domain.document import Enrichment, Mention
from context_graph.domain.entity_names import blocks, split_id
from context_graph.domain.graph import split_member, timeline_member
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.generations import GenerationOf, always, first
from context_graph.store.keys import GraphKeys

# Fields of an entity's hash: its label, and one field for each surface form, so that forms need no order to be merged.
ENTITY_LABEL = "label"
ENTITY_FORM_PREFIX = "form:"
# Stage 2's fields of an event's hash (JSON): entity ids in order of first mention; for each of these
# `[name as first written, role, start, end, start, end …]`, a pair of characters for each mention.
EVENT_ENTITIES = "entities"
EVENT_MENTIONS = "mentions"
SHOWN = (EVENT_ENTITIES, EVENT_MENTIONS)
MOST_IN_BLOCK = 100
"""Names read of one block: one that more share tells nothing apart, and nobody is looked for in it."""
_SEPARATOR = "\0"


@dataclass(frozen=True, slots=True)
class EntityDecision:
    """That two names are one thing, or that they are not; `position` of the event that says so."""

    left: str
    right: str
    same: bool
    event_id: str
    position: Position
    note: str | None = None


@dataclass(frozen=True, slots=True)
class EntityNode:
    """A name: its forms as written, how many events mention it, when it was last mentioned (ms UTC)."""

    id: str
    label: str
    forms: tuple[str, ...]
    events: int
    last_occurred_at: int


@dataclass(frozen=True, slots=True)
class EntityEvent:
    """An event that mentions an entity. `named`: entity id, name, role and character spans in the event's text."""

    event_id: str
    position: Position
    occurred_at: int
    session_id: str | None
    agent_id: str | None
    named: tuple[tuple[str, str, str, tuple[int, ...]], ...]
    others: tuple[str, ...] = ()
    user_id: str | None = None


def name_members(entity_id: str) -> list[str]:
    """What stands in `names` for an entity."""
    keys = blocks(*split_id(entity_id))
    return [f"i{_SEPARATOR}{entity_id}", *(f"b{_SEPARATOR}{key}{_SEPARATOR}{entity_id}" for key in sorted(keys))]


def put_names(pipe: Any, keys: GraphKeys, entity_ids: Iterable[str]) -> None:
    """Make entities findable by their blocks."""
    members = {member: 0 for entity_id in entity_ids for member in name_members(entity_id)}
    if members:
        pipe.zadd(keys.entity_names, members)


def shown_fields(enrichment: Enrichment) -> dict[str, bytes]:
    """Stage 2's fields of an event's hash; those of `SHOWN` that say something."""
    grouped = _by_entity(enrichment.mentions)
    shown: dict[str, bytes] = {}
    if grouped:
        shown[EVENT_ENTITIES] = orjson.dumps(list(grouped))
        shown[EVENT_MENTIONS] = orjson.dumps([_shown(group) for group in grouped.values()])
    return shown


def put_entities(pipe: Any, keys: GraphKeys, enrichments: Iterable[Enrichment]) -> None:
    """Entity nodes, their timelines and registry: of each entity one command of a kind, however many mention it.

    A summary mentions what its events mention: it adds to no timeline.
    """
    timelines: dict[str, dict[str, int]] = {}
    forms: dict[str, dict[str, str]] = {}
    for document, mentions in ((each.document, each.mentions) for each in enrichments):
        if document.kind == "summary":
            continue
        member = timeline_member(document.position, document.id)
        for mention in mentions:
            timelines.setdefault(mention.entity_id, {})[member] = document.occurred_at
            known = forms.setdefault(mention.entity_id, {ENTITY_LABEL: mention.label})
            known[ENTITY_FORM_PREFIX + mention.name] = ""
    for entity_id, members in timelines.items():
        pipe.zadd(keys.timeline("entity", entity_id), members)  # first: it keeps the rest alive
        pipe.hset(keys.entity(entity_id), mapping=forms[entity_id])
    if timelines:
        latest = {entity_id: max(members.values()) for entity_id, members in timelines.items()}
        pipe.zadd(keys.registry("entity"), latest, gt=True)
    put_names(pipe, keys, timelines)


def _shown(mentions: Sequence[Mention]) -> list[str | int]:
    places = [place for mention in mentions for place in (mention.start, mention.end)]
    return [mentions[0].name, mentions[0].role, *places]


def _by_entity(mentions: Sequence[Mention]) -> dict[str, list[Mention]]:
    grouped: dict[str, list[Mention]] = {}
    for mention in mentions:
        grouped.setdefault(mention.entity_id, []).append(mention)
    return grouped


async def forget_names(redis: RedisClient, keys: GraphKeys, gone: Sequence[str]) -> None:
    """Remove names that no event mentions any more, and what was decided about them."""
    if not gone:
        return
    pipe = redis.pipeline(transaction=False)
    for one in gone:
        prefix = f"{one}{_SEPARATOR}"
        pipe.zrem(keys.entity_names, *name_members(one))
        pipe.zrangebylex(keys.entity_decisions, f"[{prefix}", f"({_behind(prefix)}")
    decided = [member.decode() for members in (await pipe.execute())[1::2] for member in members]
    both = {member for one in decided for member in (one, _turned(one))}
    if both:
        await redis.zrem(keys.entity_decisions, *both)


def _turned(member: str) -> str:
    left, right, rest = member.split(_SEPARATOR, 2)
    return _SEPARATOR.join((right, left, rest))


class EntityStore:
    """Reads and writes entities of any partition."""

    def __init__(self, redis: RedisClient, generation: GenerationOf = first) -> None:
        """`generation`: which one of a tenant is read and written."""
        self._redis = redis
        self._generation = generation

    def at(self, generation: int) -> EntityStore:
        """The same in that very generation."""
        return EntityStore(self._redis, always(generation))

    async def _keys(self, partition: Partition) -> GraphKeys:
        return GraphKeys(partition, await self._generation(partition.tenant))

    async def put_decisions(self, partition: Partition, decisions: Sequence[EntityDecision]) -> None:
        """Keep these beside what was decided before; one round trip."""
        keys = await self._keys(partition)
        members: dict[str, int] = {}
        for decision in decisions:
            said = orjson.dumps([decision.same, decision.event_id, str(decision.position), decision.note]).decode()
            for one, other in ((decision.left, decision.right), (decision.right, decision.left)):
                members[_SEPARATOR.join((one, other, decision.position.sort_key, said))] = 0
        with store_errors("keeping decisions about entities"):
            await self._redis.zadd(keys.entity_decisions, members)

    async def decisions(
        self,
        partitions: Sequence[Partition],
        ids: Sequence[str],
        counts: Callable[[Position], bool] = lambda _position: True,
    ) -> list[EntityDecision]:
        """The last decision of each pair that these names are in, of those whose position `counts`."""
        last: dict[tuple[str, str], EntityDecision] = {}
        for members in await self._ranges(partitions, [(f"{one}{_SEPARATOR}", None) for one in ids], decided=True):
            for member in members:
                left, right, _, said = member.split(_SEPARATOR, 3)
                same, event_id, position, note = orjson.loads(said)
                pair = (left, right) if left <= right else (right, left)
                decision = EntityDecision(*pair, same, event_id, Position.parse(position), note)
                if not counts(decision.position):
                    continue
                known = last.get(pair)
                if known is None or known.position.sort_key <= decision.position.sort_key:
                    last[pair] = decision
        return list(last.values())

    async def alike(self, partitions: Sequence[Partition], ids: Iterable[str]) -> set[str]:
        """Names that share a block with one of these, these included; blocks that too many share are passed over."""
        keys = sorted({key for one in ids for key in blocks(*split_id(one))})
        asked = [(f"b{_SEPARATOR}{key}{_SEPARATOR}", MOST_IN_BLOCK + 1) for key in keys]
        found: set[str] = set()
        for members in await self._ranges(partitions, asked):
            if len(members) <= MOST_IN_BLOCK:
                found |= {member.split(_SEPARATOR, 2)[2] for member in members}
        return found

    async def sizes(self, partitions: Sequence[Partition]) -> tuple[int, ...]:
        """Of each partition the rows of its names and of its decisions: one that comes or goes changes them."""
        found: list[int] = []
        for partition in partitions:
            keys = await self._keys(partition)
            pipe = self._redis.pipeline(transaction=False)
            pipe.zcard(keys.entity_names)
            pipe.zcard(keys.entity_decisions)
            with store_errors("counting names"):
                found += await pipe.execute()
        return tuple(found)

    async def listed(self, partitions: Sequence[Partition], after: str, label: str | None, limit: int) -> list[str]:
        """Ids in order, those behind `after`, of one label or all; at most `limit`."""
        prefix = f"i{_SEPARATOR}" + (f"{label}:" if label is not None else "")
        pages = []
        for partition in partitions:
            key = (await self._keys(partition)).entity_names
            low = max(f"[{prefix}", f"(i{_SEPARATOR}{after}" if after else "", key=lambda bound: bound[1:])
            with store_errors("listing entities"):
                page: Any = await self._redis.zrangebylex(key, low, f"({_behind(prefix)}", 0, limit)
            pages.append(member.decode()[2:] for member in page)
        return sorted({one for page in pages for one in page})[:limit]

    async def nodes(self, partitions: Sequence[Partition], ids: Sequence[str]) -> dict[str, EntityNode]:
        """What is known of these names, over all partitions; of each partition one round trip."""
        merged: dict[str, EntityNode] = {}
        for partition in partitions:
            keys = await self._keys(partition)
            pipe = self._redis.pipeline(transaction=False)
            for one in ids:
                pipe.hkeys(keys.entity(one))
                pipe.zcard(keys.timeline("entity", one))
                pipe.zscore(keys.registry("entity"), one)
            with store_errors("reading entities"):
                answers = await pipe.execute() if ids else []
            for place, one in enumerate(ids):
                fields, events, last = answers[3 * place : 3 * place + 3]
                if events:
                    merged[one] = _joined(merged.get(one), one, fields, events, int(last or 0))
        return merged

    async def events(
        self, partitions: Sequence[Partition], ids: Sequence[str], limit: int, before: tuple[int, str] | None = None
    ) -> list[EntityEvent]:
        """Events that mention any of these names, newest first, behind `before` (occurred_at, member)."""
        found: dict[str, tuple[int, Partition]] = {}
        for partition in partitions:
            keys = await self._keys(partition)
            pipe = self._redis.pipeline(transaction=False)
            high: int | str = "+inf" if before is None else before[0]
            for one in ids:
                pipe.zrevrangebyscore(
                    keys.timeline("entity", one), high, "-inf", start=0, num=limit + 20, withscores=True
                )
            with store_errors("reading an entity's events"):
                answers = await pipe.execute() if ids else []
            for answer in answers:
                found |= {member.decode(): (int(score), partition) for member, score in answer}
        ordered = sorted(((at, member, where) for member, (at, where) in found.items()), key=_newest, reverse=True)
        behind = [row for row in ordered if before is None or (row[0], row[1]) < before][:limit]
        return await self._read_events(behind, frozenset(ids))

    async def _read_events(
        self, rows: Sequence[tuple[int, str, Partition]], wanted: frozenset[str]
    ) -> list[EntityEvent]:
        pipe = self._redis.pipeline(transaction=False)
        for _, member, partition in rows:
            _, event_id = split_member(partition.bucket, member)
            keys = await self._keys(partition)
            pipe.hmget(keys.event(event_id), "session", "agent", EVENT_ENTITIES, EVENT_MENTIONS, "user_id")
        with store_errors("reading an entity's events"):
            answers = await pipe.execute() if rows else []
        return [_event(row, answer, wanted) for row, answer in zip(rows, answers, strict=True)]

    async def _ranges(
        self, partitions: Sequence[Partition], asked: Sequence[tuple[str, int | None]], *, decided: bool = False
    ) -> list[list[str]]:
        """Members that begin so, of each partition and prefix; one round trip a partition."""
        found: list[list[str]] = []
        for partition in partitions:
            keys = await self._keys(partition)
            key = keys.entity_decisions if decided else keys.entity_names
            pipe = self._redis.pipeline(transaction=False)
            for prefix, most in asked:
                bounds = (None, None) if most is None else (0, most)
                pipe.zrangebylex(key, f"[{prefix}", f"({_behind(prefix)}", *bounds)
            with store_errors("looking for entities"):
                answers = await pipe.execute() if asked else []
            found += [[member.decode() for member in answer] for answer in answers]
        return found


def _behind(prefix: str) -> str:
    """The first string behind all that begin with `prefix`, which ends in a NUL or a colon."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _newest(row: tuple[int, str, Partition]) -> tuple[int, str]:
    return row[0], row[1]


def _joined(known: EntityNode | None, one: str, fields: Sequence[bytes], events: int, last: int) -> EntityNode:
    names = (field.decode() for field in fields)
    forms = {name[len(ENTITY_FORM_PREFIX) :] for name in names if name.startswith(ENTITY_FORM_PREFIX)}
    if known is not None:
        return EntityNode(
            one, known.label, tuple(sorted(forms | set(known.forms))), known.events + events,
            max(last, known.last_occurred_at),
        )  # fmt: skip
    return EntityNode(one, split_id(one)[0], tuple(sorted(forms)), events, last)


def _event(row: tuple[int, str, Partition], answer: Sequence[bytes | None], wanted: frozenset[str]) -> EntityEvent:
    occurred_at, member, partition = row
    position, event_id = split_member(partition.bucket, member)
    session, agent, entities, mentions, user = answer
    ids: list[str] = orjson.loads(entities) if entities else []
    shown: list[list[Any]] = orjson.loads(mentions) if mentions else []
    named = tuple(
        (one, said[0], said[1], tuple(said[2:])) for one, said in zip(ids, shown, strict=False) if one in wanted
    )
    return EntityEvent(
        event_id=event_id,
        position=position,
        occurred_at=occurred_at,
        session_id=session.decode() if session else None,
        agent_id=agent.decode() if agent else None,
        named=named,
        others=tuple(one for one in ids if one not in wanted),
        user_id=user.decode() if user else None,
    )
