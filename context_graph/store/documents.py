"""Search documents as Redis hashes: the names of the fields, the two index definitions, and the way back.

A document has two hashes, each under its own index and written once. The text hash is written by the indexing stage
(text, speaker, filters). The vector hash is written by the enrichment and repeats the filters, because a vector query
filters while it searches; the entities are in it alone, because writing them into the text hash would index its text
again, and RediSearch then ranks by wrong frequencies until its garbage collection. Filter values are digests
(`filter_tag`); what is needed to show a result is one JSON field, `META`, which costs a third of the memory of a field
each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from context_graph.domain.document import Document, DocumentKind, Enrichment, filter_tag
from context_graph.domain.position import Position
from context_graph.domain.text import name_parts

# Fields that are filtered on: TAG fields hold `filter_tag` digests, NUMERIC ones plain numbers. ENTITY is known to the
# vector index alone.
KIND, TYPE, TOOL, AGENT, USER, SESSION = "kind", "type", "tool", "agent", "user", "session"
STATUS, ORIGIN, ENTITY = "status", "origin", "entity"
OCCURRED, RECORDED, IMPORTANCE = "occurred", "recorded", "importance"
TAG_FIELDS = (KIND, TYPE, TOOL, AGENT, USER, SESSION, STATUS, ORIGIN)
NUMERIC_FIELDS = (OCCURRED, RECORDED, IMPORTANCE)
# Fields of the text hash that are matched word by word; PARTS has the words inside names (`src/auth.py` → src auth py).
TEXT, SPEAKER, PARTS = "text", "speaker", "parts"
TEXT_FIELDS = (TEXT, SPEAKER, PARTS)
# Not indexed.
META, AT = "meta", "at"
# Fields of the vector hash.
VECTOR, MODEL, TEXT_HASH, SPANS = "vec", "model", "text_hash", "spans"

# Changes with the fields or the definitions of the two indexes; a rebuild then fills a new generation.
INDEX_VERSION = 1
# float16 halves the index's memory (2.6 instead of 4.5 kB a document, hash included) and keeps the ranking: recall@10
# 0.958 against 0.960 of float32 on 3,000 clustered vectors, similarities within 6e-5.
VECTOR_TYPE = "FLOAT16"
_VECTOR_DTYPE = np.float16
_HNSW_M, _HNSW_EF_CONSTRUCTION = 16, 200

Fields = dict[str, str | bytes | int]


@dataclass(frozen=True, slots=True)
class Part:
    """Fields that one stage owns of a hash, and which of them holds their version: a newer summary replaces all."""

    names: tuple[str, ...]
    version: str


INDEXING_PART = Part((*TEXT_FIELDS, *TAG_FIELDS, *NUMERIC_FIELDS, META, AT), AT)
VECTOR_PART = Part((*TAG_FIELDS, ENTITY, *NUMERIC_FIELDS, VECTOR, MODEL, TEXT_HASH, SPANS, AT), AT)


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as read back, with what the enrichment has added so far."""

    document: Document
    entity_tags: tuple[str, ...] = ()
    """`filter_tag` digests of its entities; read only when asked for."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What the models said of a document: its vector (float32 bytes), by which model of which text, and the spans."""

    vector: bytes
    model: str
    text_hash: str
    spans: bytes


ANSWER_FIELDS = (VECTOR, MODEL, TEXT_HASH, SPANS)


def text_index_definition(name: str, prefix: str) -> list[str | int]:
    """FT.CREATE of the index over text hashes. No stop words: a name may be one."""
    texts: list[str | int] = [TEXT, "TEXT", SPEAKER, "TEXT", "NOSTEM", PARTS, "TEXT", "NOSTEM", "WEIGHT", "0.5"]
    return [*_definition(name, prefix), *texts]


def vector_index_definition(name: str, prefix: str, dimensions: int) -> list[str | int]:
    """FT.CREATE of the HNSW index over vector hashes, cosine distance."""
    shape = ("TYPE", VECTOR_TYPE, "DIM", dimensions, "DISTANCE_METRIC", "COSINE")
    graph = ("M", _HNSW_M, "EF_CONSTRUCTION", _HNSW_EF_CONSTRUCTION)
    attributes = (*shape, *graph)
    entities: tuple[str | int, ...] = (ENTITY, "TAG", "SEPARATOR", ",")
    return [*_definition(name, prefix), *entities, VECTOR, "VECTOR", "HNSW", len(attributes), *attributes]


def _definition(name: str, prefix: str) -> list[str | int]:
    head: list[str | int] = ["FT.CREATE", name, "ON", "HASH", "PREFIX", 1, prefix, "STOPWORDS", 0, "SCHEMA"]
    tags = [word for field in TAG_FIELDS for word in (field, "TAG", "SEPARATOR", ",")]
    numbers = [word for field in NUMERIC_FIELDS for word in (field, "NUMERIC")]
    return [*head, *tags, *numbers]


def vector_bytes(vector: bytes) -> bytes:
    """A vector for a query or a hash: float32 bytes in, the index's own type out."""
    return np.frombuffer(vector, dtype=np.float32).astype(_VECTOR_DTYPE).tobytes()


def document_fields(document: Document) -> Fields:
    """The indexing's part of a text hash."""
    fields = filter_fields(document)
    fields |= {TEXT: document.text, SPEAKER: document.speaker, AT: document.position.sort_key}
    parts = name_parts(document.text)
    if parts:
        fields[PARTS] = parts
    fields[META] = orjson.dumps(
        {
            "kind": document.kind,
            "events": document.event_ids if document.kind == "summary" else None,
            "pos": str(document.position),
            "type": document.event_type,
            "session": document.session_id,
            "agent": document.agent_id,
            "occurred": document.occurred_at,
            "origin": document.origin,
            "tool": document.tool_name,
            "user": document.user_id,
            "status": document.status,
            "importance": document.importance,
        }
    )
    return fields


def vector_fields(enrichment: Enrichment) -> Fields:
    """A vector hash, whole."""
    fields = filter_fields(enrichment.document)
    fields |= {VECTOR: vector_bytes(enrichment.vector), MODEL: enrichment.model, TEXT_HASH: enrichment.text_hash}
    fields[AT] = enrichment.document.position.sort_key
    if enrichment.mentions:
        fields[ENTITY] = _entity_tags(enrichment)
    if enrichment.spans:
        fields[SPANS] = enrichment.spans
    return fields


def stored_answer(values: Sequence[bytes | None]) -> StoredAnswer | None:
    """From the fields of `ANSWER_FIELDS` in order; None while the enrichment has not written them."""
    vector, model, text_hash, spans = values
    if vector is None or model is None or text_hash is None:
        return None
    numbers = np.frombuffer(vector, dtype=_VECTOR_DTYPE).astype(np.float32)
    return StoredAnswer(numbers.tobytes(), model.decode(), text_hash.decode(), spans or b"")


def decode_document(doc_id: str, fields: Mapping[bytes, bytes]) -> StoredDocument | None:
    """From the fields TEXT, SPEAKER, META, and the vector hash's ENTITY; None while the indexing has not written it."""
    raw = fields.get(META.encode())
    if raw is None:
        return None
    meta: dict[str, Any] = orjson.loads(raw)
    kind: DocumentKind = "summary" if meta["kind"] == "summary" else "event"
    document = Document(
        id=doc_id,
        kind=kind,
        text=fields.get(TEXT.encode(), b"").decode(),
        speaker=fields.get(SPEAKER.encode(), b"").decode(),
        event_ids=tuple(meta["events"]) if kind == "summary" else (doc_id,),
        position=Position.parse(meta["pos"]),
        event_type=meta["type"],
        session_id=meta["session"],
        agent_id=meta["agent"],
        occurred_at=meta["occurred"],
        origin=meta["origin"],
        tool_name=meta["tool"],
        user_id=meta["user"],
        status=meta["status"],
        importance=meta["importance"],
    )
    entities = fields.get(ENTITY.encode(), b"").decode()
    return StoredDocument(document, tuple(entities.split(",")) if entities else ())


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
    fields: Fields = {name: filter_tag(value) for name, value in values.items() if value}
    numbers = {OCCURRED: document.occurred_at, RECORDED: document.position.ms, IMPORTANCE: document.importance}
    return fields | numbers


def _entity_tags(enrichment: Enrichment) -> str:
    distinct = dict.fromkeys(mention.entity_id for mention in enrichment.mentions)
    return ",".join(filter_tag(entity_id) for entity_id in distinct)
