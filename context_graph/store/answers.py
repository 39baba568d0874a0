"""What the models said of a document and what the rules made of it, as a later generation takes it over.

Beside the vector lie its model, the hash of the text that it was made of and the recogniser's spans. The rules' part is
not kept twice: it is what the event's hash shows (entities, mentions), and a proof of 12 bytes beside the
vector: a digest over these very bytes and over all that they follow from. Who takes them over knows by the proof that
the rules, the text and the recogniser are the same and that nobody has changed a byte since. Nothing of it outlives the
vector and the event, so whatever removes these removes it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import orjson

from context_graph.domain.document import Mention
from context_graph.domain.entity_names import split_id
from context_graph.store.documents import (
    MARK_BYTES,
    MODEL,
    PROOF,
    SPANS,
    STORED,
    TEXT_HASH,
    VECTOR,
    float32_bytes,
    model_mark,
)

VECTOR_FIELDS = (STORED[VECTOR], MODEL, TEXT_HASH, SPANS, PROOF)
Shown = tuple[bytes, ...]
"""The values of `entities.SHOWN` in order, empty where the event has none."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A vector (float32 bytes), by which model of which text, the spans, and what is shown of the rules' findings.

    `model`: its `model_mark`; the generation's recipe has the name.
    """

    vector: bytes
    model: bytes
    text_hash: str
    spans: bytes
    proof: bytes = b""
    shown: Shown = ()

    def follows_from(self, source: bytes) -> bool:
        """Whether what is shown is what that source leads to."""
        return bool(self.proof) and self.proof == proof_of(source, self.shown)

    def mentions(self, text: str) -> tuple[Mention, ...]:
        """The mentions, those of one entity behind each other; each has the role of the entity's first."""
        entities, mentions = self.shown
        if not entities:
            return ()
        return tuple(
            Mention(entity_id, text[start:end], split_id(entity_id)[0], start, end, role)
            for entity_id, (_, role, *places) in zip(orjson.loads(entities), orjson.loads(mentions), strict=True)
            for start, end in zip(places[::2], places[1::2], strict=True)
        )


def proof_of(source: bytes, shown: Shown) -> bytes:
    """12 bytes over what the findings follow from and the findings as they are stored."""
    hashed = blake2b(source, digest_size=12)
    for value in shown:
        hashed.update(b"\0%d\0" % len(value))
        hashed.update(value)
    return hashed.digest()


def stored_answer(values: Sequence[bytes | None]) -> StoredAnswer | None:
    """From the values of VECTOR_FIELDS and `entities.SHOWN`; None while the enrichment has not written them."""
    vector, model, text_hash, spans, proof, *shown = values
    if vector is None or model is None or text_hash is None:
        return None
    mark = model if len(model) == MARK_BYTES else model_mark(model.decode())  # a generation of before has the name
    return StoredAnswer(
        float32_bytes(vector), mark, text_hash.hex(), spans or b"", proof or b"",
        tuple(value or b"" for value in shown),
    )  # fmt: skip
