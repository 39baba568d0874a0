"""Stage 2: the product's embedder beside bare onnxruntime on the same texts, and two workers beside one."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from statistics import mean

import numpy as np

from context_graph.domain.position import Position
from context_graph.domain.stages import ENRICHMENT
from context_graph.models.opening import open_embedder
from context_graph.settings import EmbeddingSettings
from tests.benchmarks.bare_model import BareModel
from tests.benchmarks.rows import Options, Row, Target, in_turns
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.workload import Workload, load_texts, stored

_LOOK = 0.02  # seconds between two looks at the group


async def stage2_vectors(options: Options) -> Row:
    """Texts a second; whole messages, long and short as they come."""
    count = options.sized(96, 32)
    texts = load_texts()
    step = max(1, len(texts.messages) // count)
    chosen = list(texts.messages[::step][:count])
    settings = EmbeddingSettings()
    with tempfile.TemporaryDirectory(prefix="context-graph-bench-") as name:
        bare = BareModel(settings, Path(name))
        ordered = sorted(chosen, key=len)
        size = settings.batch_texts
        batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        async with open_embedder(settings, Path(name)) as embedder:

            async def product(_turn: int) -> float:
                began = time.perf_counter()
                await embedder.embed(chosen)
                return len(chosen) / (time.perf_counter() - began)

            async def floor(_turn: int) -> float:
                began = time.perf_counter()
                for batch in batches:
                    bare.embed(batch)
                return len(chosen) / (time.perf_counter() - began)

            same = float(np.min(np.sum(await embedder.embed(ordered[:size]) * bare.embed(batches[0]), axis=1)))
            pairs = await in_turns(options.pairs, product, floor)
    return pairs.row(
        "stage2_vectors",
        "texts/s",
        Target(0.85, "at least"),
        texts=len(chosen),
        source=texts.source,
        mean_characters=mean(map(len, chosen)),
        batch=size,
        least_cosine_of_product_and_floor=same,
    )


async def stage2_workers(options: Options) -> Row:
    """Events a second, vectors and entities, by two worker processes beside one; each text is new to the model."""
    count = options.sized(600, 120)
    events = stored(Workload(load_texts().sentences).events(count, "v"))
    warming = stored(Workload(load_texts().sentences, seed=8).events(2 * 64, "w"))
    async with open_stage() as stage:

        async def by(workers: int) -> float:
            fresh = await stage.emptied()
            async with fresh.workers(*("enrichment",) * workers):
                await _ready(fresh, workers)
                await _passed(fresh, (await fresh.resources.ledger.append(fresh.partition, warming))[-1].position)
                began = time.perf_counter()
                await _passed(fresh, (await fresh.resources.ledger.append(fresh.partition, events))[-1].position)
                return count / (time.perf_counter() - began)

        async def two(_turn: int) -> float:
            return await by(2)

        async def one(_turn: int) -> float:
            return await by(1)

        pairs = await in_turns(min(options.pairs, 3), two, one)
    return pairs.row("stage2_two_workers", "events/s", Target(0.9, "at least"), events_a_sample=count,
                     note="value: two processes, floor: one; the model of one takes every core there is")  # fmt: skip


async def _ready(stage: Stage, workers: int) -> None:
    """Until so many workers read: a worker does with its models loaded."""
    while (await stage.resources.groups.members(stage.partition, ENRICHMENT.group)).living < workers:
        await asyncio.sleep(_LOOK)


async def _passed(stage: Stage, position: Position) -> None:
    while not (await stage.resources.groups.state(stage.partition, ENRICHMENT.group)).has_passed(position):
        await asyncio.sleep(_LOOK)
