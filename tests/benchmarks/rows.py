"""Rows of the result, and the paired measurement they come from.

The machine is shared and its speed drifts, so product and floor are measured in turns (A B A B …) and compared pair by
pair: drift that is slower than a pair cancels. A row's ratio is the median of its pairs' ratios; the smallest and the
largest say how far to trust it.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from math import isnan
from statistics import median
from typing import Literal

Note = str | int | float | bool | None | dict[str, float]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for. `events` overrides a row's own number of events."""

    events: int | None = None
    quick: bool = False

    @property
    def pairs(self) -> int:
        """How often product and floor are measured in turns."""
        return 2 if self.quick else 5

    def sized(self, usual: int, quick: int) -> int:
        """The number of events of a row: the one asked for, else the row's usual or quick one."""
        return self.events if self.events is not None else quick if self.quick else usual


@dataclass(frozen=True, slots=True)
class Target:
    """A number and the side of it on which a row is to lie."""

    bound: float
    side: Literal["at least", "at most"]

    def __str__(self) -> str:
        return f"{'>=' if self.side == 'at least' else '<='} {self.bound:g}"

    def met_by(self, number: float) -> bool:
        return number >= self.bound if self.side == "at least" else number <= self.bound


@dataclass(frozen=True, slots=True)
class Row:
    """A result. `value` and `floor` are medians in `unit`; `target` is about `ratio` where there is one."""

    name: str
    value: float
    unit: str
    floor: float | None
    ratio: float | None
    target: str
    met: bool
    samples: dict[str, list[float]]
    notes: dict[str, Note] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Ready for JSON; numbers to five significant digits."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


@dataclass(slots=True)
class Pairs:
    """Measurements of product and floor in turns, in one unit."""

    product: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [mine / beside for mine, beside in zip(self.product, self.floor, strict=True)]

    def row(self, name: str, unit: str, target: Target, **notes: Note) -> Row:
        """The row whose target is about the ratio of product to floor."""
        ratio = median(self.ratios)
        spread = {"ratio_min": min(self.ratios), "ratio_max": max(self.ratios)}
        samples = {"value": self.product, "floor": self.floor, "ratio": self.ratios}
        return Row(
            name=name,
            value=median(self.product),
            unit=unit,
            floor=median(self.floor),
            ratio=ratio,
            target=f"ratio {target}",
            met=target.met_by(ratio),
            samples=samples,
            notes={**spread, **notes},
        )


async def in_turns(
    pairs: int, product: Callable[[int], Awaitable[float]], floor: Callable[[int], Awaitable[float]]
) -> Pairs:
    """Measure `pairs` times each, in turns; each is given the number of its turn. Which goes first alternates."""
    found = Pairs()
    for turn in range(pairs):
        if turn % 2:
            found.floor.append(await floor(turn))
            found.product.append(await product(turn))
        else:
            found.product.append(await product(turn))
            found.floor.append(await floor(turn))
        sys.stderr.write(f"  pair {turn + 1}: {found.product[-1]:,.1f} beside {found.floor[-1]:,.1f}\n")
    return found


def percentile(values: list[float], share: float) -> float:
    """The nearest-rank percentile; `share` 0..1. NaN of nothing."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return None if isnan(value) else float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
