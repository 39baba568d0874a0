"""Rebuilds as callers know them: begin one, look how far it is, switch, go back, drop.

Everything here is one change of the tenant's table; the work is done by whatever workers run (`delivery/generations.py`
feeds, `projections/rebuild.py` compares, switches and clears away), so a caller may go and come back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ulid import ULID

from context_graph.domain.event import JsonValue, TenantId
from context_graph.domain.generations import Promotion, Rebuild, Recipe, Table, without_secrets
from context_graph.domain.partition import Tenant
from context_graph.domain.stages import STAGES, stages_of
from context_graph.errors import NotNow, UnknownThing
from context_graph.store.generations import GRACE_SECONDS, Generations
from context_graph.store.groups import Groups
from context_graph.store.ledger import Ledger

PROJECTIONS = ("all", *(stage.group for stage in STAGES))
"""What a rebuild may be asked for by. A generation is whole: whichever is named, graph, index and vectors are built."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Another embedding model for a new generation; what is None stays as it is."""

    name: str | None = None
    path: Path | None = None
    dimensions: int | None = None
    provider: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild is: events that every stage has finished, of how many; the slowest stage's rate."""

    done: int
    total: int
    lag: Mapping[str, int]
    events_per_second: float | None
    seconds_left: float | None

    @property
    def share(self) -> float:
        """0..1."""
        return 1.0 if self.total == 0 else self.done / self.total


@dataclass(frozen=True, slots=True)
class Rebuilds:
    """Rebuilds of any tenant. `now_ms`: the clock, ms UTC; `recipe`: what this code and these settings make."""

    generations: Generations
    ledger: Ledger
    groups: Groups
    recipe: Recipe
    now_ms: Callable[[], int]

    async def start(self, tenant: Tenant, promotion: Promotion, model: ModelChoice | None = None) -> Rebuild:
        """Begin a generation beside the live one. Raises AlreadyExists while one is being built or waits."""
        rebuild_id = f"rebuild-{ULID().to_uuid7(compliant=True)}"
        events = sum([await self.ledger.count(partition) for partition in tenant.partitions])
        recipe = _with(self.recipe, model)

        def begun(table: Table) -> Table:
            live = table.recipes.get(table.live)
            chosen = recipe
            if (
                model is None and live is not None
            ):  # the models stay those of the live generation until others are named
                chosen = replace(
                    recipe, model=live.model, model_path=live.model_path, dimensions=live.dimensions,
                    provider=live.provider, url=live.url,
                )  # fmt: skip
            return table.begin(rebuild_id, chosen, promotion, events=events, now=self.now_ms())

        table = await self.generations.change(tenant.name, begun)
        rebuild = table.rebuild(rebuild_id)
        await self.hold_the_ledger(tenant, rebuild.number)
        return rebuild

    async def hold_the_ledger(self, tenant: Tenant, number: int) -> None:
        """The generation's groups, at the first event: behind them nothing more is trimmed. Repeatable."""
        for partition in tenant.partitions:
            for stage in stages_of(number):
                await self.groups.ensure(partition, stage.group)

    async def get(self, tenant: TenantId, rebuild_id: str) -> tuple[Table, Rebuild]:
        """Raises UnknownThing."""
        table = await self.generations.read(tenant)
        return table, table.rebuild(rebuild_id)

    async def progress(self, tenant: Tenant, rebuild: Rebuild) -> Progress:
        """How far the workers are with it."""
        lag: dict[str, int] = {}
        total = 0
        for partition in tenant.partitions:
            total += await self.ledger.count(partition)
            for stage in stages_of(rebuild.number):
                state = await self.groups.state(partition, stage.group)
                behind = state.lag + state.pending + state.again + state.parked
                lag[stage.group] = lag.get(stage.group, 0) + behind
        left = max(lag.values(), default=0)
        done = max(0, total - left)
        until = rebuild.built_at or self.now_ms()
        seconds = max(until - rebuild.started_at, 1) / 1000
        # Events that came after it was built are no part of how fast that was.
        built = done if rebuild.built_at is None else min(done, rebuild.events)
        rate = built / seconds if built else None
        remaining = left / rate if rate and rebuild.state == "building" else None
        return Progress(done, total, lag, rate, remaining)

    async def promote(self, tenant: TenantId, rebuild_id: str) -> Rebuild:
        """Make it the live generation: one write, followed by every process within a second. Raises NotNow."""
        now = self.now_ms()
        table = await self.generations.change(tenant, lambda table: table.promote(rebuild_id, now))
        return table.rebuild(rebuild_id)

    async def roll_back(self, tenant: TenantId, rebuild_id: str) -> Rebuild:
        """Make the generation live again that was so before it. Raises NotNow."""
        now = self.now_ms()
        table = await self.generations.change(tenant, lambda table: table.roll_back(rebuild_id, now))
        return table.rebuild(rebuild_id)

    async def drop(self, tenant: TenantId, rebuild_id: str) -> Rebuild:
        """Remove what is no longer wanted of a rebuild: the generation before it when it is live, else its own.

        Raises NotNow so soon after a switch that somebody may still be reading, and when nothing is left to drop.
        """
        now = self.now_ms()

        def dropped(table: Table) -> Table:
            rebuild = table.rebuild(rebuild_id)
            number = table.previous if rebuild.number == table.live else rebuild.number
            if rebuild.number != table.live and number not in table.fed:
                raise NotNow(f"the rebuild {rebuild_id!r} is {rebuild.state} already: nothing of it is left to drop")
            if number is None:
                raise NotNow("there is no generation beside the live one: nothing to drop")
            if number == table.previous and now - table.switched_at < GRACE_SECONDS * 1000:
                raise NotNow(f"the switch is less than {GRACE_SECONDS:.0f} s ago: somebody may still be reading it")
            return table.drop(number)

        table = await self.generations.change(tenant, dropped)
        return table.rebuild(rebuild_id)

    async def newest(self, tenant: TenantId) -> Rebuild:
        """The rebuild that began last. Raises UnknownThing."""
        table = await self.generations.read(tenant)
        if not table.rebuilds:
            raise UnknownThing("rebuild", "of any kind")
        return table.rebuilds[0]


def _with(recipe: Recipe, model: ModelChoice | None) -> Recipe:
    if model is None:
        return recipe
    path = recipe.model_path if model.name is None and model.path is None else model.path
    provider = model.provider or ("fastembed" if model.path is not None else recipe.provider)
    remote = provider in ("http", "litellm")
    return replace(
        recipe,
        provider=provider,
        url=without_secrets(model.url or recipe.url) if remote else None,
        model=model.name or recipe.model,
        model_path=None if path is None else str(path),
        dimensions=model.dimensions or recipe.dimensions,
        model_id="",
    )


def rebuild_json(table: Table, rebuild: Rebuild, progress: Progress | None) -> dict[str, JsonValue]:
    """A rebuild as it is answered over HTTP and printed."""
    comparison = dict(rebuild.comparison or {})
    recipe = table.recipes.get(rebuild.number)
    body: dict[str, JsonValue] = {
        "id": rebuild.id,
        "state": rebuild.state,
        "generation": rebuild.number,
        "live_generation": table.live,
        "previous_generation": table.previous,
        "promotion": rebuild.promotion,
        "progress": None if progress is None else _progress_json(progress),
        "live_hash": comparison.get("live_hash"),
        "shadow_hash": comparison.get("shadow_hash"),
        "equal": comparison.get("equal"),
        "comparison": comparison or None,
        "model": None if recipe is None else recipe.model_id or recipe.model,
        "dimensions": None if recipe is None else recipe.dimensions,
        "waits_for": rebuild.waits_for,
        "problem": rebuild.problem,
    }
    return body


def _progress_json(progress: Progress) -> dict[str, JsonValue]:
    rate, left = progress.events_per_second, progress.seconds_left
    return {
        "events": progress.done,
        "of": progress.total,
        "share": round(progress.share, 4),
        "events_per_second": None if rate is None else round(rate, 1),
        "seconds_left": None if left is None else round(left, 1),
        "lag": dict(progress.lag),
    }
