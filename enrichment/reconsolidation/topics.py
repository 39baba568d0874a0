"""Where a stretch of events turns to another topic, by the words that are said. Pure, no model, no clock.

Each event becomes a vector of its words: of each stem (a word's first letters) that at least two events hold,
(1 + ln tf) · ln(n / df), projected to 256 dimensions by a fixed pattern of signs, of length 1. The stretch is then cut
so that the events of a segment resemble their mean most: a dynamic programme finds the borders b that maximise

    Σ over segments |Σ w(i) · v(i)|² / Σ w(i)  −  _COST · (segments − 1)

w(i), the words of event i, at most 60, so that a word of agreement weighs little. The first term is what a segment's
mean explains of its events (the k-means criterion on a line); the cost is what a border must gain to be one.

The constants were chosen on one half of QMSum's development meetings and looked at on the other
(`python -m tests.quality.episodes`). Sums run over integers, so that they are the same on every machine.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from context_graph.domain.query import STOP_WORDS

Floats: TypeAlias = NDArray[np.float64]

SHORTEST = 30  # events of a segment
_COST = 50.0  # in words explained
_DIMENSIONS = 256
_STEM = 6  # letters that make two words one
_SHORTEST_WORD = 3
_MOST_WORDS = 60  # that an event weighs
_MOST_READ = 300  # terms of an event whose stems are kept
_STEP = 5  # events between places where a border may be
_MOST_PLACES = 1000  # beyond it the step grows: the programme is quadratic in the places
_SCALE = 1024  # a vector's numbers as integers


@dataclass(frozen=True, slots=True)
class Words:
    """What the cut needs of an event: how often each stem stands in it, and how many words it has (at most 60)."""

    stems: Mapping[str, int]
    weight: int


def words_of(terms: Sequence[str]) -> Words:
    """The words of an event out of its terms (`sentences.terms`)."""
    known = terms[:_MOST_READ]
    stems = (sys.intern(term[:_STEM]) for term in known if _tells(term))
    return Words(Counter(stems), min(len(terms), _MOST_WORDS))


def _tells(term: str) -> bool:
    """Whether a word tells topics apart: no stop word, no short one of an alphabet (a CJK character is a word)."""
    return (len(term) >= _SHORTEST_WORD or not term.isascii()) and term not in STOP_WORDS


def topic_borders(events: Sequence[Words]) -> list[int]:
    """Indices (above 0) of the events with which another topic begins, in order. Segments have 30 events or more."""
    if len(events) < 2 * SHORTEST:
        return []
    weights = np.array([event.weight for event in events], dtype=np.float64)
    places = _places(len(events))
    sums = np.vstack([np.zeros(_DIMENSIONS), np.cumsum(_vectors(events) * weights[:, None], axis=0)])[places]
    masses = np.concatenate([[0.0], np.cumsum(weights)])[places]
    return _best_borders(places, sums / _SCALE, masses)


def _places(events: int) -> list[int]:
    step = max(_STEP, math.ceil(events / _MOST_PLACES))
    return [*range(0, events, step), events]


def _vectors(events: Sequence[Words]) -> Floats:
    """Shape (events, 256): each row of length `_SCALE`, in whole numbers, or zero."""
    holders = Counter(stem for event in events for stem in event.stems)
    signs: dict[str, Floats] = {}
    vectors = np.zeros((len(events), _DIMENSIONS))
    for row, event in enumerate(events):
        for stem, count in sorted(event.stems.items()):
            if holders[stem] > 1:
                weight = (1 + math.log(count)) * math.log(len(events) / holders[stem])
                vectors[row] += weight * signs.setdefault(stem, _signs(stem))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    whole: Floats = np.rint(np.divide(vectors * _SCALE, lengths, out=np.zeros_like(vectors), where=lengths > 0))
    return whole


def _signs(stem: str) -> Floats:
    """A pattern of ±1 that a stem always has."""
    digest = blake2b(stem.encode(), digest_size=_DIMENSIONS // 8).digest()
    return np.unpackbits(np.frombuffer(digest, np.uint8)).astype(np.float64) * 2 - 1


def _best_borders(places: Sequence[int], sums: Floats, masses: Floats) -> list[int]:
    """`sums` and `masses` run up to each place. Among equals the earliest last border."""
    products = sums @ sums.T
    squares = np.diag(products)
    at = np.array(places)
    best = np.full(len(places), -np.inf)
    best[0] = 0.0
    before = np.zeros(len(places), dtype=np.intp)
    for j in range(1, len(places)):
        mass = np.maximum(masses[j] - masses[:j], 1.0)
        value = best[:j] + (squares[j] + squares[:j] - 2 * products[j, :j]) / mass - _COST
        value[at[j] - at[:j] < SHORTEST] = -np.inf
        before[j] = int(np.argmax(value))
        best[j] = value[before[j]]
    borders: list[int] = []
    place = int(before[-1])
    while place > 0:
        borders.append(places[place])
        place = int(before[place])
    return borders[::-1]
