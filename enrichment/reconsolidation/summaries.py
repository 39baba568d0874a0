"""Extractive summaries: which sentences of a session say most about it. Pure, no model, any language with words.

Of n distinct sentences, a stem t (a word's first letters) that stands in c(t) of them weighs

    w(t) = ln(1 + c(t)) · ln(n / c(t))          what recurs, but not everywhere

and a sentence i of |i| words, beside the ones that are taken, gains

    g(i) = Σ over its stems w(t) · 2^−(times t is covered by those taken) / √|i|
    r(i) = (0.7 · g(i) / largest g + 0.3 · (importance − 1) / 9) · prose(i)      (0-1, see sentences.py)

Sentences are taken greedily by r, so a stem that is covered counts half for the next: coverage with diminishing returns
(Lin and Bilmes 2011, section 4), weights after Luhn (1958) with the idf of Spärck Jones (1972). They are given back in
order of occurrence. The same sentence said by several events is one candidate that cites them all.

Against first-n and random sentences on QMSum's development meetings: `python -m tests.quality.summaries`. Degree
centrality with maximal marginal relevance, used before, lost ROUGE-2 to the first sentences there.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from context_graph.domain.query import STOP_WORDS
from enrichment.reconsolidation.sentences import Sentence, prose, terms

MOST_SENTENCES = 2000  # that are candidates: bounds what a session's summary costs
MOST_CITED = 8  # events cited for one sentence that many of them hold

_COVERAGE = 0.7
_IMPORTANCE = 0.3
_LENGTH = 0.5  # power of the words by which a long sentence is held back
_AGAIN = 0.5  # what a stem is worth for each time it is covered
_STEM = 6  # letters that make two words one


@dataclass(frozen=True, slots=True)
class Quote:
    """A sentence of the summary: verbatim, the events that hold it, and its rank among the chosen (1 = first taken)."""

    text: str
    event_ids: tuple[str, ...]
    rank: int


@dataclass(slots=True)
class _Candidate:
    first: Sentence
    event_ids: list[str]
    importance: int


def choose(sentences: Sequence[Sentence], count: int) -> tuple[Quote, ...]:
    """The `count` sentences that say most, in order of occurrence; fewer when there are fewer distinct ones."""
    candidates = _distinct(sentences)
    taken = _covering([_worth(candidate) for candidate in candidates], count)
    return tuple(
        Quote(candidates[i].first.text, tuple(candidates[i].event_ids), taken.index(i) + 1) for i in sorted(taken)
    )


def _distinct(sentences: Sequence[Sentence]) -> list[_Candidate]:
    """Sentences with the same words, once, in order of occurrence."""
    found: dict[tuple[str, ...], _Candidate] = {}
    for sentence in sorted(sentences, key=lambda s: s.place):
        candidate = found.setdefault(tuple(terms(sentence.text)), _Candidate(sentence, [], 0))
        candidate.importance = max(candidate.importance, sentence.importance)
        if sentence.event_id not in candidate.event_ids and len(candidate.event_ids) < MOST_CITED:
            candidate.event_ids.append(sentence.event_id)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _Worth:
    """What the choice needs of a candidate: its stems, what its words divide by, its importance (0-1), its prose."""

    stems: frozenset[str]
    length: float
    importance: float
    prose: float


def _worth(candidate: _Candidate) -> _Worth:
    words = terms(candidate.first.text)
    return _Worth(
        frozenset(word[:_STEM] for word in words if word not in STOP_WORDS),
        max(1, len(words)) ** _LENGTH,
        (candidate.importance - 1) / 9,
        prose(candidate.first.text),
    )


def _covering(candidates: Sequence[_Worth], count: int) -> list[int]:
    """Indices in the order taken. Equal scores: the earlier sentence.

    A gain only shrinks while stems are covered, so one computed earlier is a bound: whoever leads with a fresh one is
    the best (lazy greedy, Minoux 1978).
    """
    weights = _weights(candidates)
    covered: Counter[str] = Counter()

    def gain(worth: _Worth) -> float:
        return math.fsum(weights[stem] * _AGAIN ** covered[stem] for stem in worth.stems) / worth.length

    largest = max(map(gain, candidates), default=0.0) or 1.0

    def score(worth: _Worth) -> float:
        return (_COVERAGE * gain(worth) / largest + _IMPORTANCE * worth.importance) * worth.prose

    waiting = [(-score(worth), index, 0) for index, worth in enumerate(candidates)]
    heapq.heapify(waiting)
    taken: list[int] = []
    while waiting and len(taken) < count:
        _, index, round_ = heapq.heappop(waiting)
        if round_ == len(taken):
            taken.append(index)
            covered.update(candidates[index].stems)
        else:
            heapq.heappush(waiting, (-score(candidates[index]), index, len(taken)))
    return taken


def _weights(candidates: Sequence[_Worth]) -> dict[str, float]:
    holders = Counter(stem for worth in candidates for stem in worth.stems)
    return {stem: math.log1p(count) * math.log(len(candidates) / count) for stem, count in holders.items()}


def joined(quotes: Iterable[Quote]) -> str:
    """The sentences as one text; one that does not end like a sentence gets a full stop."""
    return " ".join(q.text if q.text[-1] in ".!?…。！？\"'”’)]:" else f"{q.text}." for q in quotes)
