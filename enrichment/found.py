"""What the rules find in a document, and how a rebuild takes it over from the live generation.

Mentions are pure functions of text, envelope, the recogniser's spans and the rules. The rules are named
by a digest of their own source, so no version can be forgotten: after any change of them nothing is taken over.
`source_of` is a digest of all of it; what is stored is proven by it (`store/answers.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from typing import TYPE_CHECKING

from context_graph.domain.document import Document, Mention
from context_graph.store.answers import StoredAnswer
from enrichment.entities import find_mentions, role_in

if TYPE_CHECKING:
    from context_graph.models.recogniser import Span

_RULES = (
    *(("enrichment", name) for name in ("entities", "entity_rules", "gazetteer", "known_names", "found")),
    ("context_graph.domain", "amounts"),
)


def _rules_digest() -> bytes:
    hashed = blake2b(digest_size=16)
    for package, name in _RULES:
        hashed.update(files(package).joinpath(f"{name}.py").read_bytes())
    return hashed.digest()


RULES = _rules_digest()


@dataclass(frozen=True, slots=True)
class Found:
    """The names in a document, and the recogniser's spans as they are kept."""

    mentions: tuple[Mention, ...]
    spans: bytes


def find(document: Document, spans: Sequence[Span], packed: bytes) -> Found:
    """By the rules. `packed`: the spans as they are kept."""
    mentions = find_mentions(
        document.text, spans, tool_name=document.tool_name, agent_id=document.agent_id, role=role_in(document)
    )
    return Found(mentions, packed)


def source_of(document: Document, text_hash: str, recogniser_id: str) -> bytes:
    """16 bytes over all that the mentions of a document follow from."""
    said = (text_hash, recogniser_id, document.tool_name or "", document.agent_id, role_in(document))
    hashed = blake2b(RULES, digest_size=16)
    hashed.update("\0".join(said).encode())
    return hashed.digest()


def taken_over(document: Document, answer: StoredAnswer, source: bytes) -> Found | None:
    """What another generation holds of the document, when it is what would be found now."""
    if document.kind != "event" or not answer.follows_from(source):
        return None
    return Found(answer.mentions(document.text), answer.spans)
