"""A memory of any size without hours of modelling: what the stages would have written, through the stores they use.

Ledger, graph, documents and rule-made entities are real. Vectors and the recogniser's names are made from
those of a few hundred sentences: an event's text is two of them, so its vector is their sum with noise, and its names
are theirs. So vectors lie in clusters as real ones do, which random ones do not.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from context_graph.domain.event import LedgerEvent
from context_graph.domain.stages import STAGES
from context_graph.models.opening import open_embedder
from context_graph.models.recogniser import Span, open_recogniser
from enrichment.enrich import enrichment_of
from enrichment.found import find
from enrichment.indexing import documents_of
from enrichment.known import packed_spans
from projections.fold import fold
from tests.benchmarks.stage import Stage
from tests.benchmarks.workload import Raw, Workload, stored

_STEP = 500
_NOISE = 0.35  # length of the noise beside the sum of two unit vectors
MADE = "vectors and recognised names are made from those of the sentences (see tests/benchmarks/filling.py)"


@dataclass(frozen=True, slots=True)
class Pool:
    """The sentences that texts are made of, with what the models say of each."""

    workload: Workload
    vectors: NDArray[np.float32]
    spans: Sequence[Sequence[Span]]
    model_id: str
    recogniser_id: str


async def open_pool(stage: Stage, sentences: Sequence[str], size: int) -> Pool:
    """Ask the models about `size` of the sentences."""
    step = max(1, len(sentences) // size)
    chosen = tuple(sentences[::step][:size])
    settings = stage.resources.settings
    async with AsyncExitStack() as stack:
        embedder = await stack.enter_async_context(open_embedder(settings.embedding, stage.folder / "models"))
        recogniser = await stack.enter_async_context(open_recogniser(settings.entities))
        vectors, spans = await embedder.embed(chosen), await recogniser.recognise(chosen)
        return Pool(Workload(chosen), vectors, spans, embedder.model_id, recogniser.recogniser_id)


async def fill_ledger(stage: Stage, raws: Sequence[Raw]) -> int:
    """Append the events; returns the bytes of their canonical JSON."""
    total = 0
    for start in range(0, len(raws), _STEP):
        events = stored(list(raws[start : start + _STEP]))
        total += sum(len(event.body) for event in events)
        await stage.resources.ledger.append(stage.partition, events)
    return total


async def fill_derived(stage: Stage, pool: Pool, count: int) -> None:
    """Graph, documents, vectors and entities of the ledger's `count` events, and the groups set behind them."""
    random = np.random.default_rng(11)
    picks = pool.workload.picks(count)
    done = 0
    async for events in _ledger(stage):
        await stage.resources.graph.apply(stage.partition, fold(events))
        documents = documents_of(events)
        await stage.resources.index.put_documents(stage.partition, documents)
        enrichments = []
        for document, pick in zip(documents, picks[done : done + len(events)], strict=True):
            vector = _vector(pool, pick, random)
            spans = _spans(pool, pick, document.text)
            packed = packed_spans(pool.recogniser_id, spans)
            found = find(document, spans, packed)
            enrichments.append(enrichment_of(document, found, vector, pool.model_id, pool.recogniser_id))
        await stage.resources.index.put_enrichments(stage.partition, enrichments)
        done += len(events)
        if done % 10_000 == 0:
            sys.stderr.write(f"  {done:,} of {count:,} filled\n")
    for stage_row in STAGES:  # as if every stage had passed
        await stage.resources.groups.ensure(stage.partition, stage_row.group)
        name = f"cg:{stage.partition.tag}:ledger"
        await stage.resources.ledger_redis.xgroup_setid(name, stage_row.group, "$")
    await _indexed(stage, count)


async def _ledger(stage: Stage) -> AsyncIterator[list[LedgerEvent]]:
    last = None
    while events := await stage.resources.ledger.after(stage.partition, last, _STEP):
        yield events
        last = events[-1].position


async def _indexed(stage: Stage, count: int) -> None:
    """Until RediSearch, which works behind the writes, has everything."""
    async with asyncio.timeout(300):
        while True:
            found = await stage.resources.index.statistics(stage.partition)
            if found.documents >= count and found.vectors >= count:
                return
            await asyncio.sleep(0.05)


def _vector(pool: Pool, pick: tuple[int, int], random: np.random.Generator) -> bytes:
    dimensions = pool.vectors.shape[1]
    noise = random.standard_normal(dimensions, dtype=np.float32) * (_NOISE / dimensions**0.5)
    made = pool.vectors[pick[0]] + pool.vectors[pick[1]] + noise
    return bytes((made / np.linalg.norm(made)).astype(np.float32).tobytes())


def _spans(pool: Pool, pick: tuple[int, int], text: str) -> list[Span]:
    """The names of both sentences, where the text has them."""
    found: list[Span] = []
    for number in dict.fromkeys(pick):
        start = text.find(pool.workload.sentences[number])
        if start >= 0:
            found += [replace(span, start=span.start + start, end=span.end + start) for span in pool.spans[number]]
    return found
