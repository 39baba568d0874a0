"""The measures, as the data's README says them: recall and nDCG of a ranking, recall within a token budget, intervals.

All of them are per question; a set's figure is the mean over its questions, its interval a bootstrap over its
conversations (questions of one conversation are not independent).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

_RESAMPLES = 1000
_SEED = 7


def recall(ranking: Sequence[int], evidence: AbstractSet[int], k: int) -> float:
    """Share of the evidence among the `k` best."""
    return len(evidence & set(ranking[:k])) / len(evidence)


def ndcg(ranking: Sequence[int], evidence: AbstractSet[int], k: int = 10) -> float:
    """Normalised discounted cumulative gain with binary gains."""
    gained = sum(1 / math.log2(place + 2) for place, turn in enumerate(ranking[:k]) if turn in evidence)
    return gained / sum(1 / math.log2(place + 2) for place in range(min(k, len(evidence))))


def within_budget(ranking: Sequence[int], prices: Sequence[float], evidence: AbstractSet[int], budget: float) -> float:
    """Share of the evidence packed greedily: in order of rank, what does not fit is skipped. `prices` by turn."""
    spent, found = 0.0, 0
    for turn in ranking:
        if spent + prices[turn] <= budget:
            spent += prices[turn]
            found += turn in evidence
    return found / len(evidence)


def interval(values: Mapping[str, Sequence[float]]) -> tuple[float, float, float]:
    """Mean and 95 % interval of questions by conversation."""
    groups = [np.asarray(group) for group in values.values()]
    everything = np.concatenate(groups)
    chance = np.random.default_rng(_SEED)
    picks = chance.integers(0, len(groups), (_RESAMPLES, len(groups)))
    sums, counts = np.array([g.sum() for g in groups]), np.array([len(g) for g in groups])
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(everything.mean()), float(low), float(high)
