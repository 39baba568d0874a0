"""Questions with their recorded pools: what ranking is fitted and tried on, in seconds and without a service."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

from context_graph.domain.query import Understanding
from context_graph.retrieval.ranking import Placed
from tests.quality.stand import RUNS


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its pool: what of it is evidence, what each line costs; `evidence` counts all there is."""

    conversation: str
    category: str
    understanding: Understanding
    placed: list[Placed]
    relevant: list[bool]
    tokens: list[int]
    evidence: int


def pool_file(name: str) -> Path:
    return RUNS / f"pools-{name}.pickle"


def load(name: str) -> list[Question]:
    """The recorded questions of a set; FileNotFoundError says how to record them."""
    file = pool_file(name)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: run `python -m tests.quality.pools {name}`")
    questions: list[Question] = pickle.loads(file.read_bytes())
    return questions
