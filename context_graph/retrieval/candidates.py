"""Candidates: what the channels find for a query, with what stands around it, as one ranking.

The words are asked while the query is still being embedded. What both find is read with its place in its session; then
the turns beside the best matches and the causes and effects of matches are added, and all are ranked together
(`retrieval/ranking.py`). Every document is checked again against the filters and the as-of before it may go on: an
index answer is a proposal, never a permission.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from context_graph.domain.document import filter_tag
from context_graph.domain.filters import Condition, Filters, TagCondition, holds
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.domain.query import Understanding
from context_graph.retrieval import ranking
from context_graph.retrieval.items import Candidate
from context_graph.retrieval.query_vectors import VectorOf
from context_graph.retrieval.ranking import Match, Placed
from context_graph.retrieval.request import AsOf
from context_graph.retrieval.together import together
from context_graph.store.documents import StoredDocument
from context_graph.store.graph import Graph
from context_graph.store.index import Index, Turn, Wanted
from context_graph.store.queries import Searcher
from context_graph.store.queries_then import SearcherThen

DocumentKey = tuple[Partition, str]

_BESIDE = 60  # turns beside the matches that are ranked with them
_FALL_OFF = 0.6  # of a seed's match, for each causal step
_SEEDS = 8  # best matches whose causes and effects are looked at
_LONGEST_SESSION = 10_000  # turns of a session that an as-of read counts


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to the channels: what is understood, filters, as-of, how many of each channel.

    `depth` causal steps from the best matches, at most `max_nodes` events that way; `beside`: also the turns beside
    matches that match nothing themselves; `opinions`: with what feedback said of each, as its own partition knows.
    """

    understanding: Understanding
    filters: Filters
    as_of: AsOf | None
    limit: int
    depth: int = 0
    max_nodes: int = 200
    beside: bool = True
    opinions: bool = False

    def last(self, partition: Partition) -> Position | None:
        """The last position of a partition that counts; None: all."""
        return self.as_of.last(partition.bucket) if self.as_of is not None else None

    @property
    def unbounded(self) -> bool:
        """Whether neither filters nor a moment leave anything out."""
        return self.as_of is None and not self.filters.conditions and not self.filters.alternatives

    @property
    def by_entity(self) -> bool:
        """Whether the filters name entities."""
        return any(condition.field == "entity" for condition in self.filters.conditions)

    @property
    def checked(self) -> Filters:
        """The filters as documents are checked with: entities are kept as digests."""

        def digested(condition: Condition) -> Condition:
            if isinstance(condition, TagCondition) and condition.field == "entity":
                return replace(condition, values=tuple(filter_tag(value) for value in condition.values))
            return condition

        return Filters(tuple(map(digested, self.filters.conditions)), self.filters.alternatives)


@dataclass(slots=True)
class Pool:
    """What is known so far for one question: turns by key, channel scores by key.

    `there`: for an as-of read, the events of each session that were there then, in order.
    """

    turns: dict[DocumentKey, Turn]
    matches: dict[DocumentKey, Match]
    there: dict[str, list[str]] = field(default_factory=dict)

    def placed(self) -> tuple[list[DocumentKey], list[Placed]]:
        """Everything in the order of the ledger, so that nothing depends on who answered first."""
        keys = sorted(self.turns, key=lambda key: (key[0], self.turns[key].stored.document.position, key[1]))
        rows = [
            Placed(turn.stored.document, turn.place, turn.turns, self.matches.get(key, Match()))
            for key, turn in ((key, self.turns[key]) for key in keys)
        ]
        return keys, rows


class Candidates:
    """Finds and ranks candidates of a tenant."""

    def __init__(self, searcher: Searcher, index: Index, graph: Graph, turn: AbstractAsyncContextManager[Any]) -> None:
        """`turn`: held while a ranking is computed, so that the event loop has its break between two of them."""
        self._turn = turn
        self._searcher = SearcherThen(searcher)
        self._index = index
        self._graph = graph

    async def find(
        self, tenant: Tenant, ask: Ask, *, vector: VectorOf | None, use_text: bool = True
    ) -> list[Candidate]:
        """Ranked candidates, best first; scores are relative to the best (1). `vector`: float32 bytes, or None."""
        pool = await self.pool(tenant, ask, vector=vector, use_text=use_text)
        async with self._turn:
            return ranked(pool, ask.understanding)

    async def pool(self, tenant: Tenant, ask: Ask, *, vector: VectorOf | None, use_text: bool = True) -> Pool:
        """What the channels find and what belongs to it, not yet ranked."""
        words = ask.understanding.terms if use_text else ()
        pool = Pool({}, {})

        async def matching() -> dict[DocumentKey, float]:
            """Found and read while the query is being embedded."""
            found = await self._matching(tenant, ask, words)
            await self._read(pool, ask, found, linked=ask.depth > 0)
            return found

        text, near = await asyncio.gather(matching(), self._near(tenant, ask, vector))
        await self._read(pool, ask, [key for key in near if key not in text], linked=ask.depth > 0)
        # Relative to what may be shown alone: an index knows of a position no more than its millisecond.
        pool.matches = _matches(_within(text, pool.turns), _within(near, pool.turns))
        await self._widen(pool, ask)
        return pool

    async def speakers(self, partitions: Sequence[Partition], ask: Ask, known: Iterable[str]) -> list[str]:
        """Those of these agents who have said something within the filters and the as-of."""
        names = list(known)
        found = await together([self._searcher.agents_within(p, names, ask.filters, ask.last(p)) for p in partitions])
        return list(dict.fromkeys(name for names in found for name in names))

    async def latest(self, tenant: Tenant, ask: Ask) -> list[Candidate]:
        """The latest documents of the scope, for a request without a query."""
        found = await together(
            [self._searcher.latest(p, ask.filters, ask.limit, ask.last(p)) for p in tenant.partitions]
        )
        keys = [(partition, doc_id) for partition, ids in zip(tenant.partitions, found, strict=True) for doc_id in ids]
        pool = Pool({}, {})
        await self._read(pool, ask, keys)
        newest = sorted(pool.turns, key=lambda key: _occurrence(pool.turns[key]), reverse=True)
        return [_recent(key, pool.turns[key], place) for place, key in enumerate(newest)]

    async def tail(self, partition: Partition, newest: Sequence[str], ask: Ask) -> list[Candidate]:
        """The newest events of a session (their ids, newest first) as candidates."""
        pool = Pool({}, {})
        await self._read(pool, ask, [(partition, event_id) for event_id in newest])
        known = [key for event_id in newest if (key := (partition, event_id)) in pool.turns]
        return [_recent(key, pool.turns[key], place) for place, key in enumerate(known)]

    async def _matching(self, tenant: Tenant, ask: Ask, words: Sequence[str]) -> dict[DocumentKey, float]:
        found = await together(
            [self._searcher.matching(p, words, ask.filters, ask.limit, ask.last(p)) for p in tenant.partitions]
        )
        return _keyed(tenant, found)

    async def _near(self, tenant: Tenant, ask: Ask, vector: VectorOf | None) -> dict[DocumentKey, float]:
        made = await vector() if vector is not None else None
        if made is None:
            return {}
        found = await together(
            [self._searcher.near(p, made, ask.filters, ask.limit, ask.last(p)) for p in tenant.partitions]
        )
        return _keyed(tenant, found)

    async def _widen(self, pool: Pool, ask: Ask) -> None:
        """Add what stands beside matches, and causes and effects: of the best matches, and of tools' calls always."""
        keys, placed = pool.placed()
        beside = _by_partition(keys, placed, ranking.promising(placed, _BESIDE)) if ask.beside else {}
        seeds = sorted(keys, key=lambda key: -pool.matches[key].own)[:_SEEDS] if ask.depth else []
        linked: dict[DocumentKey, float] = {}
        others: dict[DocumentKey, Turn] = {}
        halves = ask.max_nodes if ask.beside else 0
        frontier = {key: pool.matches[key].own for key in seeds}
        frontier |= {key: pool.matches[key].own for key in keys if _is_tool(pool.turns[key])} if ask.beside else {}
        for step in range(max(1, ask.depth)):
            reached = _linked(pool, frontier)
            new = {key: score for key, score in reached.items() if key not in linked and key not in frontier}
            new = dict(list(new.items())[: max(0, ask.max_nodes - len(linked))])
            places = beside if step == 0 else {}
            others |= await self._read(pool, ask, new, places, linked=step + 1 < ask.depth, halves=halves)
            linked |= new
            frontier = {key: score for key, score in new.items() if key in pool.turns}
            if not frontier:
                break
        if ask.beside:
            linked |= await self._other_halves(pool, ask, linked, others)
        for key, score in linked.items():
            match = pool.matches.get(key, Match())
            pool.matches[key] = match._replace(linked=max(match.linked, score))

    async def _other_halves(
        self, pool: Pool, ask: Ask, linked: Mapping[DocumentKey, float], others: Mapping[DocumentKey, Turn]
    ) -> dict[DocumentKey, float]:
        """Add what the pool has only half of, with its matches. `others`: what was read for that already."""
        halves = dict(list(_other_halves(pool, linked).items())[: ask.max_nodes])
        await self._read(pool, ask, [key for key in halves if key not in others and key not in linked])
        for key in halves:
            if key in others:
                pool.turns[key] = others[key]
        return {key: score for key, score in halves.items() if key in pool.turns}

    async def _read(
        self,
        pool: Pool,
        ask: Ask,
        keys: Iterable[DocumentKey],
        places: Mapping[Partition, Sequence[tuple[str, int]]] | None = None,
        *,
        linked: bool = False,
        halves: int = 0,
    ) -> dict[DocumentKey, Turn]:
        """Put the documents of these keys and places into the pool, those that pass the filters and the as-of.

        `linked`: with causes and effects; those of tools' calls and results are always read. Returns up to `halves`
        results of calls and calls of results that the pool lacks.
        """
        ids: dict[Partition, list[str]] = {partition: [] for partition in places or {}}
        for partition, doc_id in keys:
            if (partition, doc_id) not in pool.turns:
                ids.setdefault(partition, []).append(doc_id)
        at: Mapping[Partition, Sequence[tuple[str, int]]] = places or {}
        if ask.as_of is not None:  # places are counted among those that were there then
            for partition, pairs in at.items():
                ids[partition] += [pool.there[session][place] for session, place in pairs]
            at = {}
        partitions = list(ids)
        what = Wanted(ask.by_entity, linked, ask.opinions, halves)
        known = [key[1] for key in pool.turns] if halves else ()  # of all partitions: nobody has ids of another
        read = self._index.read_turns
        found = await together([read(p, ids[p], at.get(p, ()), what, known) for p in partitions])
        others: dict[DocumentKey, Turn] = {}
        for partition, (turns, missing) in zip(partitions, found, strict=True):
            for turn in await self._allowed(partition, pool, ask, turns):
                pool.turns.setdefault((partition, turn.stored.document.id), turn)
            others |= {(partition, t.stored.document.id): t for t in await self._allowed(partition, pool, ask, missing)}
        return others

    async def _allowed(self, partition: Partition, pool: Pool, ask: Ask, turns: Sequence[Turn]) -> Sequence[Turn]:
        """Those that pass the filters and the as-of, with their places then."""
        if ask.unbounded:
            return turns
        checked = ask.checked
        allowed = [turn for turn in turns if _allowed(turn.stored, ask, checked)]
        return allowed if ask.as_of is None else await self._placed_as_of(partition, pool, allowed, ask.as_of)

    async def _placed_as_of(self, partition: Partition, pool: Pool, turns: Sequence[Turn], as_of: AsOf) -> list[Turn]:
        """The same turns with their places among those that were there then."""
        for session in sorted({t.stored.document.session_id for t in turns if t.place is not None} - set(pool.there)):
            entries = await self._graph.timeline(partition, "session", session, limit=_LONGEST_SESSION)
            pool.there[session] = [entry.event_id for entry in entries if as_of.includes(entry.position)]
        places = {event_id: place for there in pool.there.values() for place, event_id in enumerate(there)}
        return [
            turn
            if turn.place is None
            else turn._replace(
                place=places.get(turn.stored.document.id),
                turns=len(pool.there[turn.stored.document.session_id]),
            )
            for turn in turns
        ]


def ranked(pool: Pool, understanding: Understanding) -> list[Candidate]:
    """The pool as candidates, best first. Scores are chances relative to the best's."""
    keys, placed = pool.placed()
    if not placed:
        return []
    features = ranking.features_of(placed, understanding)
    chances = ranking.chances_of(features)
    best = float(chances.max())
    found = [
        Candidate(
            partition=key[0],
            document=p.document,
            channels=added,
            score=float(chance) / best,
            causes=pool.turns[key].causes,
            uses=pool.turns[key].uses,
        )
        for key, p, added, chance in zip(keys, placed, ranking.channels_of(features), chances, strict=True)
    ]
    return sorted(found, key=lambda c: (-c.score, c.document.position, c.document.id))


def _within(scores: Mapping[DocumentKey, float], turns: Mapping[DocumentKey, Turn]) -> dict[DocumentKey, float]:
    return {key: score for key, score in scores.items() if key in turns}


def _matches(text: Mapping[DocumentKey, float], near: Mapping[DocumentKey, float]) -> dict[DocumentKey, Match]:
    """Channel scores over all partitions brought to 0..1 within the query.

    BM25 by the best; cosines between the worst and the best hit, because a cosine of unrelated texts is not 0.
    """
    best_text = max(text.values(), default=1.0) or 1.0
    best, worst = max(near.values(), default=1.0), min(near.values(), default=0.0)
    span = best - worst
    found: dict[DocumentKey, Match] = {}
    for key in dict.fromkeys((*near, *text)):
        vector = ((near[key] - worst) / span if span > 0 else 1.0) if key in near else 0.0
        found[key] = Match(vector=vector, text=text.get(key, 0.0) / best_text)
    return found


def _keyed(tenant: Tenant, found: Sequence[Mapping[str, float]]) -> dict[DocumentKey, float]:
    pairs = zip(tenant.partitions, found, strict=True)
    return {(partition, doc_id): score for partition, scores in pairs for doc_id, score in scores.items()}


def _by_partition(
    keys: Sequence[DocumentKey], placed: Sequence[Placed], places: Sequence[tuple[str, int]]
) -> dict[Partition, list[tuple[str, int]]]:
    """A session lies in one partition: that of its documents."""
    home = {p.document.session_id: key[0] for key, p in zip(keys, placed, strict=True)}
    found: dict[Partition, list[tuple[str, int]]] = {}
    for session, place in places:
        found.setdefault(home[session], []).append((session, place))
    return found


def _linked(pool: Pool, frontier: Mapping[DocumentKey, float]) -> dict[DocumentKey, float]:
    """Causes and effects of these, each with a fixed part of the match it is reached from."""
    reached: dict[DocumentKey, float] = {}
    for key, score in frontier.items():
        for other in (*pool.turns[key].causes, *pool.turns[key].effects):
            linked = (key[0], other)
            reached[linked] = max(reached.get(linked, 0.0), score * _FALL_OFF)
    return reached


def _other_halves(pool: Pool, linked: Mapping[DocumentKey, float]) -> dict[DocumentKey, float]:
    """What the pool has only half of: results of its calls and calls of its results, which are not to be parted."""
    missing: dict[DocumentKey, float] = {}
    for key, turn in pool.turns.items():
        if _is_tool(turn):
            others = turn.effects if turn.stored.document.event_type == "tool.call" else turn.causes
            score = max(pool.matches.get(key, Match()).own, linked.get(key, 0.0)) * _FALL_OFF
            missing |= {(key[0], other): score for other in others if (key[0], other) not in pool.turns}
    return missing


def _is_tool(turn: Turn) -> bool:
    return turn.stored.document.event_type in ("tool.call", "tool.result")


def _occurrence(turn: Turn) -> tuple[int, str, str]:
    document = turn.stored.document
    return document.occurred_at, document.position.sort_key, document.id


def _recent(key: DocumentKey, turn: Turn, place: int) -> Candidate:
    """The newest is half as good as the best match; those before it fall off."""
    recency = 0.5 / (1 + place)
    return Candidate(key[0], turn.stored.document, {"recency": recency}, recency, turn.causes)


def _allowed(stored: StoredDocument, ask: Ask, checked: Filters) -> bool:
    document = stored.document
    if ask.as_of is not None and not ask.as_of.includes(document.position):
        return False
    if not checked.conditions and not checked.alternatives:
        return True
    values: dict[str, Sequence[str] | float | None] = {
        "event_type": [document.event_type],
        "tool_name": [document.tool_name] if document.tool_name else [],
        "agent_id": [document.agent_id],
        "user_id": [document.user_id] if document.user_id else [],
        "session_id": [document.session_id],
        "entity": stored.entity_tags,
        "status": [document.status] if document.status else [],
        "origin": [document.origin],
        "kind": [document.kind],
        "occurred_at": float(document.occurred_at),
        "importance": float(document.importance),
    }
    return holds(checked, values)
