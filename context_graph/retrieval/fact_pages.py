"""Facts and preferences as they are asked for: pages, last learned first, and one with its history.

What several sessions say alike comes once, where it was learned last, with the other sayings (up to 200).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from context_graph.domain.learned import FactKind, LearnedFact, Standing, merged, plain
from context_graph.domain.partition import Tenant
from context_graph.domain.places import moment_key
from context_graph.domain.position import Position
from context_graph.errors import UnknownThing
from context_graph.retrieval.request import AsOf
from context_graph.store.learned import LearnedFacts
from context_graph.store.learned_records import EVERYBODY

_MOST_SCANNED = 5000  # facts that one page looks at for its filters
_MOST_SAYINGS = 200  # of one statement
_HISTORY = 1000  # newest facts of the same person among which a history is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class FactQuery:
    """Which facts: all that are given must hold.

    `ended`: also those that hold no longer. `held_at`: those that held then (ms UTC), in place of those that hold.
    """

    user_id: str | None = None
    session_id: str | None = None
    subject: str | None = None
    predicate: str | None = None
    kind: FactKind | None = None
    ended: bool = False
    held_at: int | None = None
    as_of: AsOf | None = None

    @property
    def listed_by(self) -> tuple[str, str]:
        """The shortest list that all of them are on."""
        for of, identifier in (("user", self.user_id), ("session", self.session_id)):
            if identifier is not None:
                return of, identifier
        return ("subject", plain(self.subject)) if self.subject is not None else ("all", EVERYBODY)

    def holds(self, fact: LearnedFact) -> bool:
        """Whether a fact is asked for, wherever it stands."""
        return (
            self.user_id in (None, fact.user_id)
            and self.session_id in (None, fact.session_id)
            and (self.subject is None or plain(self.subject) == plain(fact.subject))
            and (self.predicate is None or plain(self.predicate) == plain(fact.predicate))
            and self.kind in (None, fact.kind)
        )

    def wants(self, standing: Standing) -> bool:
        """Whether a fact is asked for as it stands."""
        if self.held_at is not None:
            return standing.held_at(self.held_at)
        return self.ended or standing.current


@dataclass(frozen=True, slots=True)
class FactPage:
    """A page; `next`: where the one behind it begins. `scanned`: facts that were looked at."""

    facts: tuple[Standing, ...]
    next: Position | None
    scanned: int


class FactPages:
    """Reads the facts of any tenant."""

    def __init__(self, learned: LearnedFacts) -> None:
        self._learned = learned

    async def page(self, tenant: Tenant, query: FactQuery, limit: int, before: Position | None) -> FactPage:
        """The next page, newest first. One that had to look at too many facts is short, and says where to go on."""
        until = None if query.as_of is None else query.as_of.last
        found: list[Standing] = []
        scanned = 0
        while True:
            facts = await self._learned.listed(
                tenant.partitions, query.listed_by, limit + 1, before=before, until=until
            )
            asked = [fact for fact in facts[:limit] if query.holds(fact)]
            standing = {each.fact.id: each for each in await self._merged(tenant, query, asked)}
            for fact in facts[:limit]:
                before, scanned = fact.position, scanned + 1
                each = standing.get(fact.id)
                if each is not None and query.wants(each):
                    found.append(each)
                if len(found) == limit:
                    return FactPage(tuple(found), before if fact is not facts[-1] else None, scanned)
            if len(facts) <= limit:
                return FactPage(tuple(found), None, scanned)
            if scanned >= _MOST_SCANNED:
                return FactPage(tuple(found), before, scanned)

    async def _merged(self, tenant: Tenant, query: FactQuery, facts: Sequence[LearnedFact]) -> list[Standing]:
        """How the statements of these facts stand, each with every saying that is asked for."""
        until = None if query.as_of is None else query.as_of.last
        sayings = await self._learned.sayings(tenant.partitions, facts, _MOST_SAYINGS, until)
        standing = await self._learned.standing(tenant.partitions, sayings, until)
        return merged(each for each in standing if query.holds(each.fact))

    async def fact(self, tenant: Tenant, fact_id: str, as_of: AsOf | None) -> tuple[Standing, Sequence[Standing]]:
        """A fact, and its history: whatever it took the place of and whatever took its, oldest first, itself included.

        Raises UnknownThing when there is none (by then).
        """
        until = None if as_of is None else as_of.last
        fact = (await self._learned.facts(tenant.partitions, [fact_id])).get(fact_id)
        if fact is None or (until is not None and fact.position > until(fact.position.bucket)):
            raise UnknownThing("fact", fact_id)
        of = ("session", fact.session_id) if fact.user_id is None else ("user", fact.user_id)
        around = await self._learned.listed(tenant.partitions, of, _HISTORY, until=until)
        sayings = await self._learned.sayings(tenant.partitions, [fact], _MOST_SAYINGS, until)
        facts = {each.id: each for each in (*around, *sayings)}
        standing = merged(await self._learned.standing(tenant.partitions, list(facts.values()), until))
        return next(each for each in standing if fact_id in each.ids), _history(standing, fact_id)


def _history(standing: Sequence[Standing], fact_id: str) -> list[Standing]:
    """Those that are joined to a fact by one taking the place of another."""
    joined = {fact_id}
    while True:
        chained = [each.ids if each.ended is None else each.ids | {each.ended.new} for each in standing]
        more = set[str]().union(*(chain for chain in chained if chain & joined)) - joined
        if not more:
            break
        joined |= more
    mine = [each for each in standing if each.ids & joined]
    return sorted(mine, key=lambda each: (each.valid_from, moment_key(each.fact.position)))
