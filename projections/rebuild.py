"""The rebuild's own steps: see that a generation is built, compare it, switch where that was asked, clear away.

The feeding is done by every worker's consumers. What is left is done by one projection worker per tenant, under a
lease, and what has been done stands in the tenant's table: killed anywhere, the next one goes on from there.

A generation is built when every stage of it has passed what was the ledger's end a moment ago, in every partition, and
is no further behind than a few seconds of events. From then on it follows the ledger like the live one.

The live one is waited for as well, so that both are compared over the same events; but not its vectors, while its model
is not here: that may be why another generation is built. The report then says what the live one lacks. What a rebuild
waits for otherwise than by working stands in its record (`waits_for`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import structlog

from context_graph.bootstrap import Resources
from context_graph.domain.event import JsonValue
from context_graph.domain.generations import Rebuild, Recipe, Table, without_quotes
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.domain.stages import ENRICHMENT, Stage, stages_of
from context_graph.errors import ConfigurationError, ModelMissing, ModelUnavailable, NotNow, TemporaryError
from context_graph.models.embedder_pool import open_embedders
from context_graph.store.leases import Lease
from projections.compare import Sides, compare_tenant

LEASE = "rebuild"
_LEASE_MS = 10_000
_LONGEST_BACKOFF = 30.0  # seconds
_CLOSE = 10_000  # events a built generation may still be behind: a second or two of the workers
_ASK_AGAIN = 5.0  # seconds between two questions whether a model is here

log = structlog.get_logger(__name__)

Targets = dict[Partition, "Position | None"]


@dataclass(slots=True)
class Rebuilder:
    """Looks after the rebuilds of every tenant."""

    resources: Resources
    _targets: dict[str, Targets] = field(default_factory=dict)
    _dropping_since: dict[tuple[str, int], float] = field(default_factory=dict)
    _models: dict[tuple[str, int], tuple[float, str | None]] = field(default_factory=dict)

    async def run(self, stop: asyncio.Event) -> None:
        """A look at every tenant each `delivery.poll_seconds`, until `stop`; an outage is waited out."""
        settings = self.resources.settings.delivery
        pause = settings.backoff_seconds
        while not stop.is_set():
            try:
                await self.look()
                wait, pause = settings.poll_seconds, settings.backoff_seconds
            except TemporaryError as error:
                wait, pause = pause, min(pause * 2, _LONGEST_BACKOFF)
                log.warning("rebuild_interrupted", reason=str(error), retry_in_seconds=wait)
            except Exception:  # nothing of a rebuild ends the worker that feeds the live generation
                wait, pause = pause, min(pause * 2, _LONGEST_BACKOFF)
                log.exception("rebuild_step_failed", retry_in_seconds=wait)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await stop.wait()

    async def look(self) -> None:
        """One step of every tenant that has something to do. Raises TemporaryError."""
        tenants = await self.resources.tenants.all()
        tables = await self.resources.generations.tables([tenant.name for tenant in tenants])
        for tenant, table in zip(tenants, tables, strict=True):
            rebuild = table.running
            if not (table.dropping or (rebuild is not None and rebuild.runs)):
                continue
            holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
            lease = await self.resources.leases.acquire(tenant.partitions[0], LEASE, holder, _LEASE_MS)
            if lease is not None:
                async with self._held(lease):
                    await self._tenant(tenant)

    @asynccontextmanager
    async def _held(self, lease: Lease) -> AsyncIterator[None]:
        """The lease renewed as long as the work takes, and given back."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(_LEASE_MS / 3000)
                try:
                    if not await self.resources.leases.renew(lease):
                        log.warning("rebuild_lease_lost", partition=str(lease.partition))
                        return  # what two do at once is the same, and every step of the table is compared
                except TemporaryError as error:
                    log.warning("rebuild_lease_not_renewed", reason=str(error))

        renewing = asyncio.create_task(renew(), name="rebuild lease")
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await self.resources.leases.release(lease)

    async def _tenant(self, tenant: Tenant) -> None:
        table = await self.resources.generations.read(tenant.name)
        for number in table.dropping:
            await self._drop(tenant, number)
        rebuild = table.running
        if rebuild is None or not rebuild.runs:
            return
        try:
            await self._advance(tenant, rebuild)
        except NotNow as error:
            log.info("rebuild_gone", tenant=tenant.name, rebuild=rebuild.id, reason=str(error))
        except TemporaryError:
            raise
        except ConfigurationError as error:
            await self._fail(tenant, rebuild, str(error))
        except Exception as error:  # once more would end alike: damaged keys, or a defect
            log.exception("rebuild_defect", tenant=tenant.name, rebuild=rebuild.id)
            await self._fail(tenant, rebuild, f"{type(error).__name__}: {error}")

    async def _fail(self, tenant: Tenant, rebuild: Rebuild, problem: str) -> None:
        self._targets.pop(rebuild.id, None)
        await self.resources.generations.change(tenant.name, lambda table: table.fail(rebuild.number, problem))
        log.error("rebuild_failed", tenant=tenant.name, rebuild=rebuild.id, reason=problem)

    # building and comparing

    async def _advance(self, tenant: Tenant, rebuild: Rebuild) -> None:
        await self.resources.rebuilds.hold_the_ledger(tenant, rebuild.number)
        targets = self._targets.get(rebuild.id)
        if targets is None:
            targets = self._targets[rebuild.id] = await self._ends(tenant)
        behind = await self._behind(tenant, rebuild.number, targets)
        if behind:
            await self._say(tenant, rebuild, await self._model_problem(tenant, rebuild.number, behind))
            return
        progress = await self.resources.rebuilds.progress(tenant, rebuild)
        if progress.total - progress.done > _CLOSE:
            self._targets[rebuild.id] = await self._ends(tenant)
            return
        live = (await self.resources.generations.read(tenant.name)).live
        late = await self._behind(tenant, live, targets)
        missing = await self._model_problem(tenant, live, late)
        if late and not (missing and set(late) == {ENRICHMENT.of(live)}):
            words = ", ".join(f"{stage.group} by {events:,} events" for stage, events in late.items())
            await self._say(tenant, rebuild, f"the live generation is behind: {words}")
            return
        lacks: dict[str, JsonValue] | None = {"events": sum(late.values()), "reason": missing} if late else None
        await self._compare(tenant, rebuild, targets, lacks)
        self._targets.pop(rebuild.id, None)

    async def _ends(self, tenant: Tenant) -> Targets:
        return {partition: await self.resources.ledger.last(partition) for partition in tenant.partitions}

    async def _behind(self, tenant: Tenant, number: int, targets: Targets) -> dict[Stage, int]:
        """Stages of a generation that have not finished everything up to the targets, and by how many events."""
        behind: dict[Stage, int] = {}
        for partition, target in targets.items():
            for stage in stages_of(number) if target is not None else ():
                state = await self.resources.groups.state(partition, stage.group)
                if target is not None and not state.has_passed(target):
                    behind[stage] = behind.get(stage, 0) + state.lag + state.pending + state.again + state.parked
        return behind

    async def _model_problem(self, tenant: Tenant, number: int, behind: Mapping[Stage, int]) -> str | None:
        """Why a generation gets no vectors; None where its model is here, or none are wanted. Asked now and then."""
        if ENRICHMENT.of(number) not in behind:
            return None
        now = time.monotonic()
        asked, problem = self._models.get((tenant.name, number), (-_ASK_AGAIN, None))
        if now - asked >= _ASK_AGAIN:
            recipe = (await self.resources.generations.read(tenant.name)).recipes.get(number)
            problem = await self._missing(recipe)
            self._models[tenant.name, number] = now, problem
        return problem

    async def _missing(self, recipe: Recipe | None) -> str | None:
        settings = self.resources.settings
        async with open_embedders(settings.embedding, settings.data_dir / "models") as pool:
            try:
                await pool.of(recipe)  # of a server, it answers; of a file, it is the same: nothing is loaded
            except (ModelMissing, ModelUnavailable) as error:
                return str(error)
        return None

    async def _say(self, tenant: Tenant, rebuild: Rebuild, waits_for: str | None) -> None:
        """What it waits for, for whoever looks."""
        if waits_for != rebuild.waits_for:
            known = replace(rebuild, waits_for=waits_for)
            await self.resources.generations.change(tenant.name, lambda table: _still(table, rebuild).update(known))
            log.info("rebuild_waits", tenant=tenant.name, rebuild=rebuild.id, waits_for=waits_for)

    async def _compare(
        self, tenant: Tenant, rebuild: Rebuild, targets: Mapping[Partition, Position | None],
        lacks: Mapping[str, JsonValue] | None,
    ) -> None:  # fmt: skip
        """`lacks`: of how many events the live generation has no vectors and entities, and why; None: it has all."""
        generations, settings = self.resources.generations, self.resources.settings
        now = self.resources.rebuilds.now_ms()
        built = replace(rebuild, state="comparing", built_at=rebuild.built_at or now, waits_for=None)
        table = await generations.change(tenant.name, lambda table: _still(table, rebuild).update(built))
        recipe, erasures = table.recipes[rebuild.number], table.erasures
        sides = Sides(table.live, rebuild.number, table.recipes.get(table.live), recipe)
        async with open_embedders(settings.embedding, settings.data_dir / "models") as pool:
            compared = await compare_tenant(self.resources, pool, tenant, sides, targets)
        comparison = {**compared, "live_lacks": None if lacks is None else dict(lacks)}
        switch = rebuild.promotion == "always" or (rebuild.promotion == "when equal" and comparison["equal"] is True)
        now = self.resources.rebuilds.now_ms()

        def decided(table: Table) -> Table:
            """In one step: killed in between, it would be ready and nobody would switch."""
            quoted = comparison if table.erasures == erasures else without_quotes(comparison)
            known = _still(table, rebuild).update(replace(built, state="ready", comparison=quoted))
            return known.promote(rebuild.id, now) if switch else known

        await generations.change(tenant.name, decided)
        log.info("rebuild_compared", tenant=tenant.name, rebuild=rebuild.id, equal=comparison["equal"], switched=switch)

    # clearing away

    async def _drop(self, tenant: Tenant, number: int) -> None:
        """Groups first, then indexes, then keys; when nobody feeds the generation any more. Repeatable."""
        since = self._dropping_since.setdefault((tenant.name, number), time.monotonic())
        if time.monotonic() - since < 3 * self.resources.settings.delivery.poll_seconds:
            return  # a worker may not have seen yet that it is to stop
        groups = [stage.group for stage in stages_of(number)]
        for partition in tenant.partitions:
            for group in groups:
                if await self.resources.groups.is_busy(partition, group):
                    return
        for partition in tenant.partitions:
            for group in groups:
                await self.resources.dead_letters.discard_all(partition, group)
                await self.resources.groups.remove(partition, group)
            await self.resources.index.at(number).drop(partition)
            await self.resources.graph.at(number).remove(partition)
        await self.resources.generations.change(tenant.name, lambda table: table.dropped(number))
        self._dropping_since.pop((tenant.name, number), None)
        log.info("generation_dropped", tenant=tenant.name, generation=number)


def _still(table: Table, rebuild: Rebuild) -> Table:
    """The table, when the rebuild is still wanted. Raises NotNow when it was dropped meanwhile."""
    if table.building != rebuild.number:
        raise NotNow(f"the rebuild {rebuild.id!r} was dropped")
    return table
