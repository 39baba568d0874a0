"""What the models have said before, so that a rebuild and a repeated text cost no model.

Two places, both bounded. The process remembers the newest few thousand texts: repeated ones (acknowledgements, retried
calls) are asked once, also when two generations are fed. And a document that the live generation has already, with the
same text, model and recogniser, brings its vector and its spans along, and what the rules found where these are the
same (`found.py`): a rebuild embeds nothing again. This second one needs no keys of its own, costs no memory but the
spans and a proof beside the vector, ends with the generation, and is erased with the person, whose documents leave
every generation.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import orjson

from context_graph.domain.document import Document
from context_graph.domain.partition import Partition
from context_graph.errors import ModelUnavailable
from context_graph.models.recogniser import Recogniser, Span
from context_graph.store.documents import model_mark
from enrichment.found import Found, source_of, taken_over

if TYPE_CHECKING:
    from context_graph.models.embedder import Embedder, Vectors
    from context_graph.store.index import Index

REMEMBERED = 4096  # texts; a vector of 384 numbers and its key are 1.7 kB
_AT_ONCE = 64  # texts asked of a model before somebody else may have its turn
T = TypeVar("T")


class Memory(Generic[T]):
    """The newest answers of one model by text; the least recently used go first."""

    def __init__(self, model: str, size: int = REMEMBERED) -> None:
        self.model = model
        self._size = size
        self._answers: OrderedDict[bytes, T] = OrderedDict()
        self._asking = asyncio.Lock()

    def get(self, text: str) -> T | None:
        """What is known of a text."""
        key = self._key(text)
        if key not in self._answers:
            return None
        self._answers.move_to_end(key)
        return self._answers[key]

    def put(self, text: str, answer: T) -> None:
        """Remember."""
        key = self._key(text)
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > self._size:
            self._answers.popitem(last=False)

    async def answers(self, texts: Sequence[str], ask: Callable[[list[str]], Awaitable[Sequence[T]]]) -> list[T]:
        """An answer for each text, in order; `ask` is called for those of which nothing is known."""
        found = {text: known for text in dict.fromkeys(texts) if (known := self.get(text)) is not None}
        unknown = [text for text in dict.fromkeys(texts) if text not in found]
        for start in range(0, len(unknown), _AT_ONCE):
            async with self._asking:  # two generations meet the same new text at the same time: one asks
                step = unknown[start : start + _AT_ONCE]
                found |= {text: known for text in step if (known := self.get(text)) is not None}
                rest = [text for text in step if text not in found]
                for text, answer in zip(rest, await ask(rest) if rest else (), strict=True):
                    found[text] = answer
                    self.put(text, answer)
        return [found[text] for text in texts]

    def _key(self, text: str) -> bytes:
        return blake2b(text.encode(), digest_size=16).digest()

    def __len__(self) -> int:
        return len(self._answers)


class RememberingEmbedder:
    """An embedder that asks for no text twice in a row."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.memory: Memory[bytes] = Memory(embedder.model_id)

    @property
    def model_id(self) -> str:
        return self._embedder.model_id

    @property
    def dimensions(self) -> int:
        return self._embedder.dimensions

    async def identify(self, *, anew: bool = False) -> str:
        """See `Embedder.identify`."""
        return await self._embedder.identify(anew=anew)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`."""

        async def ask(unknown: list[str]) -> list[bytes]:
            return [vector.tobytes() for vector in await self._embedder.embed(unknown)]

        rows = await self.memory.answers(texts, ask)
        return np.frombuffer(b"".join(rows), dtype=np.float32).reshape(len(texts), self.dimensions)


class AwayEmbedder:
    """In the place of an embedder that is not there: of some dimensions, and never an answer."""

    model_id = "away"

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions

    async def identify(self, *, anew: bool = False) -> str:
        """Raises ModelUnavailable."""
        raise ModelUnavailable("the embedder is away")

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Raises ModelUnavailable."""
        raise ModelUnavailable(f"the embedder is away: {len(texts)} texts wait")


class RememberingRecogniser:
    """A recogniser that asks for no text twice in a row."""

    def __init__(self, recogniser: Recogniser) -> None:
        self._recogniser = recogniser
        self.memory: Memory[list[Span]] = Memory(recogniser.recogniser_id)

    @property
    def recogniser_id(self) -> str:
        return self._recogniser.recogniser_id

    async def recognise(self, texts: Sequence[str]) -> list[list[Span]]:
        """See `Recogniser.recognise`."""
        return await self.memory.answers(texts, self._recogniser.recognise)


def packed_spans(recogniser_id: str, spans: Sequence[Span]) -> bytes:
    """Spans as a document keeps them: who found them, then start, end and label of each."""
    return orjson.dumps([_short(recogniser_id), *([span.start, span.end, span.label] for span in spans)])


def unpacked_spans(recogniser_id: str, text: str, packed: bytes) -> list[Span] | None:
    """The inverse of `packed_spans` for the document's text; None when another recogniser found them."""
    if not packed:
        return None
    found_by, *spans = orjson.loads(packed)
    if found_by != _short(recogniser_id):
        return None
    return [Span(text[start:end], label, start, end) for start, end, label in spans]


async def recall(
    index: Index, partition: Partition, documents: Sequence[tuple[Document, str, str]],
    embedder: RememberingEmbedder, recogniser: RememberingRecogniser, *, chunk: int = 0,
) -> dict[str, Found]:  # fmt: skip
    """Bring what `index` holds of these documents into the memories; one round trip.

    `documents`: each with the text that is embedded and that text's hash; `chunk`: which passage of it that is.
    Returns what was found in a document by the rules of today, where that is there; the recogniser need not be asked.
    """
    stored = await index.read_answers(partition, [document.id for document, _, _ in documents], chunk=chunk)
    found: dict[str, Found] = {}
    for (document, text, text_hash), answer in zip(documents, stored, strict=True):
        if answer is None or answer.text_hash != text_hash:
            continue
        if answer.model == model_mark(embedder.model_id):
            embedder.memory.put(text, answer.vector)
        taken = taken_over(document, answer, source_of(document, text_hash, recogniser.recogniser_id))
        if taken is not None:
            found[document.id] = taken
            continue
        spans = unpacked_spans(recogniser.recogniser_id, document.text, answer.spans)
        if spans is not None:
            recogniser.memory.put(document.text, spans)
    return found


def _short(recogniser_id: str) -> str:
    return blake2b(recogniser_id.encode(), digest_size=4).hexdigest()
