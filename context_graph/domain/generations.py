"""Generations of what is derived: which one is read, which are fed, what each is made by, and how they change places.

A tenant has one live generation; its number is in every derived key. A rebuild fills another one from position 0 beside
it. The generation that was live before a switch goes on being fed, so that the way back costs one step and no event;
it goes when it is dropped. One table per tenant, not per partition: a query is embedded once for all buckets, so all
of them have to be of one model, and the switch of a tenant is one atomic write.

Pure: every change is a function from table to table that raises when it is not allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from context_graph.domain.event import JsonValue
from context_graph.errors import AlreadyExists, NotNow, UnknownThing

RebuildState = Literal["building", "comparing", "ready", "promoted", "rolled back", "dropped", "failed"]
Promotion = Literal["never", "when equal", "always"]
_REMEMBERED = 20  # rebuilds that a table lists
FIRST = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a generation is made by: the versions of fold, text rules and index, and the models.

    `model_id` is that of the very files (empty until a worker has loaded them); `model_path` the folder they are in,
    None for the packaged model or the hub. `provider`, `url`: of a model that is somewhere else; "": what the settings
    name. No secret is kept here: a server's key comes from the settings.
    """

    fold: int
    text: int
    index: int
    model: str
    dimensions: int
    model_path: str | None = None
    model_id: str = ""
    provider: str = ""
    url: str | None = None
    recogniser: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """A generation on its way: from the first event to its place as the live one. Times in ms UTC.

    `events`: in the ledger when it began; `waits_for`: what keeps it from being compared, where that is no mere work.
    """

    id: str
    number: int
    state: RebuildState
    promotion: Promotion
    started_at: int
    events: int
    built_at: int | None = None
    switched_at: int | None = None
    comparison: Mapping[str, JsonValue] | None = None
    problem: str | None = None
    waits_for: str | None = None

    @property
    def runs(self) -> bool:
        """Whether workers still have something to do for it."""
        return self.state in ("building", "comparing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The generations of a tenant. `dropping`: those whose keys are being removed. `last`: the highest number given."""

    live: int = FIRST
    previous: int | None = None
    building: int | None = None
    dropping: tuple[int, ...] = ()
    last: int = FIRST
    switched_at: int = 0
    recipes: Mapping[int, Recipe] = field(default_factory=dict)
    rebuilds: tuple[Rebuild, ...] = ()
    erasures: int = 0
    """Finished since the beginning: a report that quotes what was read before one of them must not be kept whole."""

    @property
    def fed(self) -> tuple[int, ...]:
        """Numbers of the generations that follow the ledger, the live one first."""
        return tuple(number for number in (self.live, self.previous, self.building) if number is not None)

    @property
    def all(self) -> tuple[int, ...]:
        """Numbers of all generations that may have keys."""
        return (*self.fed, *self.dropping)

    def rebuild(self, rebuild_id: str) -> Rebuild:
        """Raises UnknownThing."""
        for known in self.rebuilds:
            if known.id == rebuild_id:
                return known
        raise UnknownThing("rebuild", rebuild_id)

    @property
    def running(self) -> Rebuild | None:
        """The rebuild of the generation that is being built, ready ones included."""
        return next((known for known in self.rebuilds if known.number == self.building), None)

    def begin(self, rebuild_id: str, recipe: Recipe, promotion: Promotion, *, events: int, now: int) -> Table:
        """A new generation beside the live one. Raises AlreadyExists while there is one already."""
        if self.running is not None:
            raise AlreadyExists(
                f"the rebuild {self.running.id!r} is {self.running.state}: promote it or drop it before another begins"
            )
        number = self.last + 1
        rebuild = Rebuild(
            id=rebuild_id, number=number, state="building", promotion=promotion, started_at=now, events=events
        )
        kept = tuple(known for known in self.rebuilds if known.number in self.all)
        others = tuple(known for known in self.rebuilds if known.number not in self.all)
        return replace(
            self,
            building=number,
            last=number,
            recipes={**self.recipes, number: recipe},
            rebuilds=(rebuild, *kept, *others[: _REMEMBERED - len(kept)]),
        )

    def update(self, rebuild: Rebuild) -> Table:
        """The same with what is known of a rebuild replaced."""
        known = tuple(rebuild if each.id == rebuild.id else each for each in self.rebuilds)
        return replace(self, rebuilds=known)

    def promote(self, rebuild_id: str, now: int) -> Table:
        """The built generation becomes the live one; what was live goes on being fed as the previous one.

        Raises NotNow before it is built and compared; a rebuild that is live already stays so, one that was rolled back
        comes back.
        """
        rebuild = self.rebuild(rebuild_id)
        if rebuild.number == self.live:
            return self
        if rebuild.number == self.previous:
            table = replace(self, live=rebuild.number, previous=self.live, switched_at=now)
            return table.update(replace(rebuild, state="promoted", switched_at=now))
        if rebuild.number != self.building or rebuild.state != "ready":
            raise NotNow(f"the rebuild {rebuild_id!r} is {rebuild.state}: only one that is ready can be promoted")
        dropping = self.dropping if self.previous is None else (*self.dropping, self.previous)
        table = replace(
            self, live=rebuild.number, previous=self.live, building=None, dropping=dropping, switched_at=now
        )
        return table.update(replace(rebuild, state="promoted", switched_at=now))

    def roll_back(self, rebuild_id: str, now: int) -> Table:
        """The previous generation becomes the live one again; the rebuilt one goes on being fed in its place.

        Raises NotNow when that rebuild is not live or the previous generation is gone.
        """
        rebuild = self.rebuild(rebuild_id)
        if rebuild.number != self.live:
            raise NotNow(f"the rebuild {rebuild_id!r} is {rebuild.state}, not live: there is nothing to roll back")
        if self.previous is None:
            raise NotNow("the generation that was live before has been dropped: rebuild again to go back")
        table = replace(self, live=self.previous, previous=self.live, switched_at=now)
        before = next((known for known in self.rebuilds if known.number == self.previous), None)
        if before is not None:
            table = table.update(replace(before, state="promoted", switched_at=now))
        return table.update(replace(rebuild, state="rolled back", switched_at=now))

    def drop(self, number: int) -> Table:
        """A generation that is not live is on its way out. Raises NotNow for the live one, UnknownThing for no one."""
        if number == self.live:
            raise NotNow(f"generation {number} is live: promote another one, or roll back, before it is dropped")
        if number not in self.all:
            raise UnknownThing("generation", str(number))
        if number in self.dropping:
            return self
        table = replace(
            self,
            previous=None if number == self.previous else self.previous,
            building=None if number == self.building else self.building,
            dropping=(*self.dropping, number),
        )
        rebuild = next((known for known in self.rebuilds if known.number == number), None)
        return table if rebuild is None else table.update(replace(rebuild, state="dropped"))

    def fail(self, number: int, problem: str) -> Table:
        """The generation that is being built cannot be: it goes, and its rebuild says why."""
        rebuild = self.running
        if rebuild is None or rebuild.number != number:
            return self
        return self.drop(number).update(replace(rebuild, state="failed", problem=problem))

    def unquoted(self) -> Table:
        """An erasure is done: what reports quoted of facts that differ is gone from them."""
        reports = tuple(replace(each, comparison=without_quotes(each.comparison)) for each in self.rebuilds)
        return replace(self, rebuilds=reports, erasures=self.erasures + 1)

    def dropped(self, number: int) -> Table:
        """Nothing of it is left."""
        recipes = {known: recipe for known, recipe in self.recipes.items() if known != number}
        return replace(self, dropping=tuple(each for each in self.dropping if each != number), recipes=recipes)

    def named(self, number: int, recipe: Recipe) -> Table:
        """What a generation is made by, as the worker that makes it says."""
        return replace(self, recipes={**self.recipes, number: recipe})


def without_quotes(comparison: Mapping[str, JsonValue] | None) -> Mapping[str, JsonValue] | None:
    """A report with its numbers alone: the facts that it shows hold names and texts."""
    return None if comparison is None else {**comparison, "differences": []}


def without_secrets(url: str | None) -> str | None:
    """An address without user, password and query, as a recipe may hold it."""
    if url is None:
        return None
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
