"""RELATED_TO between sessions: those that belong together by what both mention, and by what their summaries say.

Found when asked for, as every link (links.py, adr/0028): a function of the graph, so a rebuild, a merge of names or an
erasure needs nothing, and unchanged input costs nothing. An entity that n of the sessions looked at mention is worth
1 / log2(n) (after Adamic and Adar 2003: what few share ties), all of them together a = s / (1 + s); two summaries are
worth their cosine c where it is above the threshold; the score is 1 - (1 - a)(1 - c), the same from either end.

Of a session its newest events count, of an entity the newest that mention it. What is forgotten is tied by the events
that stayed of it and by its summary. As of a position only what is mentioned counts: a summary of then has no vector.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from context_graph.domain.edges import Edge, NodeId
from context_graph.domain.event import SessionId
from context_graph.domain.filters import Filters, TagCondition
from context_graph.domain.graph import EventNode
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.domain.text import SUMMARY_ID_PREFIX, session_scope
from context_graph.resolution.entities import Entities
from context_graph.retrieval.deadline import AWAY, Cut
from context_graph.retrieval.neighbours import Neighbours
from context_graph.retrieval.request import AsOf
from context_graph.retrieval.similar import THRESHOLD
from context_graph.store.index import Index
from context_graph.store.queries import Searcher

_NEWEST = 200  # events of a session whose mentions count
_MOST_NAMES = 32  # entities of a session by which others are looked for: those it mentions most
_MENTIONS = 100  # newest events of an entity
_NEAR = 50  # summaries looked at
_SHOWN = 10  # shared entities that are told
_SUMMARIES = Filters((TagCondition("kind", "eq", ("summary",)),))
_EVERYWHERE = ("tool:", "agent:")  # who and what was at work says nothing of what it was about


@dataclass(frozen=True, slots=True)
class Shared:
    """An entity that both sessions mention: an event of each that does, the newest, and what it is worth."""

    entity_id: str
    here: EventNode
    there: EventNode
    weight: float


@dataclass(frozen=True, slots=True)
class RelatedSession:
    """A session that belongs to another: score 0 to 1, and why. `position`: of the newest event that shows it."""

    session_id: str
    score: float
    position: Position
    shared: tuple[Shared, ...]
    similarity: float | None = None


_Mentions = dict[str, dict[str, EventNode]]  # entity -> session -> the newest event that mentions it there


class RelatedSessions:
    """Of any tenant."""

    def __init__(self, index: Index, searcher: Searcher, neighbours: Neighbours, entities: Entities) -> None:
        self._index = index
        self._searcher = searcher
        self._neighbours = neighbours
        self._entities = entities

    async def of(
        self, tenant: Tenant, session_id: str, limit: int, min_score: float, as_of: AsOf | None, *, cut: Cut
    ) -> list[RelatedSession]:
        """At most `limit`, the best first, ties by id. Names that only their meaning joins are told apart while the
        embedder is away, which is noted as cut."""
        mentions, near = await asyncio.gather(
            self._mentions(tenant, session_id, as_of, cut), self._near(tenant, session_id, as_of)
        )
        shared: dict[str, list[Shared]] = {}
        for name, sessions in mentions.items():
            weight = 1 / math.log2(len(sessions)) if len(sessions) > 1 else 0.0
            for other in sessions.keys() - {session_id}:
                shared.setdefault(other, []).append(Shared(name, sessions[session_id], sessions[other], weight))
        found = [_related(other, shared.get(other, []), near.get(other)) for other in shared.keys() | near.keys()]
        found = [one for one in found if one.score >= min_score]
        return sorted(found, key=lambda one: (-one.score, one.session_id))[:limit]

    async def _mentions(self, tenant: Tenant, session_id: str, as_of: AsOf | None, cut: Cut) -> _Mentions:
        members = await self._neighbours.members(tenant, "session", [session_id], _NEWEST, as_of)
        ids = [entry.event_id for entry in members[session_id][0]]
        counts: dict[str, int] = {}
        for mentioned in (await self._neighbours.mentions(tenant, ids)).values():
            for mention in mentioned:
                if not mention.entity_id.startswith(_EVERYWHERE):
                    counts[mention.entity_id] = counts.get(mention.entity_id, 0) + 1
        most = sorted(counts, key=lambda name: (-counts[name], name))[:_MOST_NAMES]
        clusters, complete = await self._entities.alike(tenant, most)
        if not complete:
            cut(AWAY)
        firsts = {name: min(clusters[name]) for name in most}
        names = sorted({name for one in most for name in clusters[one]})
        where = await self._neighbours.members(tenant, "entity", names, _MENTIONS, as_of) if names else {}
        entries = {entry.event_id for found, _ in where.values() for entry in found}
        events = await self._neighbours.events(tenant, sorted(entries), as_of)
        mentions: _Mentions = {}
        for one in most:
            sessions = mentions.setdefault(firsts[one], {})
            for name in clusters[one]:
                for entry in where[name][0]:
                    event = events.get(entry.event_id)
                    if event is not None and _newer(event, sessions.get(event.session_id)):
                        sessions[event.session_id] = event
        return {name: sessions for name, sessions in mentions.items() if session_id in sessions}

    async def _near(self, tenant: Tenant, session_id: str, as_of: AsOf | None) -> Mapping[str, tuple[float, Position]]:
        """Sessions whose newest summary is near this one's, and the later position of the two."""
        if as_of is not None:
            return {}
        here = tenant.partition_of(SessionId(session_id))
        own = SUMMARY_ID_PREFIX + session_scope(session_id)
        vectors = (await self._index.read_vectors(here, [own])).get(own, [])
        [mine] = await self._index.read_documents(here, [own])
        if not vectors or mine is None:
            return {}
        found: dict[str, tuple[float, Position]] = {}
        for partition in tenant.partitions:
            [scores] = await self._searcher.near_each(partition, vectors[:1], _SUMMARIES, _NEAR)
            found |= await self._sessions(partition, scores, mine.document.position)
        found.pop(session_id, None)
        return found

    async def _sessions(
        self, partition: Partition, scores: Mapping[str, float], mine: Position
    ) -> dict[str, tuple[float, Position]]:
        ids = [name for name, score in scores.items() if score >= THRESHOLD]
        found = {}
        for stored in await self._index.read_documents(partition, ids):
            document = None if stored is None else stored.document
            if document is not None and document.id == SUMMARY_ID_PREFIX + session_scope(document.session_id):
                found[document.session_id] = (scores[document.id], _later(mine, document.position))
        return found


def related_edge(session_id: str, other: RelatedSession) -> Edge:
    """The same from either end: the source is the first by id."""
    ends = sorted((NodeId("session", session_id), NodeId("session", other.session_id)))
    told: list[tuple[str, str | int | float | bool]] = [("score", other.score)]
    if other.shared:
        told.append(("entities", ", ".join(sorted(shared.entity_id for shared in other.shared))))
    if other.similarity is not None:
        told.append(("similarity", other.similarity))
    return Edge(ends[0], ends[1], "RELATED_TO", other.position, tuple(told))


def _related(other: str, shared: Sequence[Shared], near: tuple[float, Position] | None) -> RelatedSession:
    together = math.fsum(one.weight for one in shared)
    alike = 0.0 if near is None else min(1.0, near[0])  # halves of floats: a cosine may be 1.0006
    shown = sorted(shared, key=lambda one: (-one.weight, one.entity_id))[:_SHOWN]
    positions = [event.position for one in shown for event in (one.here, one.there)]
    positions += [] if near is None else [near[1]]
    return RelatedSession(
        other,
        round(1 - (1 - together / (1 + together)) * (1 - alike), 4),
        max(positions, key=_order),
        tuple(shown),
        None if near is None else round(alike, 4),
    )


def _newer(event: EventNode, known: EventNode | None) -> bool:
    return known is None or _order(event.position) > _order(known.position)


def _later(one: Position, other: Position) -> Position:
    return max(one, other, key=_order)


def _order(position: Position) -> tuple[int, int, int]:
    return position.ms, position.seq, position.bucket
