"""`python -m tests.quality.packing [SET …]`: the evidence in a budget by retrieval's own packing, over recorded pools.

What `fit` estimates from single prices is packed, rendered and counted here as `/v1/context` does it, in seconds and
without a service: with the weights as they are, and with weights fitted without the question's conversation.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from context_graph.domain.scoring import IMPORTANCE_WEIGHT
from context_graph.models.tokens import open_counter
from context_graph.retrieval.context import shortened
from context_graph.retrieval.items import DEFAULT_SHARES, Item
from context_graph.retrieval.pack import pack
from context_graph.retrieval.ranking import FEATURES, chances_of
from context_graph.retrieval.render import FORMATS
from tests.quality.fit import Readings, Sample, fit_both, samples_of

_BUDGETS = (500, 1000, 2000, 4000)
_FOLDS = 5


def share_in(sample: Sample, weights: Readings, budget: int, count: Callable[[str], int]) -> float:
    """Share of the question's evidence in a context of at most `budget` tokens."""
    q = sample.question
    importance = np.array([p.document.importance for p in q.placed])
    scores = chances_of(sample.features, *weights) * np.exp(IMPORTANCE_WEIGHT * (importance - 5) / 5)
    items = []
    for rank, place in enumerate(np.argsort(-scores, kind="stable").tolist(), 1):
        document = q.placed[place].document
        text, cut = shortened(document.text, max(240, budget))
        items.append(Item(document, "relevant", text, float(scores[place]), {}, rank, document.id, cut))
    packed = pack(items, limit=budget, shares=DEFAULT_SHARES, shape=FORMATS["json"], count=count)
    served = {name for item in packed.items for name in item.event_ids}
    return sum(p.document.id in served for p, told in zip(q.placed, q.relevant, strict=True) if told) / q.evidence


def _row(title: str, name: str, samples: Sequence[Sample], weights_of: Callable[[Sample], Readings]) -> str:
    count = lru_cache(maxsize=None)(open_counter("o200k_base").count)
    shares = np.mean([[share_in(s, weights_of(s), b, count) for b in _BUDGETS] for s in samples], axis=0)
    return f"{title:20} {name:8} " + " ".join(f"{share:.4f}" for share in shares)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality.packing", description=__doc__)
    parser.add_argument("sets", nargs="*", default=["locomo", "qmsum"])
    parser.add_argument("--left-out", default="", help="a channel that the fitted weights do without")
    asked = parser.parse_args()
    samples = {name: samples_of(name) for name in asked.sets}
    everything = [s for held in samples.values() for s in held]
    now = (np.array([f.weight for f in FEATURES]), np.array([f.broad for f in FEATURES]))
    folds = [fit_both([s for s in everything if s.fold != fold], asked.left_out) for fold in range(_FOLDS)]
    print("tokens:", *_BUDGETS)
    for name, held in samples.items():
        print(_row("weights as they are", name, held, lambda _: now))
        print(_row("cross-validated", name, held, lambda s: folds[s.fold]))


if __name__ == "__main__":
    main()
