"""The search index as of a position: what it would have answered when it held nothing that was recorded later.

The index orders by milliseconds and weighs words by all it holds now. So what stands later within the last millisecond
is asked for beside the rest and passed over, and scores of words are made again from the numbers of then
(`store/words_then.py`): some five round trips where the present takes one, no more documents read than said here.

Two things are not to the letter. Of more than `_WIDE` documents that match, only those that score best now are weighed
again. Of more than `_MEASURED` documents the mean length is that of now, which changes a score little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from context_graph.domain.filters import NO_FILTERS, Filters
from context_graph.domain.partition import Partition
from context_graph.domain.position import LAST_SEQ, Position
from context_graph.store import documents as fields
from context_graph.store.common_words import CommonWords
from context_graph.store.keys import GraphKeys
from context_graph.store.queries import Searcher, compile_filters
from context_graph.store.text_queries import narrowed_query
from context_graph.store.words_then import Leaf, Then, leaves_of, score_of, words_in

_WIDE = 500  # documents that are weighed again: explaining them takes some 10 ms
_MEASURED = 5000  # documents whose lengths are counted
_MEASURED_BYTES = 4_000_000
_AT_ONCE = 500  # documents read by one command: Redis answers others between two
_LATER = 1000  # documents of one millisecond that are told apart
_LENGTHS_KEPT = 256
_TEXTS = tuple(fields.STORED[name] for name in fields.TEXT_FIELDS)


class SearcherThen:
    """Asks the indexes of any partition as of a position of it; None: as they are."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._lengths: dict[tuple[str, str, int], float] = {}

    async def near(
        self, partition: Partition, vector: bytes, filters: Filters, limit: int, last: Position | None
    ) -> dict[str, float]:
        """As `Searcher.near`."""
        if last is None:
            return await self._searcher.near(partition, vector, filters, limit)
        later = await self._later(partition, last)
        found = await self._searcher.near(partition, vector, filters, limit + len(later), last.ms)
        return dict([(doc_id, cosine) for doc_id, cosine in found.items() if doc_id not in later][:limit])

    async def latest(self, partition: Partition, filters: Filters, limit: int, last: Position | None) -> list[str]:
        """As `Searcher.latest`."""
        if last is None:
            return await self._searcher.latest(partition, filters, limit)
        later = await self._later(partition, last)
        found = await self._searcher.latest(partition, filters, limit + len(later), last.ms)
        return [doc_id for doc_id in found if doc_id not in later][:limit]

    async def agents_within(
        self, partition: Partition, names: Sequence[str], filters: Filters, last: Position | None
    ) -> list[str]:
        """As `Searcher.agents_within`."""
        if last is None:
            return await self._searcher.agents_within(partition, names, filters)
        later = await self._later(partition, last) if names else {}
        return await self._searcher.agents_within(partition, names, filters, last.ms, later)

    async def matching(
        self, partition: Partition, terms: Sequence[str], filters: Filters, limit: int, last: Position | None
    ) -> dict[str, float]:
        """As `Searcher.matching`: the order and the scores of then."""
        if last is None:
            return await self._searcher.matching(partition, terms, filters, limit)
        if not terms:
            return {}
        keys = await self._searcher.keys(partition)
        if filters == NO_FILTERS:  # as the index of then would have been asked
            terms = await self._searcher.deciding(keys.text_index, terms, CommonWords(), _until(last))
        later = await self._later(partition, last)
        wide = max(_WIDE, limit) + len(later)
        found = await self._searcher.matching(partition, terms, filters, wide, last.ms)
        found = {doc_id: score for doc_id, score in found.items() if doc_id not in later}
        found = await self._weighed(keys, terms, found, list(later), last)
        return dict(list(found.items())[:limit])

    async def _weighed(
        self, keys: GraphKeys, terms: Sequence[str], found: Mapping[str, float], later: Sequence[str], last: Position
    ) -> dict[str, float]:
        """These documents with their scores of then, best first."""
        explained = await self._explained(keys, terms, [*found, *later])
        then = await self._as_of(keys, explained, set(later), last)
        if then is None:
            return dict(found)
        scores = {
            doc_id: score_of(explained[doc_id], then) if doc_id in explained else score
            for doc_id, score in found.items()
        }
        # What scores alike stays in the order in which the index took it up.
        return dict(sorted(scores.items(), key=lambda pair: -round(pair[1], 9)))

    async def _later(self, partition: Partition, last: Position) -> dict[str, None]:
        """Documents of the position's own millisecond that are behind it; at most `_LATER`."""
        if last.seq >= LAST_SEQ:
            return {}
        keys = await self._searcher.keys(partition)
        within = f"@{fields.RECORDED}:[{last.ms} {last.ms}]"
        [answer] = await self._searcher.ask(
            ("FT.SEARCH", keys.text_index, within, "RETURN", 1, fields.AT, "LIMIT", 0, _LATER, "DIALECT", 2)
        )
        positions = {key.decode(): dict(zip(v[::2], v[1::2], strict=True)) for key, v in _pairs(answer)}
        after, prefix = last.sort_key.encode(), len(keys.document_prefix)
        return {key[prefix:]: None for key, values in positions.items() if values.get(fields.AT.encode(), b"") > after}

    async def _explained(self, keys: GraphKeys, terms: Sequence[str], ids: Sequence[str]) -> dict[str, list[Leaf]]:
        """What each document's score is made of, of those that have any of the terms."""
        if not ids:
            return {}
        chosen, forms = [keys.document(doc_id) for doc_id in ids], await self._searcher.forms(keys.text_index, terms)
        [answer] = await self._searcher.ask(narrowed_query(keys, "*", forms, len(chosen), chosen, "EXPLAINSCORE"))
        prefix = len(keys.document_prefix)
        leaves = {key.decode()[prefix:]: leaves_of(why[1]) for key, why in _pairs(answer)}
        return {doc_id: found for doc_id, found in leaves.items() if found}

    async def _as_of(
        self, keys: GraphKeys, explained: Mapping[str, list[Leaf]], later: set[str], last: Position
    ) -> Then | None:
        """The numbers as of the position, of all words of these scores. None when there are none."""
        words = sorted({leaf.word for leaves in explained.values() for leaf in leaves})
        if not words:
            return None
        until = _until(last)
        queries = [_count(keys, until)] + [_count(keys, until, word) for word in words]
        counted, *having = [int(answer[0]) for answer in await self._searcher.ask(*queries)]
        came_later = [{leaf.word for leaf in explained.get(doc_id, ())} for doc_id in later]
        documents = counted - len(later)
        known = {
            word: count - sum(word in words_there for words_there in came_later)
            for word, count in zip(words, having, strict=True)
        }
        now = next(iter(explained.values()))[0].mean_length
        return Then(documents, known, await self._mean_length(keys, last, documents, later) or now)

    async def _mean_length(self, keys: GraphKeys, last: Position, documents: int, later: set[str]) -> float | None:
        """Words in a document, on average; None when that would be too much to read."""
        if not 0 < documents <= _MEASURED:
            return None
        kept = (keys.text_index, last.sort_key, documents)
        if kept not in self._lengths:
            total = await self._words(keys, last, later)
            if total is None:
                return None
            if len(self._lengths) >= _LENGTHS_KEPT:
                self._lengths.clear()
            self._lengths[kept] = total / documents
        return self._lengths[kept]

    async def _words(self, keys: GraphKeys, last: Position, later: set[str]) -> int | None:
        """Words of all documents."""
        passed_over = {keys.document(doc_id).encode() for doc_id in later}
        words = read = 0
        for start in range(0, _MEASURED + _LATER, _AT_ONCE):
            shown: list[str | int] = ["RETURN", len(_TEXTS), *_TEXTS, "LIMIT", start, _AT_ONCE]
            [answer] = await self._searcher.ask(
                ("FT.SEARCH", keys.text_index, _until(last), *shown, "DIALECT", 2),
            )
            texts = [text for key, values in _pairs(answer) if key not in passed_over for text in values[1::2]]
            read += sum(map(len, texts))
            if read > _MEASURED_BYTES:
                return None
            words += sum(words_in(text.decode()) for text in texts)
            if len(answer) < 1 + 2 * _AT_ONCE:
                break
        return words


def _until(last: Position) -> str:
    return compile_filters(NO_FILTERS, last.ms)


def _count(keys: GraphKeys, until: str, word: bytes | None = None) -> tuple[str | int | bytes, ...]:
    """How many documents there are, or have this very word (stems begin with a plus)."""
    if word is None:
        return ("FT.SEARCH", keys.text_index, until, "LIMIT", 0, 0, "DIALECT", 2)
    query = f"{until} @{'|'.join(fields.TEXT_FIELDS)}:($t0)"
    return ("FT.SEARCH", keys.text_index, query, "VERBATIM", "LIMIT", 0, 0, "PARAMS", 2, "t0", word, "DIALECT", 2)


def _pairs(answer: list[Any]) -> list[tuple[bytes, Any]]:
    return list(zip(answer[1::2], answer[2::2], strict=True))
