"""Packing: which items fit the budget, exactly. Pure.

Items are taken by what they are worth for their price, each section up to the least it is promised; what is left over
then goes to the best of the rest, no section beyond its most. Items of one bond (a tool call and its result) go in
together or not at all. An item that does not fit is skipped, not the end. The prices of single items only guide: what
is promised is counted on the whole content, and while that is too much the least valuable bond is taken out again.

Worth is the score by the price: a score is a chance, so this order packs the most evidence for a budget (the greedy
answer to the knapsack, Dantzig 1957).
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from context_graph.retrieval.items import SECTIONS, Item, Section, Share
from context_graph.retrieval.render import Format

Counter = Callable[[str], int]
_FILL_TRIES = 4  # exact counts spent on the last few tokens
_CHARACTERS_A_TOKEN = 4
_LINE_TOKENS = 6  # citation, speaker and end of a line
_SURELY_OVER = 2.0  # an estimate so many times the room is not counted: no text has so few tokens for its characters


class Dropped(NamedTuple):
    """An item left out, with the reason (`budget`, `duplicate`) and what it would have cost, about."""

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
    late: bool = False
    """Whether time was over before everything had been looked at."""


class _Bond(NamedTuple):
    """Items that go together; `worth` orders the bonds, `about` is their price, estimated."""

    name: str
    items: tuple[Item, ...]
    worth: float
    about: int
    section: Section


class _Prices:
    """Tokens of single items, counted when first asked for: most items of a large pool are never looked at."""

    def __init__(self, shape: Format, count: Counter) -> None:
        self._shape = shape
        self._count = count
        self._known: dict[str, int] = {}
        self._shared: dict[str, dict[str, int]] = {}

    def of(self, item: Item) -> int:
        price = self._known.get(item.id)
        if price is None:
            price = self._known[item.id] = self._count(self._shape.alone(item))
        return price

    def shared(self, item: Item) -> dict[str, int]:
        """What the item shares with its like, by name, and what it costs."""
        costs = self._shared.get(item.id)
        if costs is None:
            costs = self._shared[item.id] = {name: self._count(text) for name, text in self._shape.shared(item)}
        return costs

    def about(self, item: Item) -> int:
        """The price, estimated while nobody has counted it."""
        return self._known.get(item.id, estimated(item))


def pack(
    items: Sequence[Item],
    *,
    limit: int,
    shares: Mapping[Section, Share],
    shape: Format,
    count: Counter,
    late: Callable[[], bool] = lambda: False,
) -> Packed:
    """The best items whose rendered content has at most `limit` tokens. `items` in any order, ranks decide.

    Once it is `late`, no more is taken.
    """
    unique, duplicates = _fold(sorted(items, key=lambda item: item.rank))
    prices = _Prices(shape, count)
    bonds = _bonds(unique)
    taken = _by_price(bonds, limit, shares, prices, late)

    def exactly(chosen: Sequence[_Bond]) -> int:
        return _count_exactly(chosen, shape, count)

    used = exactly(taken)
    while used > limit:
        taken.remove(min(taken, key=lambda bond: (bond.section == "pinned", bond.worth)))
        used = exactly(taken)
    cut = late()
    if not cut:
        taken, used = _fill(
            taken, used, [b for b in bonds if shares.get(b.section, Share(0)).most >= 1], limit, exactly
        )
    chosen = _reading_order(taken)
    kept = {item.id for item in chosen}
    dropped = [Dropped(item.id, "budget", prices.about(item)) for item in unique if item.id not in kept]
    dropped += [Dropped(item.id, "duplicate", 0) for item in duplicates]
    by_section = {section: sum(prices.of(i) for i in chosen if i.section == section) for section in SECTIONS}
    return Packed(tuple(chosen), tuple(prices.of(item) for item in chosen), used, by_section, tuple(dropped), cut)


def estimated(item: Item) -> int:
    """Tokens of an item without counting them."""
    return _LINE_TOKENS + len(item.text) // _CHARACTERS_A_TOKEN


def _by_price(
    bonds: Sequence[_Bond],
    limit: int,
    shares: Mapping[Section, Share],
    prices: _Prices,
    late: Callable[[], bool],
) -> list[_Bond]:
    """First what fits each section's least share, then what fits its most; worthiest first; until it is late.

    What is pinned has its least share before all others, or it would have none: it is worth little by itself.
    """
    taken: dict[str, _Bond] = {}
    paid: set[str] = set()
    spent = dict.fromkeys(SECTIONS, 0)
    left = limit
    for bound in ("least", "most"):
        caps = {section: int(limit * getattr(shares.get(section, Share(0.0)), bound)) for section in SECTIONS}
        pinned_first = sorted(bonds, key=lambda bond: bond.section != "pinned") if bound == "least" else bonds
        for bond in pinned_first:
            room = min(left, caps[bond.section] - spent[bond.section])
            if bond.about > room * _SURELY_OVER or bond.name in taken:
                continue
            if late():
                break
            shared = {name: cost for item in bond.items for name, cost in prices.shared(item).items()}
            new = {name: cost for name, cost in shared.items() if name not in paid}
            price = sum(prices.of(item) for item in bond.items) + sum(new.values())
            if price <= room:
                taken[bond.name] = bond
                spent[bond.section] += price
                left -= price
                paid |= set(new)
    return list(taken.values())


def _fill(
    taken: list[_Bond], used: int, bonds: Sequence[_Bond], limit: int, count: Callable[[Sequence[_Bond]], int]
) -> tuple[list[_Bond], int]:
    """Single prices err a little on the high side: what they left unused is offered to the best of the rest."""
    names = {bond.name for bond in taken}
    tries = _FILL_TRIES
    for bond in bonds:
        if bond.about <= limit - used and tries > 0 and bond.name not in names:
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
            kept[place] = kept[place]._replace(folded=(*kept[place].folded, *item.event_ids))
            duplicates.append(item)
    return kept, duplicates


def _bonds(items: Sequence[Item]) -> list[_Bond]:
    """Worthiest first; of equals the better rank. `items` by rank."""
    by_bond: dict[str, list[Item]] = {}
    for item in items:
        by_bond.setdefault(item.bond, []).append(item)
    bonds = []
    for name, group in by_bond.items():
        first, about = group[0], sum(map(estimated, group))
        worth = (first.score if len(group) == 1 else max(item.score for item in group)) / about
        bonds.append((-worth, first.rank, _Bond(name, tuple(group), worth, about, first.section)))
    return [bond for _, _, bond in sorted(bonds, key=itemgetter(0, 1))]


def _reading_order(taken: Sequence[_Bond]) -> list[Item]:
    """By section, then by time; ties by position."""
    items = [item for bond in taken for item in bond.items]
    items.sort(key=lambda i: (SECTIONS.index(i.section), i.document.occurred_at, i.document.position, i.id))
    return [item for _, group in groupby(items, key=lambda i: i.id) for item in list(group)[:1]]


def _count_exactly(taken: Sequence[_Bond], shape: Format, count: Counter) -> int:
    text = shape.counted(_reading_order(taken))
    return count(text) if text else 0
