"""Facts as they are read: lists, newest first, over all of a tenant's partitions, and how the facts on them stand.

A fact lies in the partition of the session that it was noted in, and what took its place may lie in any; so all of the
tenant's partitions are asked about both, in one round trip each. Written by `learned_records.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from context_graph.domain.graph import split_member
from context_graph.domain.learned import LearnedFact, Standing, Supersession, standing
from context_graph.domain.partition import Partition
from context_graph.domain.places import moment_key
from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.graph import Graph
from context_graph.store.learned_records import SAME, learned_fact, supersession
from context_graph.store.receipts import Listed, Until, upper_bound


class LearnedFacts:
    """Reads the facts of any tenant, in the graph's live generation."""

    def __init__(self, redis: RedisClient, graph: Graph) -> None:
        self._redis = redis
        self._graph = graph

    async def listed(
        self,
        partitions: Sequence[Partition],
        of: tuple[str, str],
        limit: int,
        *,
        before: Position | None = None,
        until: Until | None = None,
    ) -> list[LearnedFact]:
        """Up to `limit` facts of a list (`("user", id)`), newest first by position, ahead of `before` (exclusive).

        `until`: at or ahead of that position of each bucket. Two round trips. Raises StoreUnavailable.
        """
        newest = (await self.members(partitions, [of], limit, before=before, until=until))[of]
        known = await self.facts(partitions, [each.event_id for each in newest])
        return [known[each.event_id] for each in newest if each.event_id in known]

    async def members(
        self,
        partitions: Sequence[Partition],
        lists: Sequence[tuple[str, str]],
        limit: int,
        *,
        before: Position | None = None,
        until: Until | None = None,
    ) -> dict[tuple[str, str], list[Listed]]:
        """What each of these lists names, as `listed`, without reading the facts. One round trip."""
        pipe = self._redis.pipeline(transaction=False)
        places = [(of, partition) for of in lists for partition in partitions]
        for of, partition in places:
            key = (await self._graph.keys(partition)).facts(*of)
            pipe.zrevrangebylex(key, upper_bound(partition, before, until), "-", start=0, num=limit)
        with store_errors("listing facts"):
            answers: list[list[bytes]] = await pipe.execute() if places else []
        found: dict[tuple[str, str], list[Listed]] = {of: [] for of in lists}
        for (of, partition), members in zip(places, answers, strict=True):
            found[of] += (Listed(*split_member(partition.bucket, member.decode())) for member in members)
        return {
            of: sorted(members, key=lambda each: moment_key(each.position), reverse=True)[:limit]
            for of, members in found.items()
        }

    async def facts(self, partitions: Sequence[Partition], ids: Iterable[str]) -> dict[str, LearnedFact]:
        """The facts of these ids, those that are there; one round trip."""
        wanted = list(dict.fromkeys(ids))
        places = [(partition, fact_id) for partition in partitions for fact_id in wanted]
        pipe = self._redis.pipeline(transaction=False)
        for partition, fact_id in places:
            pipe.hgetall((await self._graph.keys(partition)).fact(fact_id))
        with store_errors("reading facts"):
            answers: list[dict[bytes, bytes]] = await pipe.execute() if places else []
        return {
            fact_id: learned_fact(fact_id, partition.bucket, fields)
            for (partition, fact_id), fields in zip(places, answers, strict=True)
            if fields
        }

    async def standing(
        self, partitions: Sequence[Partition], facts: Sequence[LearnedFact], until: Until | None = None
    ) -> list[Standing]:
        """How these facts stand, in order; `until`: as far as was known at that position of each bucket.

        Two round trips.
        """
        ended = await self.ended(partitions, [fact.id for fact in facts])
        rows = {
            fact_id: [row for row in said if until is None or row.position <= until(row.position.bucket)]
            for fact_id, said in ended.items()
        }
        there = await self.facts(partitions, [row.new for said in rows.values() for row in said])
        return standing(facts, rows, there.__contains__)

    async def sayings(
        self, partitions: Sequence[Partition], facts: Sequence[LearnedFact], most: int, until: Until | None = None
    ) -> list[LearnedFact]:
        """These facts, and of each the `most` others learned last that say the same of the same person.

        Two round trips. Raises StoreUnavailable.
        """
        lists = [(SAME, statement) for statement in dict.fromkeys(fact.statement_id for fact in facts)]
        listed = await self.members(partitions, lists, most, until=until)
        known = {fact.id: fact for fact in facts}
        others = {each.event_id for members in listed.values() for each in members} - known.keys()
        return [*known.values(), *(await self.facts(partitions, sorted(others))).values()]

    async def ended(self, partitions: Sequence[Partition], ids: Sequence[str]) -> Mapping[str, Sequence[Supersession]]:
        """All that is said of these facts having lost their place; one round trip."""
        places = [(partition, fact_id) for partition in partitions for fact_id in ids]
        pipe = self._redis.pipeline(transaction=False)
        for partition, fact_id in places:
            pipe.hgetall((await self._graph.keys(partition)).superseded(fact_id))
        with store_errors("reading what took the place of facts"):
            answers: list[Any] = await pipe.execute() if places else []
        found: dict[str, list[Supersession]] = {}
        for (partition, fact_id), rows in zip(places, answers, strict=True):
            said = [supersession(fact_id, partition.bucket, at, row) for at, row in rows.items()]
            found.setdefault(fact_id, []).extend(said)
        return found
