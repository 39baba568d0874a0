"""Scores beside how well something matches: what forgetting, importance and intents are worth. Pure.

How well a turn matches is the ranking's business (`retrieval/ranking.py`); these weights are logits beside its own.
They are set by hand: the development conversations are too old to have strength and have no causes.
"""

from __future__ import annotations

import math

# Ebbinghaus-like forgetting. A use is feedback that it helped, or a citation; not merely being returned.
_BASE_HOURS = 168.0
_USE_HOURS = 24.0

IMPORTANCE_WEIGHT = 0.2  # at importance 10 instead of 5
STRENGTH_WEIGHT = 0.2  # just now instead of long ago
WHY_WEIGHT = 1.0  # of what a cause or effect gains, once more as far as the query asks why


def strength(age_hours: float, uses: int = 0) -> float:
    """exp(-t/S) with S = 168 h · (1 + 24/168 · ln(1 + uses)): 1 when new, towards 0 with age.

    `uses`: feedback that it helped, less feedback that it did not. Below zero it shortens S by as much, to a tenth.
    """
    if not uses:
        return math.exp(-max(age_hours, 0.0) / _BASE_HOURS)
    gain = math.copysign(_USE_HOURS / _BASE_HOURS * math.log1p(abs(uses)), uses)
    span = _BASE_HOURS * max(0.1, 1 + gain)
    return math.exp(-max(age_hours, 0.0) / span)
