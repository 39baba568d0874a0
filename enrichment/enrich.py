"""Stage 2, second half: vectors and entities of each document.

Both models work at the same time, each in its own thread; what to ask them and what to make of the answers is decided
by pure functions, and one write stores all of it. A failing recogniser fails the batch. While the embedder is away the
entities are stored alone, and the batch is told to be done in part: it comes again for its vectors (adr/0039).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

from context_graph.domain.document import Document, Enrichment
from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.text import TEXT_VERSION
from context_graph.errors import ModelUnavailable, PartlyDone
from context_graph.store.index import Index
from enrichment.found import Found, find, source_of
from enrichment.indexing import documents_of
from enrichment.known import packed_spans
from enrichment.passages import further_passages

if TYPE_CHECKING:
    from context_graph.models.embedder import Embedder
    from context_graph.models.recogniser import Recogniser


def embedded_text(document: Document) -> str:
    """What a document's vector is made of: its text, without the speaker.

    Who speaks is matched by itself (retrieval/ranking.py). A name in the text pulls every turn of its speaker towards
    every question that names them: recall@10 of the vectors alone is 0.43 with names in both and 0.66 with the names
    cut from both and the speaker matched (`make quality`, LoCoMo's development half).
    """
    return document.text


def text_hash(text: str) -> str:
    """32 hex digits that change with the text, or with the rules that texts are made by."""
    return blake2b(f"{TEXT_VERSION}\0{text}".encode(), digest_size=16).hexdigest()


def passages_of(document: Document, most: int) -> tuple[str, ...]:
    """The further passages of a document that have vectors. A summary is short, and another takes its place."""
    return further_passages(embedded_text(document), most) if document.kind == "event" else ()


def enrichment_of(
    document: Document,
    found: Found,
    vector: bytes,
    model_id: str,
    recogniser_id: str = "",
    *,
    passages: Sequence[tuple[str, bytes]] = (),
) -> Enrichment:
    """What models and rules add to a document.

    `vector`: float32 bytes; `recogniser_id`: whose spans they are, empty where nobody is to take the findings over;
    `passages`: text and vector of further passages.
    """
    made_of = text_hash(embedded_text(document))
    return Enrichment(
        document=document,
        vector=vector,
        model=model_id,
        text_hash=made_of,
        mentions=found.mentions,
        spans=found.spans,
        passages=tuple((text_hash(text), vector) for text, vector in passages),
        source=source_of(document, made_of, recogniser_id) if recogniser_id else b"",
    )


Recall: TypeAlias = Callable[[Partition, Sequence[Document]], Awaitable[Mapping[str, Found]]]


class EnrichmentHandler:
    """Asks the models about a batch and stores the answers."""

    def __init__(
        self,
        index: Index,
        embedder: Embedder,
        recogniser: Recogniser,
        recall: Recall | None = None,
        *,
        passages: int = 0,
        waits: bool = False,
    ) -> None:
        """`recall`: called with the documents before the models are asked: reminds these of what they said before, and
        says of which documents (by id) all is known.

        `passages`: of a long text at most so many beside its head get vectors. `waits`: whether entities too wait for
        an embedder that is away, because nobody reads them yet.
        """
        self._passages = passages
        self._waits = waits
        self._recall = recall
        self._index = index
        self._embedder = embedder
        self._recogniser = recogniser

    async def handle(self, partition: Partition, events: Sequence[LedgerEvent]) -> None:
        """Enrich the batch, whole. Raises ModelUnavailable, StoreUnavailable, and PartlyDone where vectors wait."""
        documents = documents_of(events)
        if not documents:
            return
        known = dict(await self._recall(partition, documents)) if self._recall is not None else {}
        unknown = [document for document in documents if document.id not in known]
        try:
            async with asyncio.TaskGroup() as tasks:
                embedding = tasks.create_task(self._vectors(documents), name="embed")
                recognising = tasks.create_task(self._recogniser.recognise([d.text for d in unknown]), name="recognise")
        except ExceptionGroup as failures:
            # The delivery loop decides by the error's type, so the first failure goes on as itself.
            raise failures.exceptions[0] from failures
        vectors, recogniser_id = embedding.result(), self._recogniser.recogniser_id
        newly = iter(
            find(document, spans, packed_spans(recogniser_id, spans))
            for document, spans in zip(unknown, recognising.result(), strict=True)
        )
        found = {document.id: known.get(document.id) or next(newly) for document in documents}
        if isinstance(vectors, ModelUnavailable):
            alone = [enrichment_of(document, found[document.id], b"", "") for document in documents]
            await self._index.put_enrichments(partition, alone)
            raise PartlyDone(f"entities are found, vectors wait: {vectors}") from vectors
        enrichments = [
            enrichment_of(
                document,
                found[document.id],
                vectors[embedded_text(document)],
                self._embedder.model_id,
                recogniser_id,
                passages=[(text, vectors[text]) for text in passages_of(document, self._passages)],
            )
            for document in documents
        ]
        await self._index.put_enrichments(partition, enrichments)

    async def _vectors(self, documents: Sequence[Document]) -> Mapping[str, bytes] | ModelUnavailable:
        """The vector of each distinct text: repeated texts (acknowledgements, retried calls) are embedded once.

        Why there are none, where the model is away and entities do not wait for it.
        """
        further = (text for document in documents for text in passages_of(document, self._passages))
        texts = list(dict.fromkeys([*(embedded_text(document) for document in documents), *further]))
        try:
            vectors = await self._embedder.embed(texts)
        except ModelUnavailable as error:
            if self._waits:
                raise
            return error
        return {text: vector.tobytes() for text, vector in zip(texts, vectors, strict=True)}
