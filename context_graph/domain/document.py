"""Search documents: what is indexed of an event or a summary.

A document has filter fields, a text and, once the enrichment has passed, entities and one or more vectors.
Filter values are indexed as short digests (`filter_tag`), never as typed: nothing a caller writes can reach the query
language of the index, and values may hold any character. Exact values are compared again on the way out.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Literal, NamedTuple

from context_graph.domain.position import Position

DocumentKind = Literal["event", "summary", "fact"]


class Document(NamedTuple):
    """What is indexed before any model has run. Times in ms UTC, importance 1-10.

    A named tuple: hundreds are read back for each query, in a third of the time.
    """

    id: str
    kind: DocumentKind
    text: str
    speaker: str
    event_ids: tuple[str, ...]
    position: Position
    event_type: str
    session_id: str
    agent_id: str
    occurred_at: int
    origin: str
    tool_name: str | None = None
    user_id: str | None = None
    status: str | None = None
    importance: int = 5
    rest: str = ""
    """What was cut out of the text: searched by its words, neither kept nor read back."""
    whole: int | None = None
    """Characters of the text before it was cut; None where it was not."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A named entity in a text: the surface form, its label, where it stands (characters), and the entity's id.

    `role`: what it is there for: the key it stands behind (`origin`, `order id`), else said, argument, result, error,
    tool or agent.
    """

    entity_id: str
    name: str
    label: str
    start: int
    end: int
    role: str = "said"


@dataclass(frozen=True, slots=True)
class Enrichment:
    """What the enrichment adds to a document: a unit vector (float32 bytes; empty while the model is away), its model,
    and entities."""

    document: Document
    vector: bytes
    model: str
    text_hash: str
    mentions: tuple[Mention, ...] = field(default=())
    passages: tuple[tuple[str, bytes], ...] = field(default=())
    """Of a long text: text hash and vector of each further passage, in order."""
    spans: bytes = b""
    """What the recogniser found, packed: kept beside the vector, so that a rebuild need not ask it again."""
    source: bytes = b""
    """Digest of all that mentions follow from; empty where they are not to be taken over."""


@lru_cache(8192)  # types, sessions, people and names come again and again: nine of an event, most of them known
def filter_tag(value: str) -> str:
    """8 letters, digits and `_` for a filter value (BLAKE2b, 6 bytes): the only form in which it reaches the index.

    Of 100,000 values two share theirs in one tenant of 40,000 or so; what a filter finds is compared exactly on the way
    out. Base64 whose last two characters are `_` and, for the sake of the index's syntax, a second `0`.
    """
    return b64encode(blake2b(value.encode(), digest_size=6).digest(), altchars=b"_0").decode()
