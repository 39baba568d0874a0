"""What the threshold of SIMILAR_TO lets through: `python -m tests.quality.links`, JSON out, a table to stderr.

On the development conversations. Turns of different sessions that people named as the evidence of one question speak of
the same thing; any other pair of turns of the same conversation mostly does not. For each threshold: how many of both
kinds are linked, by how much the first are likelier (lift), links of a turn, and turns that have any.
"""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from context_graph.models.opening import open_embedder
from context_graph.settings import EmbeddingSettings
from tests.quality.sets import SETS, Conversation

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
Numbers = dict[str, float]


def together(conversation: Conversation) -> set[tuple[int, int]]:
    """Pairs of turns of different sessions that are evidence of one question."""
    sessions = [turn.session for turn in conversation.turns]
    pairs = (pair for question in conversation.questions for pair in combinations(sorted(question.evidence), 2))
    return {(one, other) for one, other in pairs if sessions[one] != sessions[other]}


def counted(cosines: NDArray[np.float32], same: set[tuple[int, int]], threshold: float) -> NDArray[np.float64]:
    """Linked and all pairs of one thing, linked and all others, links of turns, turns with any, turns."""
    near = np.triu(cosines >= threshold, 1)
    linked = sum(bool(near[pair]) for pair in same)
    links, turns = int(near.sum()), len(cosines)
    with_any = int((near | near.T).any(axis=1).sum())
    others = turns * (turns - 1) // 2 - len(same)
    return np.array([linked, len(same), links - linked, others, 2 * links, with_any, turns], dtype=np.float64)


def shares(counts: NDArray[np.float64]) -> Numbers:
    """What the counts come to."""
    linked, same, wrong, others, links, with_any, turns = counts.tolist()
    found, chance = linked / same, wrong / others
    return {
        "same": round(found, 4), "other": round(chance, 5), "lift": round(found / chance, 1) if chance else 0.0,
        "links_per_turn": round(links / turns, 2), "turns_with_links": round(with_any / turns, 3), "pairs": same,
    }  # fmt: skip


async def measure() -> dict[str, dict[str, Numbers]]:
    """By set and threshold."""
    found: dict[str, dict[str, Numbers]] = {}
    with TemporaryDirectory() as folder:
        async with open_embedder(EmbeddingSettings(), Path(folder)) as embedder:
            path, read = SETS["locomo"]
            counts = {threshold: np.zeros(7) for threshold in THRESHOLDS}
            for conversation in read() if path.exists() else ():
                vectors = await embedder.embed([turn.text for turn in conversation.turns])
                for threshold in THRESHOLDS:
                    counts[threshold] += counted(vectors @ vectors.T, together(conversation), threshold)
            found["locomo"] = {str(one): shares(count) for one, count in counts.items() if count[1]}
    return found


def main() -> None:
    """Print both."""
    found = asyncio.run(measure())
    for name, rows in found.items():
        for threshold, numbers in rows.items():
            sys.stderr.write(f"{name} {threshold}: {numbers}\n")
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
