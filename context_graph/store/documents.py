"""Search documents as Redis hashes: the names of the fields, the two index definitions, and the way back.

A document has two hashes, each under its own index and written once. The text hash is written by the indexing stage
(text, speaker, filters). The vector hash is written by the enrichment and repeats the filters, because a vector query
filters while it searches; the entities are in it alone, because writing them into the text hash would index its text
again, and RediSearch then ranks by wrong frequencies until its garbage collection. Filter values are digests
(`filter_tag`); what is needed to show a result is one JSON field, `META`, an array, which costs a quarter of the memory
of a field each. In the hash an attribute has a name of one letter (`STORED`): names are stored with every event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import orjson

from context_graph.domain.document import Document, Enrichment, filter_tag
from context_graph.domain.position import Position
from context_graph.domain.text import name_parts
from context_graph.domain.words import further_words, spaced, unspaced
from context_graph.settings import VectorIndexSettings

# Fields that are filtered on: TAG fields hold `filter_tag` digests, NUMERIC ones plain numbers. ENTITY is known to the
# vector index alone.
KIND, TYPE, TOOL, AGENT, USER, SESSION = "kind", "type", "tool", "agent", "user", "session"
STATUS, ORIGIN, ENTITY = "status", "origin", "entity"
OCCURRED, RECORDED, IMPORTANCE = "occurred", "recorded", "importance"
TAG_FIELDS = (KIND, TYPE, TOOL, AGENT, USER, SESSION, STATUS, ORIGIN)
NUMERIC_FIELDS = (OCCURRED, RECORDED, IMPORTANCE)
# Fields of the text hash that are matched word by word; PARTS has the words inside names (`src/auth.py` → src auth py),
# those that the server does not see in the text, and those of what was cut out of it (domain/words.py).
TEXT, SPEAKER, PARTS = "text", "speaker", "parts"
TEXT_FIELDS = (TEXT, SPEAKER, PARTS)
VECTOR = "vec"
WAITING = "waiting"  # a kind beside the document's own: the vector is still to come
# Not indexed, so named as they are stored: what a result shows, the version of a part; of a vector its model, the hash
# of its text, what the recogniser said, and the proof of what the rules made of it (answers.py).
META, AT = "m", "v"
MODEL, TEXT_HASH, SPANS, PROOF = "n", "h", "l", "q"
# What queries call an attribute, and the field of the hash that holds it.
STORED: Mapping[str, str] = {
    KIND: "k", TYPE: "y", TOOL: "o", AGENT: "a", USER: "u", SESSION: "s", STATUS: "z", ORIGIN: "g", ENTITY: "e",
    OCCURRED: "c", RECORDED: "r", IMPORTANCE: "i", TEXT: "t", SPEAKER: "p", PARTS: "w", VECTOR: "x",
}  # fmt: skip

# Changes with the fields or the definitions of the two indexes; a rebuild then fills a new generation.
INDEX_VERSION = 5
# float16 halves what a vector takes and keeps the ranking: recall@10 0.998 as float32 at 100,000 (adr/0020).
VECTOR_TYPE = "FLOAT16"
VECTOR_DTYPE = np.float16

MARK_BYTES = 6
_TAG = ("TAG", "SEPARATOR", ",", "CASESENSITIVE")

Fields = dict[str, str | bytes | int]


@dataclass(frozen=True, slots=True)
class Part:
    """Fields that one stage owns of a hash, and which of them holds their version: a newer summary replaces all."""

    names: tuple[str, ...]
    version: str


def _part(*attributes: str, others: tuple[str, ...]) -> Part:
    return Part((*(STORED[name] for name in attributes), *others, AT), AT)


INDEXING_PART = _part(*TEXT_FIELDS, *TAG_FIELDS, *NUMERIC_FIELDS, others=(META,))
VECTOR_PART = _part(*TAG_FIELDS, ENTITY, *NUMERIC_FIELDS, VECTOR, others=(MODEL, TEXT_HASH, SPANS, PROOF))


class StoredDocument(NamedTuple):
    """A document as read back, with what the enrichment has added so far."""

    document: Document
    entity_tags: tuple[str, ...] = ()
    """`filter_tag` digests of its entities; read only when asked for."""


UNSEEN = "SKIPINITIALSCAN"
"""For FT.CREATE where nothing is written yet: else the server looks through all of its keys, for minutes, and indexes
twice what is written meanwhile."""


def text_index_definition(name: str, prefix: str, *options: str) -> list[str | int]:
    """FT.CREATE of the index over text hashes. No stop words: a name may be one. No places of
    words: nobody asks for phrases."""
    texts: list[str | int] = [
        *(*_attribute(TEXT), "TEXT"),
        *(*_attribute(SPEAKER), "TEXT", "NOSTEM"),
        *(*_attribute(PARTS), "TEXT", "NOSTEM", "WEIGHT", "0.5"),
    ]
    return [*_definition(name, prefix, "NOOFFSETS", *options), *texts]


def vector_index_definition(
    name: str, prefix: str, dimensions: int, made: VectorIndexSettings, *options: str
) -> list[str | int]:
    """FT.CREATE of the HNSW index over vector hashes, cosine distance."""
    shape = ("TYPE", VECTOR_TYPE, "DIM", dimensions, "DISTANCE_METRIC", "COSINE")
    graph = ("M", made.m, "EF_CONSTRUCTION", made.ef_construction, "EF_RUNTIME", made.ef_runtime)
    attributes = (*shape, *graph)
    entities = (*_attribute(ENTITY), *_TAG)
    vector = (*_attribute(VECTOR), "VECTOR", "HNSW", len(attributes), *attributes)
    return [*_definition(name, prefix, *options), *entities, *vector]


def _attribute(name: str) -> tuple[str, str, str]:
    return STORED[name], "AS", name


def _definition(name: str, prefix: str, *options: str) -> list[str | int]:
    head: list[str | int] = ["FT.CREATE", name, "ON", "HASH", "PREFIX", 1, prefix, *options, "STOPWORDS", 0, "SCHEMA"]
    tags = [word for field in TAG_FIELDS for word in (*_attribute(field), *_TAG)]
    numbers = [word for field in NUMERIC_FIELDS for word in (*_attribute(field), "NUMERIC")]
    return [*head, *tags, *numbers]


def model_mark(model_id: str) -> bytes:
    """6 bytes (BLAKE2b) that stand for a model beside each of its vectors: the name would take 43."""
    return blake2b(model_id.encode(), digest_size=MARK_BYTES).digest()


def vector_bytes(vector: bytes) -> bytes:
    """A vector for a query or a hash: float32 bytes in, the index's own type out."""
    return np.frombuffer(vector, dtype=np.float32).astype(VECTOR_DTYPE).tobytes()


def float32_bytes(stored: bytes) -> bytes:
    """A vector as it came: the hash's bytes in, float32 bytes out."""
    return np.frombuffer(stored, dtype=VECTOR_DTYPE).astype(np.float32).tobytes()


def document_fields(document: Document) -> Fields:
    """The indexing's part of a text hash."""
    fields = filter_fields(document)
    fields |= {STORED[TEXT]: spaced(document.text), STORED[SPEAKER]: document.speaker, AT: document.position.sort_key}
    parts = dict.fromkeys(name_parts(document.text).split())
    parts |= further_words(f"{document.speaker} {document.text}", document.rest)
    if parts:
        fields[STORED[PARTS]] = " ".join(parts)
    fields[META] = orjson.dumps(
        [
            document.event_ids if document.kind == "summary" else None,
            str(document.position),
            document.event_type,
            document.session_id,
            document.agent_id,
            document.occurred_at,
            document.origin,
            document.importance,
            document.tool_name,
            document.user_id,
            document.status,
            *(() if document.whole is None else (document.whole,)),
        ]
    )
    return fields


def vector_fields(enrichment: Enrichment, proof: bytes = b"") -> Fields:
    """A vector hash, whole. `proof`: of what the rules found, where that may be taken over."""
    fields = filter_fields(enrichment.document)
    fields |= {
        STORED[VECTOR]: vector_bytes(enrichment.vector),
        MODEL: model_mark(enrichment.model),
        TEXT_HASH: bytes.fromhex(enrichment.text_hash),
    }
    fields[AT] = enrichment.document.position.sort_key
    if enrichment.mentions:
        fields[STORED[ENTITY]] = _entity_tags(enrichment)
    if enrichment.spans:
        fields[SPANS] = enrichment.spans
    if proof:
        fields[PROOF] = proof
    return fields


def vectorless_fields(enrichment: Enrichment) -> Fields:
    """A vector hash while its vector waits for the model: filters and entities, older than the whole one of its event
    and newer than that of a summary before it. Of a second kind, so that it is not counted as a vector."""
    fields = filter_fields(enrichment.document)
    fields[STORED[KIND]] = f"{filter_tag(enrichment.document.kind)},{filter_tag(WAITING)}"
    fields[AT] = f"{int(enrichment.document.position.sort_key, 16) - 1:017x}~"
    if enrichment.mentions:
        fields[STORED[ENTITY]] = _entity_tags(enrichment)
    return fields


def passage_fields(enrichment: Enrichment, text_hash: str, vector: bytes) -> Fields:
    """The vector hash of a further passage, whole. The entities are with the first: a filter by entity finds that."""
    fields = filter_fields(enrichment.document)
    fields |= {
        STORED[VECTOR]: vector_bytes(vector),
        MODEL: model_mark(enrichment.model),
        TEXT_HASH: bytes.fromhex(text_hash),
    }
    fields[AT] = enrichment.document.position.sort_key
    return fields


def decode_document(doc_id: str, values: Mapping[str, bytes]) -> StoredDocument | None:
    """From the values of TEXT, SPEAKER, META, and the vector hash's ENTITY; None before the indexing has written it."""
    meta = values.get(META)
    if meta is None:
        return None
    return read_document(doc_id, values.get(TEXT), values.get(SPEAKER), meta, values.get(ENTITY))


def read_document(
    doc_id: str, text: bytes | None, speaker: bytes | None, meta: bytes, entities: bytes | None
) -> StoredDocument:
    """From the values of these fields, in the least time: hundreds are read for each query."""
    values: list[Any] = orjson.loads(meta)
    cited, position, event_type, session_id, agent_id, occurred_at, origin, importance, tool, user, status, *whole = (
        values
    )
    bucket, ms, seq = position.split("-")  # written here, so not looked at again
    document = Document(
        doc_id,
        "event" if cited is None else "summary",
        "" if text is None else unspaced(text.decode()),
        "" if speaker is None else speaker.decode(),
        (doc_id,) if cited is None else tuple(cited),
        Position(int(bucket), int(ms), int(seq)),
        event_type,
        session_id,
        agent_id,
        occurred_at,
        origin,
        tool,
        user,
        status,
        importance,
        whole=whole[0] if whole else None,
    )
    return StoredDocument(document, tuple(entities.decode().split(",")) if entities else ())


def named_in(meta: bytes) -> tuple[str, str | None]:
    """The session and the user that a META field names."""
    values: list[Any] = orjson.loads(meta)
    return values[3], values[9]


def filter_fields(document: Document) -> Fields:
    """What both hashes of a document are filtered by: digests and numbers."""
    values = {
        KIND: document.kind,
        TYPE: document.event_type,
        TOOL: document.tool_name,
        AGENT: document.agent_id,
        USER: document.user_id,
        SESSION: document.session_id,
        STATUS: document.status,
        ORIGIN: document.origin,
    }
    fields: Fields = {STORED[name]: filter_tag(value) for name, value in values.items() if value}
    numbers = {OCCURRED: document.occurred_at, RECORDED: document.position.ms, IMPORTANCE: document.importance}
    return fields | {STORED[name]: number for name, number in numbers.items()}


def _entity_tags(enrichment: Enrichment) -> str:
    distinct = dict.fromkeys(mention.entity_id for mention in enrichment.mentions)
    return ",".join(filter_tag(entity_id) for entity_id in distinct)
