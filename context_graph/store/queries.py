"""Queries of the search index: filters, words and vectors compiled so that nothing typed outside reaches its syntax.

Filter values go in as digests, words as parameters that the index tokenises, vectors as bytes; the query string itself
is built of constants, parameter names and numbers alone. Stop words are the caller's business (`domain/query.py`):
the index has none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from redis.exceptions import ResponseError

from context_graph.domain.document import filter_tag
from context_graph.domain.filters import Condition, Filters, NumberCondition, TagCondition
from context_graph.domain.partition import Partition
from context_graph.store import documents as fields
from context_graph.store.common_words import ALL, CommonWords
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.documents import vector_bytes
from context_graph.store.generations import GenerationOf, always, first
from context_graph.store.index_state import is_missing_index
from context_graph.store.keys import MOST_CHUNKS, GraphKeys
from context_graph.store.text_queries import ANY_TEXT, Forms, explain, narrowed_query, text_query

_FIELD_NAMES = {
    "event_type": fields.TYPE,
    "tool_name": fields.TOOL,
    "agent_id": fields.AGENT,
    "user_id": fields.USER,
    "session_id": fields.SESSION,
    "entity": fields.ENTITY,
    "status": fields.STATUS,
    "origin": fields.ORIGIN,
    "kind": fields.KIND,
    "occurred_at": fields.OCCURRED,
    "importance": fields.IMPORTANCE,
}
_MOST_KEYS = 2000  # documents of one entity that a text query is narrowed to


class Searcher:
    """Asks the indexes of any partition. A partition that has no index yet has no hits."""

    def __init__(
        self,
        redis: RedisClient,
        generation: GenerationOf = first,
        common: CommonWords | None = None,
        forms: Forms | None = None,
    ) -> None:
        """`generation`: which one of a tenant is asked. `common`, `forms`: what is known of words."""
        self._redis = redis
        self._common = CommonWords() if common is None else common
        self._forms = Forms() if forms is None else forms
        self._generation = generation

    def at(self, generation: int) -> Searcher:
        """The same in that very generation."""
        return Searcher(self._redis, always(generation), self._common, self._forms)

    async def near(
        self, partition: Partition, vector: bytes, filters: Filters, limit: int, recorded_until: int | None = None
    ) -> dict[str, float]:
        """The `limit` nearest documents that satisfy the filters: id to cosine similarity (-1..1), nearest first.

        A long document has several vectors and counts by its best. One round trip; more only where several passages of
        one document were among the nearest, so that fewer documents than asked for were left.

        `vector`: float32 bytes of the query; `recorded_until`: ms of the ledger's clock, for as-of reads.
        """
        [nearest] = await self.near_each(partition, [vector], filters, limit, recorded_until)
        return nearest

    async def near_each(
        self,
        partition: Partition,
        vectors: Sequence[bytes],
        filters: Filters,
        limit: int,
        recorded_until: int | None = None,
    ) -> list[dict[str, float]]:
        """As `near`, for each of these vectors; all in the same round trips."""
        keys = GraphKeys(partition, await self._generation(partition.tenant))
        condition = compile_filters(filters, recorded_until)
        found: list[dict[str, float]] = [{} for _ in vectors]
        open_, wide = list(range(len(vectors))), limit
        while open_:
            pipe = self._redis.pipeline(transaction=False)
            for number in open_:
                pipe.execute_command(*_vector_query(keys, condition, vectors[number], wide))
            scores = [_scores(answer, keys.vector_prefix) for answer in await self._answers(pipe)]
            for number, distances in zip(open_, scores, strict=True):
                found[number] = _best_passages(distances, limit)
            open_ = [
                number
                for number, distances in zip(open_, scores, strict=True)
                if len(found[number]) < limit and len(distances) == wide < limit * MOST_CHUNKS
            ]
            wide = min(2 * wide, limit * MOST_CHUNKS)
        return found

    async def matching(
        self,
        partition: Partition,
        terms: Sequence[str],
        filters: Filters,
        limit: int,
        recorded_until: int | None = None,
    ) -> dict[str, float]:
        """The `limit` documents that match the terms best and satisfy the filters: id to BM25 score (0 and up).

        Scores are the index's: words of documents that are gone count in them until its garbage collection (every 30 s
        once 100 have gone), their lengths beyond it. So they are not those of a rebuilt index; as of a position
        (`queries_then.py`) they are. Of a large index without filters only the rarer words are asked for
        (`store/common_words.py`).
        """
        if not terms:
            return {}
        keys = GraphKeys(partition, await self._generation(partition.tenant))
        within = await self._within(keys, filters, compile_filters(filters, recorded_until))
        condition = compile_filters(without_entities(filters), recorded_until)
        everything = condition == "*" and within is None
        if everything:
            query = text_query(keys, await self.deciding(keys.text_index, terms, self._common), limit)
        else:
            query = narrowed_query(keys, condition, await self.forms(keys.text_index, terms), limit, within)
        [answer] = await self.ask(query)
        return _scores(answer, keys.document_prefix)

    async def forms(self, index: str, terms: Sequence[str]) -> list[str]:
        """The forms in which the index looks for these terms; one round trip where some are not known yet."""
        unknown = self._forms.unknown(terms)
        if unknown:
            answers = await self.ask(*(explain(index, term) for term in unknown))
            for term, answer in zip(unknown, answers, strict=True):
                if isinstance(answer, bytes):  # there is an index
                    self._forms.learn(term, answer)
        return self._forms.of(terms)

    async def deciding(self, index: str, terms: Sequence[str], common: CommonWords, within: str = "*") -> Sequence[str]:
        """The terms without those that are too common to decide anything. `within`: which documents count."""
        while unknown := common.unknown(index, terms):
            words = f"@{ANY_TEXT}:($t0)" if within == "*" else f"{within} @{ANY_TEXT}:($t0)"
            counted = [(within,) if term == ALL else (words, "PARAMS", 2, "t0", term) for term in unknown]
            answers = await self.ask(*(("FT.SEARCH", index, *query, "LIMIT", 0, 0, "DIALECT", 2) for query in counted))
            common.learn(index, dict(zip(unknown, (answer[0] for answer in answers), strict=True)))
        return common.deciding(index, terms)

    async def keys(self, partition: Partition) -> GraphKeys:
        """The keys of the generation that is asked."""
        return GraphKeys(partition, await self._generation(partition.tenant))

    async def ask(self, *commands: Sequence[str | int | bytes]) -> list[Any]:
        """The answers of these commands, in one round trip; `[0]` where there is no index yet."""
        pipe = self._redis.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        return await self._answers(pipe)

    async def agents_within(
        self,
        partition: Partition,
        names: Sequence[str],
        filters: Filters,
        recorded_until: int | None = None,
        but: Collection[str] = (),
    ) -> list[str]:
        """Those of these agents that have a document which satisfies the filters, beside `but`; one round trip."""
        if not names:
            return []
        keys = GraphKeys(partition, await self._generation(partition.tenant))
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            of_agent = without_entities(filters).plus(TagCondition("agent_id", "eq", (name,)))
            condition = compile_filters(of_agent, recorded_until)
            most = 1 + len(but)
            pipe.execute_command("FT.SEARCH", keys.text_index, condition, "NOCONTENT", "LIMIT", 0, most, "DIALECT", 2)
        answers = await self._answers(pipe)
        without = {keys.document(doc_id).encode() for doc_id in but}
        return [name for name, answer in zip(names, answers, strict=True) if set(answer[1:]) - without]

    async def _within(self, keys: GraphKeys, filters: Filters, condition: str) -> list[str] | None:
        """Keys of the documents that a text query may find, when entities are asked for: these only the vectors know.

        None: any. Beyond `_MOST_KEYS` the first ones; the caller's own check still holds for all.
        """
        if filters == without_entities(filters):
            return None
        pipe = self._redis.pipeline(transaction=False)
        pipe.execute_command(
            "FT.SEARCH", keys.vector_index, condition, "NOCONTENT", "LIMIT", 0, _MOST_KEYS, "DIALECT", 2
        )
        [answer] = await self._answers(pipe)
        prefix = len(keys.vector_prefix) + 2
        return [keys.document(key.decode()[prefix:]) for key in answer[1:]]

    async def latest(
        self, partition: Partition, filters: Filters, limit: int, recorded_until: int | None = None
    ) -> list[str]:
        """Ids of the documents that satisfy the filters, latest occurrence first."""
        keys = GraphKeys(partition, await self._generation(partition.tenant))
        condition = compile_filters(filters, recorded_until)
        # Entities are known to the vector index alone; without them the text index knows a document sooner.
        by_text = filters == without_entities(filters)
        index, prefix = (
            (keys.text_index, keys.document_prefix) if by_text else (keys.vector_index, keys.vector_prefix + "0:")
        )
        pipe = self._redis.pipeline(transaction=False)
        pipe.execute_command(
            "FT.SEARCH", index, condition, "NOCONTENT", "SORTBY", fields.OCCURRED, "DESC",
            "LIMIT", 0, limit, "DIALECT", 2,
        )  # fmt: skip
        [answer] = await self._answers(pipe)
        return [key.decode()[len(prefix) :] for key in answer[1:]]

    async def _answers(self, pipe: Any) -> list[Any]:
        with store_errors("searching"):
            answers: list[Any] = await pipe.execute(raise_on_error=False)
            for index, answer in enumerate(answers):
                if isinstance(answer, ResponseError) and is_missing_index(answer):
                    answers[index] = [0]
                elif isinstance(answer, Exception):
                    raise answer
        return answers


def _vector_query(keys: GraphKeys, condition: str, vector: bytes, limit: int) -> list[str | int | bytes]:
    near = f"=>[KNN {limit} @{fields.VECTOR} $vector AS distance]"
    return [
        "FT.SEARCH", keys.vector_index, f"({condition}){near}" if condition != "*" else f"*{near}",
        "RETURN", 1, "distance", "SORTBY", "distance", "LIMIT", 0, limit,
        "PARAMS", 2, "vector", vector_bytes(vector), "DIALECT", 2,
    ]  # fmt: skip


def without_entities(filters: Filters) -> Filters:
    """Without conditions on entities, which the text index does not know."""
    return Filters(tuple(c for c in filters.conditions if c.field != "entity"), filters.alternatives)


def compile_filters(filters: Filters, recorded_until: int | None) -> str:
    """A query fragment of field names, digests and numbers; `*` when nothing is asked."""
    parts = [_compile(condition) for condition in filters.conditions]
    if filters.alternatives:
        groups = ["(" + " ".join(_compile(condition) for condition in group) + ")" for group in filters.alternatives]
        parts.append("(" + "|".join(groups) + ")")
    if recorded_until is not None:
        parts.append(f"@{fields.RECORDED}:[-inf {recorded_until}]")
    return " ".join(parts) or "*"


def _compile(condition: Condition) -> str:
    name = _FIELD_NAMES[condition.field]
    if isinstance(condition, NumberCondition):
        low = f"{'(' if condition.open_low else ''}{_bound(condition.low)}"
        high = f"{'(' if condition.open_high else ''}{_bound(condition.high)}"
        return f"{'-' if condition.negated else ''}@{name}:[{low} {high}]"
    return _compile_tags(name, condition)


def _compile_tags(name: str, condition: TagCondition) -> str:
    digests = [filter_tag(value) for value in condition.values]
    if condition.operator == "all":
        return "(" + " ".join(f"@{name}:{{{digest}}}" for digest in digests) + ")"
    return f"{'-' if condition.operator == 'ne' else ''}@{name}:{{{'|'.join(digests)}}}"


def _bound(value: float) -> str:
    if value in {float("inf"), float("-inf")}:
        return "+inf" if value > 0 else "-inf"
    return repr(value)


def _best_passages(distances: dict[str, float], limit: int) -> dict[str, float]:
    """Documents by their nearest vector, at most `limit`, from `<chunk>:<id>` to distance, nearest first."""
    nearest: dict[str, float] = {}
    for name, away in distances.items():
        nearest.setdefault(name.partition(":")[2], 1.0 - away)
    return dict(list(nearest.items())[:limit])


def _scores(answer: list[Any], prefix: str) -> dict[str, float]:
    """From `[total, key, score or fields, …]`; keys of another prefix (there are none) would be left out."""
    found: dict[str, float] = {}
    for key, value in zip(answer[1::2], answer[2::2], strict=True):
        name = key.decode()
        if name.startswith(prefix):
            found[name[len(prefix) :]] = float(value[1] if isinstance(value, list) else value)
    return found
