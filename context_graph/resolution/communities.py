"""Communities: entities that are mentioned together more than with others, and how central each is. Pure.

Two entities are tied by every event that mentions both; the ties are cut by the Leiden algorithm (Traag, Waltman and
van Eck 2019; modularity, fixed seed), centrality is PageRank over the same ties (damping 0.85), 1 in the sum. The same
mentions give the same communities, whatever order they come in. An event that mentions more than `_MOST_OF_AN_EVENT`
entities is a list, and ties none of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations

import graspologic_native
import rustworkx

_SEED = 1
_ITERATIONS = 4
_SMALLEST = 3  # entities of a community
_MOST_OF_AN_EVENT = 20


@dataclass(frozen=True, slots=True)
class Member:
    """An entity of a community, its centrality in the whole graph, and how many events mention it with another one."""

    entity_id: str
    centrality: float
    events: int


@dataclass(frozen=True, slots=True)
class Community:
    """Entities, the most central first. The id follows from the first one, which is in no other community.

    `event_ids`: events that mention at least two of them, in the order of their ids.
    """

    id: str
    members: tuple[Member, ...]
    event_ids: tuple[str, ...]


def communities(mentions: Mapping[str, Sequence[str]]) -> tuple[Community, ...]:
    """The communities among entities, largest first, ties by id. `mentions`: entity id to ids of its events."""
    together = _together(mentions)
    ties: Counter[tuple[str, str]] = Counter()
    for names in together.values():
        ties.update(combinations(names, 2))
    if not ties:
        return ()
    edges = [(left, right, float(count)) for (left, right), count in sorted(ties.items())]
    _, of = graspologic_native.leiden(edges, iterations=_ITERATIONS, seed=_SEED)
    central = _centrality(edges)
    groups: dict[int, set[str]] = {}
    for name, number in of.items():
        groups.setdefault(number, set()).add(name)
    found = [_community(group, central, together) for group in groups.values() if len(group) >= _SMALLEST]
    return tuple(sorted(found, key=lambda one: (-len(one.members), one.id)))


def _together(mentions: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Event id to the entities that it mentions, of events that mention several."""
    found: dict[str, list[str]] = {}
    for name in sorted(mentions):
        for event_id in mentions[name]:
            found.setdefault(event_id, []).append(name)
    return {event_id: names for event_id, names in sorted(found.items()) if 1 < len(names) <= _MOST_OF_AN_EVENT}


def _centrality(edges: Sequence[tuple[str, str, float]]) -> dict[str, float]:
    names = sorted({name for left, right, _ in edges for name in (left, right)})
    numbers = {name: number for number, name in enumerate(names)}
    graph: rustworkx.PyGraph[str, float] = rustworkx.PyGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from([(numbers[left], numbers[right], weight) for left, right, weight in edges])
    ranks = rustworkx.pagerank(graph.to_directed(), weight_fn=float)
    return {name: round(ranks[number], 6) for name, number in numbers.items()}


def _community(group: set[str], central: Mapping[str, float], together: Mapping[str, Sequence[str]]) -> Community:
    shared = {event_id: inside for event_id, names in together.items() if len(inside := group.intersection(names)) > 1}
    counts = Counter(name for inside in shared.values() for name in inside)
    members = [Member(name, central[name], counts[name]) for name in group]
    members.sort(key=lambda member: (-member.centrality, member.entity_id))
    digest = blake2b(members[0].entity_id.encode(), digest_size=8).hexdigest()
    return Community(f"community-{digest}", tuple(members), tuple(sorted(shared)))
