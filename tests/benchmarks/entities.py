"""Stage 2's entities: recogniser, rules and known names beside bare `nlp.pipe` on the same texts."""

from __future__ import annotations

import time
from statistics import mean

import spacy

from context_graph.models.recogniser import open_recogniser
from context_graph.settings import EntitySettings
from enrichment.entities import find_mentions
from tests.benchmarks.rows import Options, Row, Target, in_turns
from tests.benchmarks.workload import load_texts

_UNUSED = ("tagger", "morphologizer", "parser", "senter", "sentencizer", "attribute_ruler", "lemmatizer")


async def stage2_entities(options: Options) -> Row:
    """Texts a second; whole messages, long and short as they come. The floor's pipeline has the same parts."""
    count = options.sized(400, 60)
    texts = load_texts()
    step = max(1, len(texts.messages) // count)
    settings = EntitySettings()
    chosen = [text[: settings.max_characters] for text in texts.messages[::step][:count]]
    pipeline = spacy.load(settings.model, exclude=_UNUSED)
    pipeline.disable_pipe("tok2vec")  # nobody listens to it, in the product neither
    mentions = 0
    async with open_recogniser(settings) as recogniser:
        await recogniser.recognise(chosen[:2])

        async def product(_turn: int) -> float:
            nonlocal mentions
            began = time.perf_counter()
            named = await recogniser.recognise(chosen)
            mentions = sum(len(find_mentions(text, spans)) for text, spans in zip(chosen, named, strict=True))
            return len(chosen) / (time.perf_counter() - began)

        async def floor(_turn: int) -> float:
            began = time.perf_counter()
            for document in pipeline.pipe(chosen, batch_size=32):
                _ = document.ents
            return len(chosen) / (time.perf_counter() - began)

        pairs = await in_turns(options.pairs, product, floor)
    return pairs.row(
        "stage2_entities",
        "texts/s",
        Target(0.8, "at least"),
        texts=len(chosen),
        source=texts.source,
        mean_characters=mean(map(len, chosen)),
        mentions=mentions,
    )
