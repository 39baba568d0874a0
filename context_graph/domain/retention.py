"""How long an event stays in the graph: its value, its tier, and the policy that a tenant sets. Pure.

An event's value is what speaks for keeping it, 0 to 1: how well it would be remembered (`scoring.strength`: recency,
slowed by use), how important it is, and how often it helped. A use is feedback that it helped, or being cited by the
newest summary of its session; being returned is none.

Tiers go by age and value together: hot while it is young; warm while it is younger than `warm_days` or worth keeping;
cold then; and due when it is also older than `forget_after_days`. What is due is forgotten by episodes: one event that
is not due keeps its episode. Of a forgotten episode the events that say most stay (`keep_share`), in bounded number
(`keep_most`): they are what a question about old times finds, and lead to the summary and to recall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from context_graph.domain.scoring import strength

Tier = Literal["hot", "warm", "cold", "due"]
TIERS: tuple[Tier, ...] = ("hot", "warm", "cold", "due")
DAY_MS = 86_400_000

# What makes up a value. With these an old event of importance 8 (a decision, a handover, an error) reaches 0.31, one of
# 5 (a message) 0.18; feedback that it helped adds 0.1 at once and 0.2 in the end.
_RECENCY, _IMPORTANCE, _USE = 0.4, 0.4, 0.2
_STEP = 0.9  # what is left of the share that stays, each time that too many would


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgettingPolicy:
    """A tenant's policy. `version` counts its changes, 0 for the one that nobody set: nothing is forgotten by it."""

    enabled: bool = False
    hot_days: float = 14.0
    warm_days: float = 60.0
    forget_after_days: float = 90.0
    keep_value: float = 0.4
    """Value from which an event is never due."""
    protect_hops: int = 2
    """Steps of causes or effects to a pinned or hot event within which an event is kept."""
    max_events_per_run: int = 5000
    keep_share: float = 0.4
    """Of a forgotten episode, the share of its events that stays: those that say most."""
    keep_most: int = 20_000
    """Events of a partition that may stay so: when there would be more, the share falls, for all alike."""
    keep_summaries: int = 10_000
    """Summaries of forgotten sessions that a partition's index holds: of more, the least valuable leave it."""
    version: int = 0

    def tier(self, age_ms: int, value: float) -> Tier:
        """`age_ms`: since it occurred, or since it was last recalled."""
        age = age_ms / DAY_MS
        if age < self.hot_days:
            return "hot"
        if age < self.warm_days or value >= self.keep_value:
            return "warm"
        return "cold" if age < self.forget_after_days else "due"

    def share(self, old: int) -> float:
        """The share that stays when `old` events of a partition are past forgetting, in steps of a tenth of itself.

        Steps, so that the sessions that were forgotten already are cut again now and then, not at every pass.
        """
        if self.keep_share * old <= self.keep_most:
            return self.keep_share
        if not self.keep_most:
            return 0.0
        steps = math.ceil(math.log(self.keep_share * old / self.keep_most) / -math.log(_STEP) - 1e-9)
        return self.keep_share * float(_STEP**steps)

    def next_change(self, since_ms: int, now_ms: int) -> int | None:
        """When the tier of something of that age changes next by age alone, ms UTC; None when it does not any more."""
        days = sorted((self.hot_days, self.warm_days, self.forget_after_days))
        borders = (since_ms + int(number * DAY_MS) for number in days)
        return next((border for border in borders if border > now_ms), None)


def value_of(age_ms: int, importance: int, uses: int) -> float:
    """0 to 1; less with age, more with importance (1-10) and uses."""
    helped = max(uses, 0)
    recency = strength(age_ms / 3_600_000, uses)
    return _RECENCY * recency + _IMPORTANCE * (importance - 1) / 9 + _USE * (1 - 1 / (1 + helped))
