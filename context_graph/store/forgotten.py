"""What is forgotten, as a generation knows it, and the taking away of what each stage keeps of a forgotten event.

A decision is one field of its session's hash, so decisions may come twice, in any order, and from any stage: all of
them put the same. What a stage removes is what it wrote:

- Stage 1: the event's attributes, its place on the timelines of its agent, person and tool, and at its causes, with
  what it cited of them;
- indexing: its document;
- enrichment: its vector, its entities, its place on the timelines of its entities.

Of a session's summary that is forgotten, document and vector go; its node stays, and leads to what it says.

What stays is the way back: the timeline of its session (its table of contents, what consolidation reads) until a
decision says that all of the session goes, what appears in a session, in which sessions a person does (erasure goes by
that), feedback, and the names of agents, people and tools. An entity goes with its last mention; what was decided about
its names stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import orjson

from context_graph.domain.event import cited_among
from context_graph.domain.forgetting import Decision, Decisions, Place, Stretch, decisions, split_pin, standing
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.text import SUMMARY_ID_PREFIX, session_scope
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.documents import AT
from context_graph.store.entities import EVENT_ENTITIES, EVENT_MENTIONS, name_members
from context_graph.store.graph import EVENT_FIELDS, Graph

_NUMBERS = 8  # of a stretch, in a row

_MEMBERS = 1000  # that a script takes from a timeline at once

Places = Mapping[str, Place]
"""Event id -> where it stands."""


class Move(NamedTuple):
    """A forgotten event and the timeline of its session: it leaves it, or stands there."""

    session_id: str
    event_id: str
    place: Place
    leaves: bool


class Forgotten:
    """Of the generation that `graph` reads or writes."""

    def __init__(self, redis: RedisClient, graph: Graph) -> None:
        self._redis = redis
        self._graph = graph
        scripts = files("context_graph.store").joinpath("lua")
        self._drop = redis.register_script(scripts.joinpath("drop_if_older.lua").read_text())
        self._forget_node = redis.register_script(scripts.joinpath("forget_node.lua").read_text())
        self._forget_places = redis.register_script(scripts.joinpath("forget_places.lua").read_text())
        self._forget_mentions = redis.register_script(scripts.joinpath("forget_mentions.lua").read_text())

    async def put(self, partition: Partition, known: Iterable[Decision]) -> None:
        """Keep decisions; one round trip, two more for sessions of which all is forgotten, whose older ones go.

        Whoever puts last of two sees both, so that what is overruled goes in any order of arrival.
        """
        keys, sessions = await self._graph.keys(partition), set[str]()
        pipe = self._redis.pipeline(transaction=False)
        for decision in known:
            sessions.add(decision.session_id)
            pipe.hset(keys.forgotten(decision.session_id), decision.order, decision_row(decision))
        with store_errors("keeping what is forgotten"):
            await pipe.execute()
        for session_id, there in (await self.of(partition, sorted(sessions))).items():
            kept = {decision.order for decision in standing(there.known)}
            overruled = [decision.order for decision in there.known if decision.order not in kept]
            if overruled:
                pipe.hdel(keys.forgotten(session_id), *overruled)
        with store_errors("dropping decisions that are overruled"):
            await pipe.execute()

    async def of(self, partition: Partition, sessions: Sequence[str]) -> dict[str, Decisions]:
        """The decisions about these sessions, of those that have any; one round trip where none has, else two."""
        graph_keys = await self._graph.keys(partition)
        keys = [graph_keys.forgotten(session_id) for session_id in sessions]
        pipe = self._redis.pipeline(transaction=False)
        for key in keys:
            pipe.hgetall(key)
        with store_errors("reading what is forgotten"):
            # Every context asks this of dozens of sessions, of which hardly any has a decision.
            if not keys or not await self._redis.exists(*keys):
                return {}
            answers: list[Any] = await pipe.execute()
        return {
            session_id: decisions(decision_of_row(session_id, order.decode(), row) for order, row in rows.items())
            for session_id, rows in zip(sessions, answers, strict=True)
            if rows
        }

    async def pinned(self, partition: Partition, ids: Sequence[str] | None = None) -> set[str]:
        """Which of these events are pinned; without ids: all that are."""
        key = (await self._graph.keys(partition)).pins
        found: Any
        with store_errors("reading pins"):
            if ids is None:
                found = await self._redis.hgetall(key)
                return {name.decode() for name, value in found.items() if value.endswith(b"1")}
            found = await self._redis.hmget(key, list(ids)) if ids else []
        return {i for i, value in zip(ids, found, strict=True) if value is not None and value.endswith(b"1")}

    async def newest_pins(self, partition: Partition, limit: int, until: Position | None) -> list[str]:
        """The events that are pinned by the `limit` newest decisions (at or ahead of `until`), the newest first."""
        key = (await self._graph.keys(partition)).pin_decisions
        end = "+" if until is None else f"({until.sort_key}\x7f"
        with store_errors("reading pins"):
            found: Any = await self._redis.zrevrangebylex(key, end, "-", start=0, num=limit)
        newest: dict[str, bool] = {}
        for member in found:
            _, pinned, event_id = split_pin(member.decode())
            newest.setdefault(event_id, pinned)
        return [event_id for event_id, pinned in newest.items() if pinned]

    async def remove_nodes(self, partition: Partition, places: Places) -> None:
        """Stage 1's part."""
        keys = await self._graph.keys(partition)
        pipe = self._redis.pipeline(transaction=False)
        for event_id in places:
            pipe.hmget(keys.event(event_id), "agent", "tool_name", "user_id", "causes")
        with store_errors("forgetting nodes"):
            answers: list[Any] = await pipe.execute() if places else []
            for (event_id, place), (agent, tool, user, causes) in zip(places.items(), answers, strict=True):
                if agent is None:
                    continue  # not there, or taken already
                touched = [keys.event(event_id), keys.opined, keys.timeline("agent", agent.decode())]
                named = (("tool", tool), ("user", user))
                touched += (keys.timeline(kind, name.decode()) for kind, name in named if name is not None)
                named_causes: list[str] = orjson.loads(causes or b"[]")
                touched += (keys.effects(cause) for cause in named_causes)
                cited = cited_among(named_causes)
                touched += map(keys.feedback, cited)
                args: list[str | int] = [place.order + event_id, len(cited), *cited, *EVENT_FIELDS]
                await self._forget_node(keys=touched, args=args, client=pipe)
            if places:
                await pipe.execute()

    async def settle_places(self, partition: Partition, moves: Iterable[Move]) -> None:
        """Stage 1's part too: whether forgotten events stand on the timelines of their sessions.

        A session without any is not listed, and what passes remember of it goes.
        """
        keys = await self._graph.keys(partition)
        pipe = self._redis.pipeline(transaction=False)
        leaving: dict[str, list[str]] = {}
        for move in moves:
            member = move.place.order + move.event_id
            if move.leaves:
                leaving.setdefault(move.session_id, []).append(member)
            else:
                pipe.zadd(keys.timeline("session", move.session_id), {member: move.place.occurred_at})
                pipe.zadd(keys.registry("session"), {move.session_id: move.place.occurred_at}, gt=True)
        for session_id, members in leaving.items():
            touched = [keys.timeline("session", session_id), keys.registry("session")]
            touched += [keys.retention(session_id), keys.consolidated(session_id)]
            for start in range(0, len(members), _MEMBERS):
                args = [session_id, *members[start : start + _MEMBERS]]
                await self._forget_places(keys=touched, args=args, client=pipe)
        with store_errors("forgetting places"):
            await pipe.execute()

    async def remove_documents(self, partition: Partition, places: Places) -> None:
        """The indexing's part."""
        keys = await self._graph.keys(partition)
        if places:
            with store_errors("forgetting documents"):
                await self._redis.delete(*(keys.document(event_id) for event_id in places))

    async def remove_summaries(self, partition: Partition, through: Mapping[str, str], *, vectors: bool) -> None:
        """Of each of these sessions the summary's document (or `vectors`), unless it is newer than that sort key."""
        keys = await self._graph.keys(partition)
        pipe = self._redis.pipeline(transaction=False)
        for session_id, order in through.items():
            document = SUMMARY_ID_PREFIX + session_scope(session_id)
            for key in [keys.vector(document)] if vectors else [keys.document(document)]:
                await self._drop(keys=[key], args=[AT, order + "."], client=pipe)  # the sort key itself counts as older
        with store_errors("forgetting summaries"):
            if through:
                await pipe.execute()

    async def remove_enrichments(self, partition: Partition, places: Places) -> None:
        """The enrichment's part."""
        keys = await self._graph.keys(partition)
        pipe = self._redis.pipeline(transaction=False)
        for event_id in places:
            pipe.hget(keys.event(event_id), EVENT_ENTITIES)
        with store_errors("forgetting vectors"):
            answers: list[Any] = await pipe.execute() if places else []
            for (event_id, place), raw in zip(places.items(), answers, strict=True):
                pipe.delete(*keys.vectors(event_id))
                if raw is None:
                    continue
                touched = [keys.event(event_id), keys.registry("entity"), keys.entity_names]
                args: list[str | int] = [EVENT_ENTITIES, EVENT_MENTIONS, place.order + event_id]
                for entity_id in orjson.loads(raw):
                    names = name_members(entity_id)
                    touched += (keys.timeline("entity", entity_id), keys.entity(entity_id))
                    args += (entity_id, len(names), *names)
                await self._forget_mentions(keys=touched, args=args, client=pipe)
            if places:
                await pipe.execute()


def decision_row(decision: Decision) -> bytes:
    """What is stored of a decision beside its order: the events that it lists are left out."""
    more: list[str | int] = [decision.summaries_through] if decision.summaries_through or decision.places else []
    if decision.places:
        more.append(1)
    return orjson.dumps([int(decision.forgotten), decision.at, _packed(decision.stretches), *more])


def decision_of_row(session_id: str, order: str, row: bytes) -> Decision:
    """The inverse of `decision_row`, but for the events that the decision lists."""
    said: Any = orjson.loads(row)
    forgotten, at, stretches = said[:3]
    through = said[3] if len(said) > 3 else ""
    old = bool(stretches) and isinstance(stretches[0], list)
    cut = tuple(_of_version_4(*one) for one in stretches) if old else _unpacked(stretches)
    return Decision(session_id, order, bool(forgotten), at, cut, summaries_through=through, places=len(said) > 4)


def _of_version_4(first_at: int, first: str, last_at: int, last: str, through: str) -> Stretch:
    """As generations before fold version 5 hold it."""
    return Stretch(Place(first_at, first), Place(last_at, last), through)


def _packed(stretches: Sequence[Stretch]) -> list[int]:
    """Eight numbers a stretch: when and where its first and its last event stand, and up to where it reaches.

    A place is its time, and milliseconds and sequence of its position. Times and milliseconds are told by what they
    are more than the ones before: some 20 to 30 bytes a stretch instead of 105.
    """
    numbers: list[int] = []
    time, moment = 0, 0
    for stretch in stretches:
        for occurred_at, order in (
            (stretch.first.occurred_at, stretch.first.order),
            (stretch.last.occurred_at, stretch.last.order),
            (None, stretch.through),
        ):
            if occurred_at is not None:
                numbers.append(occurred_at - time)
                time = occurred_at
            _, ms, seq = Position.of_sort_key(0, order)
            numbers += (ms - moment, seq)
            moment = ms
    return numbers


def _unpacked(numbers: Sequence[int]) -> tuple[Stretch, ...]:
    found: list[Stretch] = []
    time, moment = 0, 0
    for start in range(0, len(numbers), _NUMBERS):
        first_at, first, first_seq, last_at, last, last_seq, through, through_seq = numbers[start : start + _NUMBERS]
        begin, end = time + first_at, time + first_at + last_at
        orders = (moment + first, moment + first + last, moment + first + last + through)
        place, last_place, reach = (
            Position(0, ms, seq).sort_key for ms, seq in zip(orders, (first_seq, last_seq, through_seq), strict=True)
        )
        found.append(Stretch(Place(begin, place), Place(end, last_place), reach))
        time, moment = end, orders[-1]
    return tuple(found)
