"""The labelled pairs of names: whether resolution puts together what belongs together, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from context_graph.resolution.clusters import cluster
from context_graph.resolution.evidence import Likeness
from tests.quality.entities.scores import Score

_PAIRS = Path(__file__).with_name("labelled_pairs.ndjson")
_AROUND = Path(__file__).with_name("names_around_pairs.txt")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two entity ids, and whether both are one thing."""

    left: str
    right: str
    same: bool


def read_pairs() -> list[Pair]:
    """All labelled pairs."""
    rows = (orjson.loads(line) for line in _PAIRS.read_bytes().splitlines())
    return [Pair(row["left"], row["right"], row["same"]) for row in rows]


def names_around() -> list[str]:
    """The names among which the pairs are resolved: what else there is decides whether a part is ambiguous."""
    return _AROUND.read_text().splitlines()


def measure(pairs: Sequence[Pair], likeness: Likeness | None = None) -> tuple[Score, list[Pair]]:
    """Pairwise precision and recall after clustering all names, and the pairs that are wrong."""
    together = joined(likeness)
    right = sum(pair.same and together(pair) for pair in pairs)
    score = Score(right, sum(map(together, pairs)), sum(pair.same for pair in pairs))
    return score, [pair for pair in pairs if pair.same != together(pair)]


def joined(likeness: Likeness | None = None) -> Callable[[Pair], bool]:
    """Whether the clusters hold both names of a pair."""
    clusters = cluster(names_around(), {}, likeness)
    return lambda pair: pair.right in clusters.of[pair.left]
