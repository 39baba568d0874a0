"""Stage 2's vectors: the product's embedder beside bare onnxruntime on the same texts in the same batches."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import mean

import numpy as np

from context_graph.models.opening import open_embedder
from context_graph.settings import EmbeddingSettings
from tests.benchmarks.bare_model import BareModel
from tests.benchmarks.rows import Options, Row, Target, in_turns
from tests.benchmarks.workload import load_texts


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
