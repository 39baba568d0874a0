"""Which events of a session say most: `python -m tests.quality.telling`.

Of LoCoMo's development half, the share of the turns that answer a question among the best 20 and 40 % of each session:
by the coverage that forgetting uses (`telling.py`), by length, drawn at random, by centrality (PageRank over the turns
of the session, tied by the weight of the stems that they share), and by coverage times centrality to a power.
"""

from __future__ import annotations

import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import rustworkx as rx

from enrichment.reconsolidation.telling import most_telling, stated
from tests.quality.long_life import sessions_of
from tests.quality.sets import locomo

_AGAIN = 0.5


def by_length(texts: Sequence[str], count: int) -> list[int]:
    """The longest."""
    return sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i))[:count]


def at_random(texts: Sequence[str], count: int) -> list[int]:
    """Any, the same ones each time."""
    return random.Random(texts[0]).sample(range(len(texts)), count)


def by_centrality(texts: Sequence[str], count: int) -> list[int]:
    """The most central."""
    ranks = _ranks(texts)
    return sorted(range(len(texts)), key=lambda i: (-ranks[i], i))[:count]


def mixed(power: float, texts: Sequence[str], count: int) -> list[int]:
    """Coverage with diminishing returns, each turn's worth times its centrality to a power."""
    held, weights, ranks = [stated(text) for text in texts], _weights(texts), _ranks(texts)
    covered: Counter[str] = Counter()
    left, taken = list(range(len(texts))), list[int]()

    def worth(i: int) -> tuple[float, int]:
        return math.fsum(weights[s] * _AGAIN ** covered[s] for s in held[i]) * ranks[i] ** power, -i

    while left and len(taken) < count:
        best = max(left, key=worth)
        left.remove(best)
        taken.append(best)
        covered.update(held[best])
    return taken


def _weights(texts: Sequence[str]) -> dict[str, float]:
    holders = Counter(stem for text in texts for stem in stated(text))
    return {stem: math.log((len(texts) + 1) / count) for stem, count in holders.items()}


def _ranks(texts: Sequence[str]) -> dict[int, float]:
    held, weights = [stated(text) for text in texts], _weights(texts)
    graph: rx.PyDiGraph[int, float] = rx.PyDiGraph()
    graph.add_nodes_from(list(range(len(texts))))
    for one in range(len(texts)):
        for other in range(len(texts)):
            shared = math.fsum(weights[stem] for stem in held[one] & held[other])
            if one != other and shared > 0:
                graph.add_edge(one, other, shared)
    return dict(rx.pagerank(graph, weight_fn=float))


WAYS: Mapping[str, Callable[[Sequence[str], int], list[int]]] = {
    "coverage": most_telling,
    "length": by_length,
    "random": at_random,
    "centrality": by_centrality,
    "coverage x centrality^0.25": partial(mixed, 0.25),
    "coverage x centrality": partial(mixed, 1.0),
}


def held(share: float) -> dict[str, float]:
    """By each way, the share of the answering turns among the best `share` of each session."""
    conversations = locomo()
    asked = Counter((c.name, c.turns[place].id) for c in conversations for q in c.questions for place in q.evidence)
    hits: Counter[str] = Counter()
    for conversation, turns in sessions_of(conversations):
        texts = [turn.text for turn in turns]
        for name, way in WAYS.items():
            chosen = way(texts, round(share * len(texts)))
            hits[name] += sum(asked[(conversation.name, turns[i].id)] for i in chosen)
    return {name: hits[name] / asked.total() for name in WAYS}


def main() -> None:
    """Print the table."""
    found = {share: held(share) for share in (0.2, 0.4)}
    for name in WAYS:
        shares = "  ".join(f"{found[share][name]:.3f} of {share:.0%}" for share in found)
        sys.stdout.write(f"{name:28} {shares}\n")


if __name__ == "__main__":
    main()
