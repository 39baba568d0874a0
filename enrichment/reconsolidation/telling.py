"""Which events of an episode say most: those that stay when the episode is forgotten. Pure, no model, any language.

A stem (a word's first letters) weighs ln((n + 1) / c): n events, c of them hold it. An event is worth the stems of what
it states (a question asks for something, it seldom tells it), each halved for every event taken before that holds it
too: coverage with diminishing returns, as for summaries (`summaries.py`), without their bias to short sentences.

On LoCoMo's development half, of the turns that answer a question the best 40 % of each session by this order hold 0.75,
by length 0.69, by centrality 0.55, drawn at random 0.40 (`python -m tests.quality.telling`; adr/0041).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from context_graph.domain.query import STOP_WORDS
from enrichment.reconsolidation.sentences import terms

_STEM = 6  # letters that make two words one, as in summaries
_AGAIN = 0.5
_MOST = 1000  # events that are ordered against each other; a longer episode is ordered by pieces of that many
_END = re.compile(r"(?<=[.!?。！？])\s+|\n+")


def most_telling(texts: Sequence[str], count: int) -> list[int]:
    """Indices of the `count` texts that say most, best first. Equal worth: the earlier one."""
    if len(texts) > _MOST:
        half = len(texts) // 2
        first = most_telling(texts[:half], count * half // len(texts))
        return first + [half + i for i in most_telling(texts[half:], count - len(first))]
    stems = [stated(text) for text in texts]
    holders = Counter(stem for held in stems for stem in held)
    weights = {stem: math.log((len(texts) + 1) / held) for stem, held in holders.items()}
    covered: Counter[str] = Counter()
    left = list(range(len(texts)))
    taken: list[int] = []
    while left and len(taken) < count:
        best = max(left, key=lambda i: (math.fsum(weights[s] * _AGAIN ** covered[s] for s in stems[i]), -i))
        left.remove(best)
        taken.append(best)
        covered.update(stems[best])
    return taken


def stated(text: str) -> frozenset[str]:
    """The stems of what a text states."""
    stated = (part for part in _END.split(text) if not part.rstrip().endswith(("?", "？")))
    return frozenset(word[:_STEM] for part in stated for word in terms(part) if word not in STOP_WORDS)
