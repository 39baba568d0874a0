"""The search index of a partition: writes documents, vectors and entities, and answers what is in it.

Every write may be repeated and may come in any order: events overwrite themselves with the same values, summaries
replace an older one of their scope by script, entities are members of sets. The two stages that write here own
separate fields, so neither waits for the other. Queries are in `store/queries.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple

import orjson
from redis.exceptions import ResponseError

from context_graph.domain.document import Document, Enrichment
from context_graph.domain.partition import Partition
from context_graph.errors import ConfigurationError
from context_graph.settings import VectorIndexSettings
from context_graph.store import documents as fields
from context_graph.store.answers import VECTOR_FIELDS, StoredAnswer, proof_of, stored_answer
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.documents import Fields, Part, StoredDocument
from context_graph.store.entities import SHOWN, EntityStore, put_entities, shown_fields
from context_graph.store.generations import GenerationOf, always, first
from context_graph.store.index_state import IndexStatistics, is_missing_index, read_dimensions, read_statistics
from context_graph.store.keys import MOST_CHUNKS, GraphKeys
from context_graph.store.scripts import PipelinedScript

_READ = (fields.TEXT, fields.SPEAKER, fields.META)
_AT_ONCE = 16  # hashes that one script writes: RediSearch takes some 0.2 ms for a vector, and others wait so long
_READ_AT_ONCE = 64
_FAN_OUT = 20  # effects read of one event
_SORT_KEY = 17  # characters of the position before the id, in a member of the graph's sorted sets
_TURN_FIELDS = [fields.STORED.get(name, name) for name in (*_READ, fields.AT, fields.ENTITY)]
_STORED = [fields.STORED.get(name, name) for name in _READ]


class Turn(NamedTuple):
    """A document where it stands: its place in its session (0 = first; None when it has none) of so many turns.

    Of a tool's call or result, or when they were asked for, `causes` are those that its event names, and `effects`
    events that name it, in order of occurrence, up to 20. `uses`: how much oftener it was said to have helped than not.
    """

    stored: StoredDocument
    place: int | None
    turns: int
    causes: tuple[str, ...] = ()
    followers: Sequence[bytes] = ()
    """The effects as they stand in the graph: most are never asked for."""
    uses: int = 0

    @property
    def effects(self) -> list[str]:
        return [member[_SORT_KEY:].decode() for member in self.followers]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is read of turns beside themselves.

    `entities`: the digests of their entities; `linked`: causes and effects of all, not only of tools' calls and
    results; `opinions`: what feedback said of them; `halves`: so many of what those are not to be parted from.
    """

    entities: bool = False
    linked: bool = False
    opinions: bool = False
    halves: int = 0


class Index:
    """Documents of any partition; vectors have `dimensions` numbers."""

    def __init__(
        self,
        redis: RedisClient,
        dimensions: int,
        generation: GenerationOf = first,
        vectors: VectorIndexSettings | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        """`generation`: which one of a tenant is read and written; `fresh`: nothing is in it before its indexes are."""
        self._options = (fields.UNSEEN,) if fresh else ()
        self._vectors = VectorIndexSettings() if vectors is None else vectors
        self._redis = redis
        self._dimensions = dimensions
        self._generation = generation
        self._ensured: set[str] = set()
        self._replace = PipelinedScript(redis, "replace_if_newer.lua")
        self._answers = PipelinedScript(redis, "read_answers.lua")
        turns = files("context_graph.store").joinpath("lua/read_turns.lua").read_text()
        self._turns = redis.register_script(turns)
        self._command: Callable[..., Awaitable[Any]] = redis.execute_command

    def at(self, generation: int, dimensions: int | None = None, *, fresh: bool = False) -> Index:
        """The same in that very generation, whose vectors may have other dimensions.

        `fresh`: it is being built, so what its indexes are to find is written behind them.
        """
        chosen = self._dimensions if dimensions is None else dimensions
        return Index(self._redis, chosen, always(generation), self._vectors, fresh=fresh)

    @property
    def entities(self) -> EntityStore:
        """The entities of the same generation."""
        return EntityStore(self._redis, self._generation)

    async def keys(self, partition: Partition) -> GraphKeys:
        """The keys of this index's generation."""
        return GraphKeys(partition, await self._generation(partition.tenant))

    async def ensure(self, partition: Partition, *, again: bool = False) -> None:
        """Create the partition's two indexes unless they are there; asked once per instance, or `again`.

        Hashes written before an index are taken up by it, unless it is of a fresh generation. Raises
        ConfigurationError when the vectors of an existing index have other dimensions.
        """
        keys = await self.keys(partition)
        if keys.tag in self._ensured and not again:
            return
        text = fields.text_index_definition(keys.text_index, keys.document_prefix, *self._options)
        vector = fields.vector_index_definition(
            keys.vector_index, keys.vector_prefix, self._dimensions, self._vectors, *self._options
        )
        with store_errors("creating the index"):
            for definition in (text, vector):
                try:
                    await self._command(*definition)
                except ResponseError as error:
                    if "already exists" not in str(error):
                        raise
        [found] = await self.dimensions_of([partition])
        if found is not None and found != self._dimensions:
            raise ConfigurationError(
                f"the index of {partition} holds vectors of {found} dimensions, CG_EMBEDDING__DIMENSIONS says "
                f"{self._dimensions}: set it back to {found}, or rebuild the index for the new model"
            )
        self._ensured.add(keys.tag)

    async def drop(self, partition: Partition) -> None:
        """Remove the partition's two indexes; the documents stay. Nothing happens where there are none."""
        keys = await self.keys(partition)
        with store_errors("dropping the index"):
            for name in (keys.text_index, keys.vector_index):
                try:
                    await self._command("FT.DROPINDEX", name)
                except ResponseError as error:
                    if not is_missing_index(error):
                        raise
        self._ensured.discard(keys.tag)

    async def put_documents(self, partition: Partition, documents: Sequence[Document]) -> None:
        """Make these documents findable by text and filters; one round trip. Of a summary's scope the newest stays."""
        await self.ensure(partition)
        keys = await self.keys(partition)
        written = [(keys.document(document.id), fields.document_fields(document)) for document in documents]
        with store_errors("indexing documents"):
            await self._put(written, fields.INDEXING_PART)

    async def put_enrichments(self, partition: Partition, enrichments: Sequence[Enrichment]) -> None:
        """Add vectors and entities to documents, whether or not these have arrived; two round trips.

        The vectors last: what is beside one may be taken over by another generation. What comes without a vector is
        found by its entities, and takes the place of no vector that is there.
        """
        await self.ensure(partition)
        keys = await self.keys(partition)
        pipe: Any = self._redis.pipeline(transaction=False)
        put_entities(pipe, keys, enrichments)
        written: list[tuple[str, Fields]] = []
        for enrichment in enrichments:
            doc_id, shown = enrichment.document.id, shown_fields(enrichment)
            if shown and enrichment.document.kind == "event":
                pipe.hset(keys.event(doc_id), mapping=shown)
            if not enrichment.vector:
                written.append((keys.vector(doc_id), fields.vectorless_fields(enrichment)))
                continue
            for chunk, (text_hash, vector) in enumerate(enrichment.passages, 1):
                written.append((keys.vector(doc_id, chunk), fields.passage_fields(enrichment, text_hash, vector)))
            written.append((keys.vector(doc_id), fields.vector_fields(enrichment, _proof(enrichment, shown))))
        with store_errors("storing enrichments"):
            await pipe.execute()
            await self._put(written, fields.VECTOR_PART)

    async def _put(self, written: Sequence[tuple[str, Fields]], part: Part) -> None:
        calls: list[tuple[list[str], list[str | bytes | int]]] = []
        for start in range(0, len(written), _AT_ONCE):
            chosen = written[start : start + _AT_ONCE]
            arguments: list[str | bytes | int] = [part.version, len(part.names), *part.names]
            for _, values in chosen:
                arguments += (values[part.version], 2 * len(values))
                for pair in values.items():
                    arguments += pair
            calls.append(([key for key, _ in chosen], arguments))
        for answer in await self._replace.run(calls):
            if isinstance(answer, Exception):
                raise answer

    async def read_documents(
        self, partition: Partition, ids: Sequence[str], *, entities: bool = False
    ) -> list[StoredDocument | None]:
        """The documents of these ids in the order asked, None for those that are not there; one round trip.

        `entities`: also read the digests of their entities.
        """
        keys = await self.keys(partition)
        pipe = self._redis.pipeline(transaction=False)
        for doc_id in ids:
            pipe.hmget(keys.document(doc_id), _STORED)
            if entities:
                pipe.hget(keys.vector(doc_id), fields.STORED[fields.ENTITY])
        with store_errors("reading documents"):
            answers: list[Any] = await pipe.execute() if ids else []
        step = 2 if entities else 1
        found: list[StoredDocument | None] = []
        for place, doc_id in enumerate(ids):
            values = [*answers[place * step], answers[place * step + 1] if entities else None]
            named = zip((*_READ, fields.ENTITY), values, strict=True)
            found.append(fields.decode_document(doc_id, {name: value for name, value in named if value is not None}))
        return found

    async def read_answers(
        self, partition: Partition, ids: Sequence[str], *, chunk: int = 0
    ) -> list[StoredAnswer | None]:
        """What the models said of these documents, in the order asked, None where nothing is; one round trip.

        `chunk`: of which passage; the spans are with the first.
        """
        keys = await self.keys(partition)
        asked: list[str | bytes | int] = [len(VECTOR_FIELDS), *VECTOR_FIELDS, *SHOWN]
        calls: list[tuple[list[str], list[str | bytes | int]]] = []
        for start in range(0, len(ids), _READ_AT_ONCE):
            chosen = ids[start : start + _READ_AT_ONCE]
            calls.append(([key for i in chosen for key in (keys.vector(i, chunk), keys.event(i))], asked))
        found: list[StoredAnswer | None] = []
        with store_errors("reading vectors"):
            for answer in await self._answers.run(calls):
                if isinstance(answer, Exception):
                    raise answer
                found += map(stored_answer, answer)
        return found

    async def read_vectors(self, partition: Partition, ids: Sequence[str]) -> dict[str, list[bytes]]:
        """All vectors (float32 bytes) of these documents, of those that have any; one round trip."""
        keys = await self.keys(partition)
        pipe = self._redis.pipeline(transaction=False)
        for doc_id in ids:
            for key in keys.vectors(doc_id):
                pipe.hget(key, fields.STORED[fields.VECTOR])
        with store_errors("reading vectors"):
            answers: list[bytes | None] = await pipe.execute() if ids else []
        found: dict[str, list[bytes]] = {}
        for place, vector in enumerate(answers):
            if vector is not None:
                found.setdefault(ids[place // MOST_CHUNKS], []).append(fields.float32_bytes(vector))
        return found

    async def read_turns(
        self,
        partition: Partition,
        ids: Sequence[str],
        places: Sequence[tuple[str, int]] = (),
        what: Wanted = Wanted(),
        known: Collection[str] = (),
    ) -> tuple[list[Turn], list[Turn]]:
        """The documents of these ids, then those at these places (session, number) of sessions; one round trip.

        What is not there is left out. Then, as far as wanted, the results of calls and the calls of results among them
        that are not; `known` need not be read for that.
        """
        if not ids and not places:
            return [], []
        keys = await self.keys(partition)
        prefixes = [keys.document_prefix, keys.vector_prefix + "0:", keys.timeline("session", ""), keys.event("")]
        prefixes += [keys.effects(""), keys.feedback(""), keys.opined]
        arguments = [
            *("1" if wanted else "0" for wanted in (what.entities, what.linked, what.opinions)),
            *_TURN_FIELDS,
            _FAN_OUT,
            what.halves,
            len(ids),
            len(known),
            *ids,
            *known,
            *(part for pair in places for part in pair),
        ]
        with store_errors("reading documents in their sessions"):
            rows, others = await self._turns(keys=prefixes, args=arguments)
        return [_turn(row) for row in rows], [_turn(row) for row in others]

    async def dimensions_of(self, partitions: Sequence[Partition]) -> list[int | None]:
        """Dimensions of the vectors in each partition's index, or None where it has no index yet."""
        return await read_dimensions(self._redis, [await self.keys(partition) for partition in partitions])

    async def statistics_of(self, partitions: Sequence[Partition]) -> list[IndexStatistics]:
        """How much is in each partition's indexes; zeros where they are not there."""
        return await read_statistics(self._redis, [await self.keys(partition) for partition in partitions])

    async def statistics(self, partition: Partition) -> IndexStatistics:
        """How much is in the partition's indexes; zeros when they are not there."""
        [found] = await self.statistics_of([partition])
        return found


def _turn(row: list[Any]) -> Turn:
    doc_id, text, speaker, meta, entities, place, turns, causes, followers, uses = row
    return Turn(
        fields.read_document(doc_id.decode(), text, speaker, meta, entities),
        None if place < 0 else place,
        turns,
        tuple(orjson.loads(causes)) if causes else (),
        followers or (),
        int(uses) if uses else 0,
    )


def _proof(enrichment: Enrichment, shown: Mapping[str, bytes]) -> bytes:
    if not enrichment.source:
        return b""
    return proof_of(enrichment.source, tuple(shown.get(name, b"") for name in SHOWN))
