"""Packing: which items fit the budget, exactly. Pure.

Items are taken best first, each section up to its share; what is left over then goes to the best of the rest, whatever
their section. Items of one bond (a tool call and its result) go in together or not at all. An item that does not fit is
skipped, not the end. The prices of single items only guide: what is promised is counted on the whole content, and while
that is too much the least valuable bond is taken out again.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from context_graph.retrieval.items import SECTIONS, Item, Section
from context_graph.retrieval.render import Format

Counter = Callable[[str], int]
_FILL_TRIES = 8  # exact counts spent on the last few tokens


@dataclass(frozen=True, slots=True)
class Dropped:
    """An item left out, with the reason (`budget`, `duplicate`) and what it would have cost."""

    id: str
    reason: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Packed:
    """What is served: items in reading order with their prices, and the tokens of the whole content as counted."""

    items: tuple[Item, ...]
    tokens: tuple[int, ...]
    used: int
    by_section: Mapping[Section, int]
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class _Bond:
    name: str
    items: tuple[Item, ...]
    price: int
    score: float
    section: Section


def pack(
    items: Sequence[Item], *, limit: int, shares: Mapping[Section, float], shape: Format, count: Counter
) -> Packed:
    """The best items whose rendered content has at most `limit` tokens. `items` in any order, ranks decide."""
    unique, duplicates = _fold(sorted(items, key=lambda item: item.rank))
    prices = {item.id: count(shape.alone(item)) for item in unique}
    bonds = _bonds(unique, prices)
    taken = _by_price(bonds, limit, shares)
    used = _count_exactly(taken, shape, count)
    while used > limit:
        taken.remove(min(taken, key=lambda bond: bond.score))
        used = _count_exactly(taken, shape, count)
    taken, used = _fill(taken, used, bonds, limit, lambda chosen: _count_exactly(chosen, shape, count))
    chosen = _reading_order(taken)
    kept = {item.id for item in chosen}
    dropped = [Dropped(item.id, "budget", prices[item.id]) for item in unique if item.id not in kept]
    dropped += [Dropped(item.id, "duplicate", 0) for item in duplicates]
    by_section = {section: sum(prices[i.id] for i in chosen if i.section == section) for section in SECTIONS}
    return Packed(tuple(chosen), tuple(prices[item.id] for item in chosen), used, by_section, tuple(dropped))


def _by_price(bonds: Sequence[_Bond], limit: int, shares: Mapping[Section, float]) -> list[_Bond]:
    """First what fits each section's share, then what fits at all; best first."""
    taken: dict[str, _Bond] = {}
    spent = dict.fromkeys(SECTIONS, 0)
    for within_shares in (True, False):
        for bond in bonds:
            room = limit - sum(spent.values())
            if within_shares:
                room = min(room, int(limit * shares.get(bond.section, 0.0)) - spent[bond.section])
            if bond.name not in taken and bond.price <= room:
                taken[bond.name] = bond
                spent[bond.section] += bond.price
    return list(taken.values())


def _fill(
    taken: list[_Bond], used: int, bonds: Sequence[_Bond], limit: int, count: Callable[[Sequence[_Bond]], int]
) -> tuple[list[_Bond], int]:
    """Single prices err a little on the high side: what they left unused is offered to the best of the rest."""
    names = {bond.name for bond in taken}
    tries = _FILL_TRIES
    for bond in bonds:
        if bond.name not in names and bond.price <= limit - used and tries > 0:
            tries -= 1
            more = count([*taken, bond])
            if more <= limit:
                taken, used = [*taken, bond], more
    return taken, used


def _fold(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Word for word equal texts of one speaker told once, at the best rank, citing all of their events.

    What is bonded to others stays itself: its partners need it.
    """
    partners = Counts(item.bond for item in items)
    first: dict[tuple[str, str], int] = {}
    kept: list[Item] = []
    duplicates: list[Item] = []
    for item in items:
        key = (item.document.speaker, " ".join(item.text.split()))
        place = first.setdefault(key, len(kept))
        if place == len(kept) or partners[item.bond] > 1:
            kept.append(item)
        else:
            kept[place] = replace(kept[place], folded=(*kept[place].folded, *item.event_ids))
            duplicates.append(item)
    return kept, duplicates


def _bonds(items: Sequence[Item], prices: Mapping[str, int]) -> list[_Bond]:
    by_bond: dict[str, list[Item]] = {}
    for item in items:
        by_bond.setdefault(item.bond, []).append(item)
    bonds = [
        _Bond(
            name,
            tuple(group),
            price=sum(prices[item.id] for item in group),
            score=max(item.score for item in group),
            section=group[0].section,
        )
        for name, group in by_bond.items()
    ]
    return sorted(bonds, key=lambda bond: min(item.rank for item in bond.items))


def _reading_order(taken: Sequence[_Bond]) -> list[Item]:
    """By section, then by time; ties by position."""
    items = [item for bond in taken for item in bond.items]
    items.sort(key=lambda i: (SECTIONS.index(i.section), i.document.occurred_at, i.document.position, i.id))
    return [item for _, group in groupby(items, key=lambda i: i.id) for item in list(group)[:1]]


def _count_exactly(taken: Sequence[_Bond], shape: Format, count: Counter) -> int:
    text = shape.counted(_reading_order(taken))
    return count(text) if text else 0
