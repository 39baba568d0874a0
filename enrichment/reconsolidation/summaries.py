"""Extractive summaries: which sentences of a session say most about it. Pure, no model, any language with words.

Score of a sentence i, out of n distinct ones:

    weight of a term t        w(i, t) = tf(i, t) · ln(n / sf(t)), sf = sentences that hold t     (tf-isf)
    vector                    v(i) = w(i) / |w(i)|
    centrality                c(i) = Σ_j v(i) · v(j), divided by the largest
    relevance                 r(i) = (0.7 · c(i) + 0.3 · (importance − 1) / 9) · prose(i)      (0-1, see sentences.py)

c is the degree centrality of LexRank with continuous weights (Erkan and Radev 2004, section 3.1); since v(i) · Σ_j v(j)
gives it in one pass, it costs as much as there are terms, not pairs. A term that stands in every sentence weighs
nothing, so no list of stop words is needed. Sentences are then taken greedily by maximal marginal relevance (Carbonell
and Goldstein 1998) with λ = 0.7: argmax λ · r(i) − (1 − λ) · max over those taken of v(i) · v(j). They are given back
in order of occurrence. The same sentence said by several events is one candidate that cites them all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from enrichment.reconsolidation.sentences import Sentence, prose, terms

MOST_SENTENCES = 2000  # that enter the centrality step: bounds a session's summary to about a second
MOST_CITED = 8  # events cited for one sentence that many of them hold

_CENTRALITY = 0.7
_IMPORTANCE = 0.3
_RELEVANCE_OVER_NOVELTY = 0.7

_Vector = dict[str, float]


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
    vectors = _vectors([terms(candidate.first.text) for candidate in candidates])
    relevance = _relevance(vectors, candidates)
    taken = _diverse(vectors, relevance, count)
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


def _vectors(texts: Sequence[list[str]]) -> list[_Vector]:
    counts = [Counter(text) for text in texts]
    holders = Counter(term for count in counts for term in count)
    vectors = []
    for count in counts:
        weights = {term: tf * math.log(len(texts) / holders[term]) for term, tf in count.items()}
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        vectors.append({term: weight / length for term, weight in weights.items() if weight} if length else {})
    return vectors


def _relevance(vectors: Sequence[_Vector], candidates: Sequence[_Candidate]) -> list[float]:
    total: _Vector = {}
    for vector in vectors:
        for term, weight in vector.items():
            total[term] = total.get(term, 0.0) + weight
    centrality = [_dot(vector, total) for vector in vectors]
    largest = max(centrality, default=0.0) or 1.0
    return [
        (_CENTRALITY * c / largest + _IMPORTANCE * (candidate.importance - 1) / 9) * prose(candidate.first.text)
        for c, candidate in zip(centrality, candidates, strict=True)
    ]


def _diverse(vectors: Sequence[_Vector], relevance: Sequence[float], count: int) -> list[int]:
    """Indices in the order taken. Equal scores: the earlier sentence."""
    left = list(range(len(vectors)))
    nearest = [0.0] * len(vectors)
    taken: list[int] = []
    while left and len(taken) < count:
        best = max(left, key=lambda i: (_marginal(relevance[i], nearest[i]), -i))
        left.remove(best)
        taken.append(best)
        for i in left:
            nearest[i] = max(nearest[i], _dot(vectors[i], vectors[best]))
    return taken


def _marginal(relevance: float, nearest: float) -> float:
    return _RELEVANCE_OVER_NOVELTY * relevance - (1 - _RELEVANCE_OVER_NOVELTY) * nearest


def _dot(left: _Vector, right: _Vector) -> float:
    if len(right) < len(left):
        left, right = right, left
    return math.fsum(weight * right[term] for term, weight in left.items() if term in right)


def joined(quotes: Iterable[Quote]) -> str:
    """The sentences as one text; one that does not end like a sentence gets a full stop."""
    return " ".join(q.text if q.text[-1] in ".!?…。！？\"'”’)]:" else f"{q.text}." for q in quotes)
