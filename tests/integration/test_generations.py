"""The tables of generations in Redis: how processes follow a switch, and that nobody's change is lost."""

from __future__ import annotations

import asyncio

import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.event import TenantId
from context_graph.domain.generations import FIRST, Recipe, Table
from context_graph.operations import load_verify
from context_graph.store.generations import CACHE_SECONDS, STEADY_SECONDS, Generations, steady
from enrichment.reconsolidation.worker import once
from tests.events import event
from tests.graph_state import graph_state
from tests.ledger_events import append, parsed
from tests.rebuilding import caught_up, rebuilt, tenant_of, working
from tests.waiting import until

ACME = TenantId("acme")
RECIPE = Recipe(fold=1, text=1, index=1, model="m", dimensions=3)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def switched(table: Table) -> Table:
    """To another generation, without building it."""
    begun = table.begin(f"r{table.last}", RECIPE, "never", events=0, now=0)
    return Table(live=begun.last, previous=table.live, last=begun.last, recipes=begun.recipes)


async def test_another_process_follows_a_switch_within_a_second_without_asking_each_time(resources: Resources) -> None:
    clock = Clock()
    reader = Generations(resources.ledger_redis, clock)
    assert await reader.live(ACME) == FIRST
    await resources.generations.change(ACME, switched)
    assert await resources.generations.live(ACME) == 2  # who switches sees it at once
    before = await commands(resources)
    assert [await reader.live(ACME) for _ in range(50)] == [FIRST] * 50
    assert await commands(resources) - before <= 2, "a read that asks Redis each time costs a round trip"
    clock.now += CACHE_SECONDS
    assert await reader.live(ACME) == 2


async def commands(resources: Resources) -> int:
    """Commands that the server has answered, this question included."""
    return int((await resources.ledger_redis.info("stats"))["total_commands_processed"])


async def test_what_began_on_a_generation_ends_on_it_also_in_tasks_of_its_own(resources: Resources) -> None:
    clock = Clock()
    reader = Generations(resources.ledger_redis, clock)
    with steady():
        assert await reader.live(ACME) == FIRST
        await resources.generations.change(ACME, switched)
        clock.now += 2 * CACHE_SECONDS
        assert set(await asyncio.gather(reader.live(ACME), reader.live(ACME))) == {FIRST}
        clock.now += STEADY_SECONDS
        assert await reader.live(ACME) == 2  # not for ever: the old one may be removed meanwhile
    assert await reader.live(ACME) == 2


async def test_changes_at_the_same_time_are_all_there(resources: Resources) -> None:
    processes = [Generations(resources.ledger_redis) for _ in range(4)]

    async def name(number: int) -> None:
        await processes[number % 4].change(ACME, lambda table: table.named(number, RECIPE))

    async with asyncio.TaskGroup() as tasks:
        for number in range(2, 22):
            tasks.create_task(name(number))
    assert sorted((await resources.generations.read(ACME)).recipes) == list(range(2, 22))


async def test_without_the_first_generation_everything_goes_on(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promoted, the one before dropped: stages, waits, consolidation, verify and the next rebuild know the new one."""
    monkeypatch.setattr("context_graph.delivery.rebuilds.GRACE_SECONDS", 0)
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    texts = [
        f"The parcel number {n} was sent to the office in Hamburg. It has to be paid by {n} May." for n in range(30)
    ]
    events = parsed([event(n, payload={"text": text}) for n, text in enumerate(texts)])
    await append(resources.ledger, partition, events[:20])
    async with working(resources):
        await caught_up(resources, partition)
        rebuild = await rebuilt(resources, tenant, "when equal")
        assert rebuild.state == "promoted", rebuild.comparison
        await resources.rebuilds.drop(tenant.name, rebuild.id)

        async def gone() -> bool:
            return (await resources.generations.read(ACME)).all == (2,)

        await until(gone, seconds=20)
        assert await graph_state(resources.derived_redis, partition, 1) == {}
        assert {name for name in await resources.groups.names(partition) if "g2" not in name} == set()

        await append(resources.ledger, partition, events[20:])
        await caught_up(resources, partition, 2)
        await once(resources)
        await caught_up(resources, partition, 2)
        assert await resources.graph.summary(partition, "session/s1") is not None
        report = await load_verify()(resources, tenant)
        assert report["equal"] is True, report["differences"]
        again = await rebuilt(resources, tenant, "when equal")
        assert (again.state, again.number) == ("promoted", 3), again.comparison
    assert await graph_state(resources.derived_redis, partition, 1) == {}
