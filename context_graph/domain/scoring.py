"""Scores: how candidates of several channels become one ranking. Pure functions over plain numbers.

Channel scores are first brought to 0..1 within one query: a cosine and a BM25 score mean nothing beside each other, but
"how good among what this query found" does. Fusion is then a weighted sum with weights by intent; ranks alone (RRF)
throw away how far the best is ahead, and measured worse on the development conversations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

# Ebbinghaus-like forgetting. A use is feedback that it helped, or a citation; not merely being returned.
_BASE_HOURS = 168.0
_USE_HOURS = 24.0

# What each channel adds to the fused score at its best. Sections of working memory come from these as well.
CHANNEL_WEIGHTS: Mapping[str, float] = {
    "vector": 0.5,
    "text": 0.5,
    "recency": 0.15,
    "causal": 0.35,
    "neighbour": 0.15,
}
IMPORTANCE_WEIGHT = 0.05
STRENGTH_WEIGHT = 0.05


def strength(age_hours: float, uses: int = 0) -> float:
    """exp(-t/S) with S = 168 h · (1 + 24/168 · ln(1 + uses)): 1 when new, towards 0 with age.

    `uses`: feedback that it helped, less feedback that it did not. Below zero it shortens S by as much, to a tenth.
    """
    gain = math.copysign(_USE_HOURS / _BASE_HOURS * math.log1p(abs(uses)), uses)
    span = _BASE_HOURS * max(0.1, 1 + gain)
    return math.exp(-max(age_hours, 0.0) / span)


def scaled(scores: Mapping[str, float], *, from_zero: bool) -> dict[str, float]:
    """Scores brought to 0..1: by the best (`from_zero`, for BM25), or between worst and best (for cosines)."""
    if not scores:
        return {}
    high = max(scores.values())
    low = 0.0 if from_zero else min(scores.values())
    if high <= low:
        return dict.fromkeys(scores, 1.0)
    return {name: (score - low) / (high - low) for name, score in scores.items()}


def fused(channels: Mapping[str, float], weights: Mapping[str, float] = CHANNEL_WEIGHTS) -> float:
    """The weighted sum of a candidate's channel scores (each 0..1)."""
    return sum(weights.get(name, 0.0) * score for name, score in channels.items())
