"""Clusters of names that are one thing: a function of the set of names and of what was decided about them.

Pairs with evidence are joined, the surest first, ties by id, unless that would put together two names that somebody
has told apart. A part (a file's bare name, a day without its year) that fits two names which are not each other's is
nobody's part; what it fits is told as candidates until somebody decides. Nothing depends on the order in which names
or decisions came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import combinations

from context_graph.domain.entity_names import blocks, split_id
from context_graph.domain.position import Position
from context_graph.resolution.evidence import Evidence, Likeness, evidence

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was said last about a pair: that both are one thing, or that they are not; by which event."""

    same: bool
    event_id: str
    note: str | None = None
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A SAME_AS edge: two names, and why they are one thing; `decided`: the position of the event that says so."""

    left: str
    right: str
    evidence: Evidence
    decided: Position | None = None


@dataclass(frozen=True, slots=True)
class Clusters:
    """`of`: name to the names of its cluster, in order; `links`: the pairs that hold clusters together; `candidates`:
    pairs of a part and a name that it fits, of parts that fit several and belong to none of them.

    `complete`: whether what names mean was looked at, too, where only that could join them.
    """

    of: Mapping[str, tuple[str, ...]]
    links: tuple[Link, ...] = field(default=())
    candidates: tuple[Link, ...] = field(default=())
    complete: bool = True


def pair_of(left: str, right: str) -> Pair:
    """Two ids in order."""
    return (left, right) if left <= right else (right, left)


def cluster(names: Iterable[str], decisions: Mapping[Pair, Decision], likeness: Likeness | None = None) -> Clusters:
    """The clusters of these entity ids."""
    known = sorted(set(names))
    found, ambiguous = _found(known, likeness)
    links = {**found, **_decided(known, decisions)}
    apart = {pair for pair, decision in decisions.items() if not decision.same}
    groups = {name: {name} for name in known}
    kept: list[Link] = []
    for (left, right), reason in sorted(links.items(), key=lambda item: (-item[1].confidence, item[0])):
        if (left, right) in apart:
            continue
        first, second = groups[left], groups[right]
        if first is not second:
            if any(pair_of(one, other) in apart for one in first for other in second):
                continue
            first |= second
            for name in second:
                groups[name] = first
        said = decisions.get((left, right))
        kept.append(Link(left, right, reason, None if said is None else said.position))
    of = {name: tuple(sorted(group)) for name, group in groups.items()}
    return Clusters(of, tuple(kept), _candidates(ambiguous, of, apart))


def _candidates(
    ambiguous: Mapping[Pair, Evidence], of: Mapping[str, tuple[str, ...]], apart: AbstractSet[Pair]
) -> tuple[Link, ...]:
    """Without what somebody has told apart, and without the parts that belong to a name that they fit after all."""
    settled = {reason.short for (left, right), reason in ambiguous.items() if left in of[right]}
    return tuple(
        Link(left, right, reason)
        for (left, right), reason in sorted(ambiguous.items(), key=lambda item: item[0])
        if reason.short not in settled and (left, right) not in apart
    )


def _decided(known: list[str], decisions: Mapping[Pair, Decision]) -> dict[Pair, Evidence]:
    there = set(known)
    return {
        pair: Evidence("decided", 1.0, f"decided by event {decision.event_id}")
        for pair, decision in decisions.items()
        if decision.same and there.issuperset(pair)
    }


def may_mean(names: Iterable[str]) -> set[str]:
    """Normal forms of those among these ids that only their meaning could join."""
    asked: set[str] = set()

    def ask(left: str, right: str) -> None:
        asked.update((left, right))

    for left, right in sharing(names):
        evidence(left, right, ask)
    return asked


def sharing(names: Iterable[str]) -> Iterator[Pair]:
    """Pairs of these ids that share a block, each once."""
    by_block: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        for block in blocks(*split_id(name)):
            by_block.setdefault(block, []).append(name)
    tried: set[Pair] = set()
    for members in by_block.values():
        for pair in combinations(members, 2):
            if pair not in tried:
                tried.add(pair)
                yield pair


def _found(known: list[str], likeness: Likeness | None) -> tuple[dict[Pair, Evidence], dict[Pair, Evidence]]:
    """The evidence of every pair that shares a block; that of ambiguous parts beside it."""
    reasons = ((pair, evidence(*pair, likeness)) for pair in sharing(known))
    found = {pair: reason for pair, reason in reasons if reason is not None}
    wholes: dict[str, list[str]] = {}
    for (left, right), reason in found.items():
        if reason.short is not None:
            wholes.setdefault(reason.short, []).append(right if reason.short == left else left)
    ambiguous = {
        short
        for short, fits in wholes.items()
        if any(pair_of(one, other) not in found for one, other in combinations(fits, 2))
    }
    sure = {pair: reason for pair, reason in found.items() if reason.short not in ambiguous}
    return sure, {pair: reason for pair, reason in found.items() if reason.short in ambiguous}
