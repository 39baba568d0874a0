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
from typing import Any

from context_graph.domain.partition import Partition, Tenant
from context_graph.retrieval import ranking
from context_graph.retrieval.items import Candidate
from context_graph.retrieval.pool import (
    Ask,
    DocumentKey,
    Pool,
    by_partition,
    halves_missing,
    is_allowed,
    is_tool,
    keyed,
    linked_from,
    matches_of,
    occurrence,
    ranked,
    recent,
    within,
)
from context_graph.retrieval.query_vectors import VectorOf
from context_graph.retrieval.ranking import Match
from context_graph.retrieval.request import AsOf
from context_graph.retrieval.together import together
from context_graph.store.graph import Graph
from context_graph.store.index import Index, Turn, Wanted
from context_graph.store.queries import Searcher
from context_graph.store.queries_then import SearcherThen

_BESIDE = 60  # turns beside the matches that are ranked with them
_SEEDS = 8  # best matches whose causes and effects are looked at
_LONGEST_SESSION = 10_000  # turns of a session that an as-of read counts


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

        # The model first: it takes longest, and everything else fits into its time.
        near, text = await asyncio.gather(self._near(tenant, ask, vector), matching())
        await self._read(pool, ask, [key for key in near if key not in text], linked=ask.depth > 0)
        # Relative to what may be shown alone: an index knows of a position no more than its millisecond.
        pool.matches = matches_of(within(text, pool.turns), within(near, pool.turns))
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
        newest = sorted(pool.turns, key=lambda key: occurrence(pool.turns[key]), reverse=True)
        return [recent(key, pool.turns[key], place) for place, key in enumerate(newest)]

    async def tail(self, partition: Partition, newest: Sequence[str], ask: Ask) -> list[Candidate]:
        """The newest events of a session (their ids, newest first) as candidates."""
        pool = Pool({}, {})
        await self._read(pool, ask, [(partition, event_id) for event_id in newest])
        known = [key for event_id in newest if (key := (partition, event_id)) in pool.turns]
        return [recent(key, pool.turns[key], place) for place, key in enumerate(known)]

    async def _matching(self, tenant: Tenant, ask: Ask, words: Sequence[str]) -> dict[DocumentKey, float]:
        found = await together(
            [self._searcher.matching(p, words, ask.filters, ask.limit, ask.last(p)) for p in tenant.partitions]
        )
        return keyed(tenant, found)

    async def _near(self, tenant: Tenant, ask: Ask, vector: VectorOf | None) -> dict[DocumentKey, float]:
        made = await vector() if vector is not None else None
        if made is None:
            return {}
        found = await together(
            [self._searcher.near(p, made, ask.filters, ask.limit, ask.last(p)) for p in tenant.partitions]
        )
        return keyed(tenant, found)

    async def _widen(self, pool: Pool, ask: Ask) -> None:
        """Add what stands beside matches, and causes and effects: of the best matches, and of tools' calls always."""
        keys, placed = pool.placed()
        beside = by_partition(keys, placed, ranking.promising(placed, _BESIDE)) if ask.beside else {}
        seeds = sorted(keys, key=lambda key: -pool.matches[key].own)[:_SEEDS] if ask.depth else []
        linked: dict[DocumentKey, float] = {}
        others: dict[DocumentKey, Turn] = {}
        halves = ask.max_nodes if ask.beside else 0
        frontier = {key: pool.matches[key].own for key in seeds}
        frontier |= {key: pool.matches[key].own for key in keys if is_tool(pool.turns[key])} if ask.beside else {}
        for step in range(max(1, ask.depth)):
            reached = linked_from(pool, frontier)
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
        halves = dict(list(halves_missing(pool, linked).items())[: ask.max_nodes])
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
        allowed = [turn for turn in turns if is_allowed(turn.stored, ask, checked)]
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
