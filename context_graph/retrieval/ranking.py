"""Ranking: how good each turn is for a query, judged in its conversation. Pure: arrays in, scores out.

A turn is rarely understood by itself: the answer follows the question, a meeting's decision is spread over a passage,
what is asked about is talked about in one session. So every turn is judged by its own match, by that of the turns
beside it, of the passage around it and of the best of its session, and by who says it and when. In a session of
hundreds of turns (a meeting) the passage counts for more and the speaker for less than in one of twenty (a chat):
`length` goes smoothly from 0 to 1 with the turns of the session and weighs those features.

Two readings of a question are kept apart, and the score is the chance of a turn under a mixture of both: that it is
answered in one place of the conversation (`weight`: all features), or in many (`broad`: the turn's own features,
whatever is talked about around it). Most questions have one place, but where they have not, the second reading brings
the other places in behind the first: in a budget of 1,000 tokens it finds 0.01 more of all evidence, and 0.02 more of
that of multi-hop questions.

The vector's feature is the root of the cosine's place between the worst and the best hit: that a turn is among the
nearest at all says more than how near it is (0.005 more of the evidence in 1,000 tokens).

Each reading is linear in the features of the table; `channel` groups them for the answer's meta. Weights were fitted by
`python -m tests.quality.fit` on the questions of the development sets together, each question one softmax over its pool
(the chance of picking an evidence turn), so only differences within a query matter; the script prints figures by
cross-validation over conversations. Those marked `by hand` have no data there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from context_graph.domain.document import Document
from context_graph.domain.query import Understanding
from context_graph.domain.times import closeness, day_of, periods

Floats: TypeAlias = NDArray[np.float64]

_SHORT, _LONG = 3.0, 15.0  # turns after which a neighbour's match counts 1/e of its own: chat, meeting
_HALF_LENGTH = 100.0  # turns of a session that is half a meeting
_CHARACTERS = 20.0  # about four words: the scale on which a turn is short
_SUBSTANTIAL = 300  # characters beyond which a turn says no more by being longer: length must not outweigh a match
_TIME_WORD = re.compile(
    r"\b(yesterday|today|tomorrow|tonight|last|next|ago|weekends?|weeks?|months?|years?|days?|recently|since|morning"
    r"|evening|(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|may|june|july|august|september"
    r"|october|november|december|\d{4})\b"
)  # of a text in lower case: ignoring case takes seven times as long
_ASKS_WHEN = re.compile(r"\b(when|what (?:date|day|month|year|time)|how long)\b", re.IGNORECASE)
# What kind of answer is asked for, and what in a turn is of that kind: a number; a name inside a sentence, or quoted.
_NUMERALS = "one|two|three|four|five|six|seven|eight|nine|ten|dozen|couple|several|twice|once"
_ANSWER_KINDS = (
    (
        re.compile(r"\bhow (?:many|much|often|old)\b", re.IGNORECASE),
        re.compile(rf"\d|\b(?:{_NUMERALS})\b", re.IGNORECASE),
    ),
    (re.compile(r"\b(?:who|where|which|name)\b", re.IGNORECASE), re.compile(r"(?<=[a-z,;] )[A-Z][a-z]|\"[^\"]+\"")),
)


BROAD_SHARE = 0.4  # of the second reading; 0.25 to 0.65 measure alike


@dataclass(frozen=True, slots=True)
class Feature:
    """A row: what it is worth in both readings, its channel, and whether the development sets or a hand set that."""

    name: str
    channel: str
    weight: float
    broad: float = 0.0
    source: str = "fitted"


FEATURES: tuple[Feature, ...] = (
    Feature(
        "vector", "vector", 1.3, 2.2
    ),  # root of the cosine of query and turn, 0 for the worst hit to 1 for the best
    Feature("text", "text", 1.2, 1.95),  # BM25 by the best
    Feature("speaker", "speaker", 3.4, 3.4),  # said by somebody whom the query names
    Feature("before", "neighbour", 1.05),  # half the sum of vector and text of the turn before
    Feature("passage", "passage", 7.7),  # … of the turns around, falling off with distance, by their length
    Feature("session_vector", "session", 1.1),  # the session's best vector match
    Feature("session_text", "session", 2.2),
    Feature("length", "substance", 0.7, 0.76),  # log of the characters: a nod is no answer
    Feature("question", "substance", -0.66, -0.87),  # asks rather than tells
    Feature("answers", "neighbour", 0.26),  # follows a question
    Feature("when", "time", 1.2, 1.1),  # the query asks when, and the turn has words of time
    Feature("date", "time", 5.6, 5.2),  # happened when the query speaks of
    Feature("answer_kind", "answer", 1.1, 1.1),  # has a number or a name where the query asks for one
    Feature("long_speaker", "speaker", -3.0, -2.9),  # the same in long sessions
    Feature("long_length", "substance", -1.35, -2.1),
    Feature("long_passage", "passage", 0.0, 22.0),  # a meeting has no turns without their passage
    Feature("linked", "causal", 1.0, 1.0, "by hand"),  # cause or effect of a match, by that match
)
_NAMES = tuple(feature.name for feature in FEATURES)
_WEIGHTS = np.array([feature.weight for feature in FEATURES])
_BROAD = np.array([feature.broad for feature in FEATURES])
CHANNELS = tuple(dict.fromkeys(feature.channel for feature in FEATURES))
_MEMBERSHIP = np.array([[float(feature.channel == channel) for channel in CHANNELS] for feature in FEATURES])


class Match(NamedTuple):
    """What the channels say of a document: scores 0..1 (0: not found), and how strongly its causes or effects match."""

    vector: float = 0.0
    text: float = 0.0
    linked: float = 0.0

    @property
    def own(self) -> float:
        return (self.vector + self.text) / 2


class Placed(NamedTuple):
    """A document in its conversation: place in its session (0 = first; None: none), turns of that session, matches."""

    document: Document
    place: int | None
    turns: int
    match: Match


def promising(placed: Sequence[Placed], most: int) -> list[tuple[str, int]]:
    """Places (session, number) of turns not found themselves that stand beside the best matches; at most `most`."""
    sessions = {p.document.session_id: p.turns for p in placed if p.place is not None}
    names = sorted(sessions)  # ties are broken by name: the outcome must not depend on who answered first
    turns = {name: sessions[name] for name in names}
    standing = np.array([p.place is not None for p in placed], dtype=bool)
    at = _coordinates_of(placed, turns)[standing]
    around = np.unique(at[:, None] + np.arange(-_REACH, _REACH + 1))
    number = np.floor((around + _REACH) / _APART).astype(int)  # a little before a session is still of that session
    place = around - number * _APART
    inside = (place >= 0) & (place < np.array([*turns.values(), 0])[number])
    if not inside.any():
        return []
    free = np.setdiff1d(around[inside], at, assume_unique=True)
    own = _substance(placed, _lengths(placed))[standing]
    sums = _sums_around(free, at[own > 0], own[own > 0], _SHORT)
    best = np.argsort(-np.round(sums, 9), kind="stable")[:most]  # rounded: sums may not depend on their order
    return [(names[int(to // _APART)], int(to % _APART)) for to in free[best].tolist()]


_REACH = 3  # turns on either side of a match that may be served beside it
_APART = 1e7  # between sessions: nothing falls off so slowly


def features_of(placed: Sequence[Placed], understanding: Understanding) -> Floats:
    """Shape (documents, features), in the order of FEATURES."""
    columns: dict[str, Floats] = {
        "vector": np.sqrt(np.array([p.match.vector for p in placed])),
        "text": np.array([p.match.text for p in placed]),
        "linked": np.array([p.match.linked for p in placed]),
        "length": _lengths(placed),
        "question": np.array([float(p.document.text.rstrip().endswith("?")) for p in placed]),
        "speaker": np.array([float(p.document.speaker.lower() in understanding.speakers) for p in placed]),
    }
    columns |= _beside(placed, columns["question"])
    columns |= _sessions(placed)
    columns |= _times(placed, understanding)
    columns["answer_kind"] = _answer_kinds(placed, understanding)
    long = np.array([p.turns / (p.turns + _HALF_LENGTH) for p in placed])
    columns["passage"] = _passages(placed, long, columns["length"])
    columns["long_passage"] = long * columns["passage"]
    columns["long_speaker"] = long * columns["speaker"]
    columns["long_length"] = long * columns["length"]
    features: Floats = np.stack([columns[name] for name in _NAMES], axis=1)
    return features


def chances_of(features: Floats, weights: Floats = _WEIGHTS, broad: Floats = _BROAD) -> Floats:
    """The chance of each document to be what is asked for, within its pool: they sum to 1."""
    mixed: Floats = (1 - BROAD_SHARE) * _softmax(features @ weights) + BROAD_SHARE * _softmax(features @ broad)
    return mixed


def _softmax(scores: Floats) -> Floats:
    raised: Floats = np.exp(scores - scores.max())
    raised /= raised.sum()
    return raised


def channels_of(features: Floats) -> list[dict[str, float]]:
    """What each channel adds to each document's score (first reading, logits); what adds nothing is left out."""
    added = ((features * _WEIGHTS) @ _MEMBERSHIP).tolist()
    return [{name: value for name, value in zip(CHANNELS, row, strict=True) if value} for row in added]


def _lengths(placed: Sequence[Placed]) -> Floats:
    return np.log1p(np.array([min(len(p.document.text), _SUBSTANTIAL) for p in placed]) / _CHARACTERS)


def _substance(placed: Sequence[Placed], lengths: Floats) -> Floats:
    """Own matches weighed by length: of ten nods and one sentence the passage is about the sentence."""
    mean = float(lengths.mean()) or 1.0
    return np.array([p.match.own if p.place is not None else 0.0 for p in placed]) * lengths / mean


def _beside(placed: Sequence[Placed], asking: Floats) -> dict[str, Floats]:
    """The match of the turn before, and whether that turn asks, as far as it is in the pool."""
    at = {(p.document.session_id, p.place): number for number, p in enumerate(placed) if p.place is not None}
    asked = ((p.document.session_id, p.place) for p in placed)
    before = np.array([-1 if place is None else at.get((home, place - 1), -1) for home, place in asked], dtype=np.intp)
    own = np.array([p.match.own for p in placed])
    there = before >= 0
    return {"before": np.where(there, own[before], 0.0), "answers": np.where(there, asking[before], 0.0)}


def _sessions(placed: Sequence[Placed]) -> dict[str, Floats]:
    vector: dict[str, float] = {}
    text: dict[str, float] = {}
    for p in placed:
        session = p.document.session_id
        vector[session] = max(vector.get(session, 0.0), p.match.vector)
        text[session] = max(text.get(session, 0.0), p.match.text)
    return {
        "session_vector": np.array([vector[p.document.session_id] for p in placed]),
        "session_text": np.array([text[p.document.session_id] for p in placed]),
    }


def _times(placed: Sequence[Placed], understanding: Understanding) -> dict[str, Floats]:
    """Words of time where the query asks when; closeness in time where it says when."""
    nothing = np.zeros(len(placed))
    when, dated = nothing, nothing
    if _ASKS_WHEN.search(understanding.text):
        when = np.array([float(min(2, len(_TIME_WORD.findall(p.document.text.lower())))) for p in placed])
    newest = max((p.document.occurred_at for p in placed), default=0)
    spoken_of = periods(understanding.text, day_of(newest))
    if spoken_of:
        dated = np.array([closeness(spoken_of, p.document.occurred_at) for p in placed])
    return {"when": when, "date": dated}


def _answer_kinds(placed: Sequence[Placed], understanding: Understanding) -> Floats:
    """How many of the kinds of answer that the query asks for the turn has."""
    kinds = [answer for asks, answer in _ANSWER_KINDS if asks.search(understanding.text)]
    if not kinds:
        return np.zeros(len(placed))
    return np.array([float(sum(kind.search(p.document.text) is not None for kind in kinds)) for p in placed])


def _passages(placed: Sequence[Placed], long: Floats, lengths: Floats) -> Floats:
    """The mean match of the turns around, near ones counting more: a few turns in a chat, dozens in a meeting."""
    sessions = {p.document.session_id: p.turns for p in placed}
    at = _coordinates_of(placed, sessions)
    sums = _substance(placed, lengths)
    matching = sums > 0  # the rest adds nothing
    found = np.zeros(len(placed))
    for share, scale, whole in ((1 - long, _SHORT, _WHOLE_SHORT), (long, _LONG, _WHOLE_LONG)):
        found += share * (_fall_off(at, at[matching], scale) @ sums[matching]) / whole
    return found


def _whole(scale: float) -> float:
    """What a passage of nothing but full matches would sum up to."""
    return 1 + 2 * sum(math.exp(-step / scale) for step in range(1, int(3 * scale) + 1))


_WHOLE_SHORT, _WHOLE_LONG = _whole(_SHORT), _whole(_LONG)


def _sums_around(to: Floats, at: Floats, values: Floats, scale: float) -> Floats:
    """Of each of `to` (sorted) the sum of the values around, each by exp(-distance / scale), up to three scales."""
    sums = np.zeros(len(to))
    reach = int(3 * scale)
    for step in range(-reach, reach + 1) if len(to) else ():
        where = np.minimum(np.searchsorted(to, at + step), len(to) - 1)
        there = to[where] == at + step
        sums[where[there]] += values[there] * math.exp(-abs(step) / scale)  # each place at most once a step
    return sums


def _fall_off(to: Floats, at: Floats, scale: float) -> Floats:
    """exp(-distance / scale) of every pair, 0 beyond three scales."""
    away = np.abs(to[:, None] - at[None, :]) / scale
    near = away <= 3.0
    fallen = np.zeros_like(away)
    fallen[near] = np.exp(-away[near])  # most pairs are far from each other
    return fallen


def _coordinates_of(placed: Sequence[Placed], sessions: Mapping[str, int]) -> Floats:
    """The same of documents; what has no place is far from everything, itself included."""
    number = {session: index for index, session in enumerate(sessions)}
    lone = iter(range(len(number) + 1, len(number) + 1 + len(placed)))
    return np.array(
        [
            (next(lone) + 0.5) * _APART if p.place is None else number[p.document.session_id] * _APART + p.place
            for p in placed
        ]
    )
