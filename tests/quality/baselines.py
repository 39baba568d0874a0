"""What retrieval is held against: BM25, MiniLM cosine and their best fixed linear mix, over the same turns.

As the data's README describes them: BM25 over `speaker: text` and with the previous turn; cosine of `speaker: text`;
cosine of texts with the names cut from question and turn, the speaker matched; and a weighted sum of BM25, BM25 with
context, cosine without names and that of the turns around. The mix's weights are the best of a grid *on the very set
that is measured*, which flatters it. Budgets are priced at four characters a token, without the price of citations.
"""

from __future__ import annotations

import itertools
import math
import pickle
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from context_graph.domain.query import STOP_WORDS
from context_graph.models.opening import open_embedder
from context_graph.settings import EmbeddingSettings
from tests.quality.sets import Conversation, Question
from tests.quality.stand import RUNS

Floats: TypeAlias = NDArray[np.float32]

_WORD = re.compile(r"[^\W_]+")
_K1, _B = 1.2, 0.75
_BESIDE = 0.5  # of a neighbouring turn's score
_GRID = (0.0, 1.0, 2.0)
_SPEAKER_GRID = (0.0, 0.5, 1.0)
MIX = "best fixed mix"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question with the parts of every baseline, by turn."""

    conversation: Conversation
    question: Question
    parts: Mapping[str, Floats]


async def parts_of(conversations: Sequence[Conversation]) -> list[Asked]:
    """The parts for every answerable question; vectors are kept in `.quality/`."""
    vectors = await _embedded(conversations)
    found: list[Asked] = []
    for conversation in conversations:
        turns = _Turns(conversation, vectors)
        found += [
            Asked(conversation, question, turns.parts(question, vectors))
            for question in conversation.questions
            if question.category != "unanswerable"
        ]
    return found


def rankings(asked: Sequence[Asked], relevant_at: int) -> dict[str, list[list[int]]]:
    """Each baseline's ranking of the turns, question by question; the mix is the best at recall of `relevant_at`."""
    single: dict[str, Callable[[Mapping[str, Floats]], Floats]] = {
        "BM25": lambda p: p["bm25"] + p["speaker"],
        "BM25 with context": lambda p: p["bm25_before"] + p["speaker"],
        "MiniLM": lambda p: p["cosine_named"],
        "MiniLM without names": lambda p: p["cosine"] + 0.1 * p["speaker"],
    }
    found = {name: [_order(score(one.parts)) for one in asked] for name, score in single.items()}
    found[MIX] = [_order(scores) for scores in _best_mix(asked, relevant_at)]
    return found


def _best_mix(asked: Sequence[Asked], k: int) -> list[Floats]:
    names = ("bm25", "bm25_before", "cosine", "cosine_around", "speaker")
    rows = [np.stack([one.parts[n] if n == "speaker" else _standard(one.parts[n]) for n in names]) for one in asked]
    best, chosen = -1.0, np.zeros(len(names), dtype=np.float32)
    for weights in itertools.product(_GRID, _GRID, _GRID, _GRID, _SPEAKER_GRID):
        tried = np.array(weights, dtype=np.float32)
        hits = []
        for row, one in zip(rows, asked, strict=True):
            top = np.argpartition(-(tried @ row), min(k, row.shape[1] - 1))[:k]
            hits.append(len(one.question.evidence.intersection(top.tolist())) / len(one.question.evidence))
        if np.mean(hits) > best:
            best, chosen = float(np.mean(hits)), tried
    return [chosen @ row for row in rows]


def _standard(values: Floats) -> Floats:
    found: Floats = (values - values.mean()) / (values.std() + 1e-9)
    return found


def _order(scores: Floats) -> list[int]:
    return [int(turn) for turn in np.argsort(-scores, kind="stable")]


class Bm25:
    """Okapi BM25 over the turns of one conversation."""

    def __init__(self, conversation: Conversation) -> None:
        texts = [_words(_shown(conversation, place)) for place in range(len(conversation.turns))]
        self._counts = [Counter(words) for words in texts]
        self._lengths = np.array([len(words) + 1 for words in texts], dtype=np.float32)
        self._spread = Counter(word for counts in self._counts for word in counts)

    def scores(self, text: str, names: Sequence[str]) -> Floats:
        known = {word for name in names for word in _words(name)}
        asked = [w for w in dict.fromkeys(_words(text)) if w not in STOP_WORDS and w not in known]
        found = np.zeros(len(self._counts), dtype=np.float32)
        norm = _K1 * (1 - _B + _B * self._lengths / self._lengths.mean())
        for word in asked:
            spread = self._spread.get(word, 0)
            rarity = math.log(1 + (len(self._counts) - spread + 0.5) / (spread + 0.5))
            times = np.array([counts.get(word, 0) for counts in self._counts], dtype=np.float32)
            found += rarity * times * (_K1 + 1) / (times + norm)
        return found


class _Turns:
    """The turns of one conversation as the baselines see them."""

    def __init__(self, conversation: Conversation, vectors: Mapping[str, Floats]) -> None:
        numbers = range(len(conversation.turns))
        self._speakers = [turn.speaker for turn in conversation.turns]
        self._names = _names(conversation)
        self._bm25 = Bm25(conversation)
        self._texts = np.stack([vectors[_shown(conversation, n)] for n in numbers])
        self._named = np.stack([vectors[_named(conversation, n)] for n in numbers])

    def parts(self, question: Question, vectors: Mapping[str, Floats]) -> dict[str, Floats]:
        """Scores of every turn, by part."""
        words = self._bm25.scores(question.text, self._names)
        cosine = self._texts @ vectors[_cut(question.text, self._names)]
        mentioned = {name for name in self._names if re.search(rf"\b{re.escape(name)}\b", question.text)}
        return {
            "bm25": words,
            "bm25_before": words + _BESIDE * _shifted(words, 1),
            "cosine": cosine,
            "cosine_around": cosine + _BESIDE * (_shifted(cosine, 1) + _shifted(cosine, -1)) / 2,
            "cosine_named": self._named @ vectors[question.text],
            "speaker": np.array([float(name in mentioned) for name in self._speakers], dtype=np.float32),
        }


def _shifted(values: Floats, by: int) -> Floats:
    moved = np.zeros_like(values)
    if by > 0:
        moved[by:] = values[:-by]
    else:
        moved[:by] = values[-by:]
    return moved


def _shown(conversation: Conversation, place: int) -> str:
    turn = conversation.turns[place]
    return turn.text + (f"\n[image: {turn.caption}]" if turn.caption else "")


def _named(conversation: Conversation, place: int) -> str:
    return f"{conversation.turns[place].speaker}: {_shown(conversation, place)}"


def _names(conversation: Conversation) -> list[str]:
    return sorted({turn.speaker for turn in conversation.turns})


def _cut(text: str, names: Sequence[str]) -> str:
    for name in names:
        text = re.sub(rf"\b{re.escape(name)}('s|’s)?\b", " ", text)
    return " ".join(text.split())


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


async def _embedded(conversations: Sequence[Conversation]) -> dict[str, Floats]:
    """Vectors of turns and questions, with names and without; made once."""
    file = RUNS / "baseline-vectors.pickle"
    known: dict[str, Floats] = pickle.loads(file.read_bytes()) if file.is_file() else {}
    wanted: dict[str, None] = {}
    for c in conversations:
        for place in range(len(c.turns)):
            wanted |= {_shown(c, place): None, _named(c, place): None}
        for q in c.questions:
            wanted |= {q.text: None, _cut(q.text, _names(c)): None}
    missing = [text for text in wanted if text not in known]
    if missing:
        async with open_embedder(EmbeddingSettings(), Path(RUNS / "models")) as embedder:
            known |= dict(zip(missing, await embedder.embed(missing), strict=True))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(known))
    return known
