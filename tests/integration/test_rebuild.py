"""A rebuild from the first event to its place as the live generation, with the real workers and models."""

from __future__ import annotations

import random

import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.stages import stages_of
from context_graph.errors import AlreadyExists, NotNow
from context_graph.store.keys import GraphKeys
from tests.events import event
from tests.graph_state import graph_state
from tests.ledger_events import append, parsed
from tests.rebuilding import caught_up, rebuilt, tenant_of, working
from tests.waiting import until


@pytest.fixture
async def tenant(resources: Resources) -> Tenant:
    return await tenant_of(resources)


@pytest.fixture
def partition(tenant: Tenant) -> Partition:
    [partition] = tenant.partitions
    return partition


def story(start: int, count: int, seed: int = 1) -> list[dict[str, object]]:
    """Events with sessions, people, tools, causes before and after themselves, and a text that others repeat."""
    chance = random.Random(seed)
    return [
        event(
            number,
            session_id=f"s{number % 3}",
            user_id=chance.choice(["nadia", "omar"]),
            tool_name=chance.choice([None, "refund"]),
            caused_by=sorted({f"e{chance.randrange(start, start + count)}" for _ in range(2)} - {f"e{number}"}),
            payload={"text": f"Order #W{number % 7:07d} of Mia Li in Seattle was late"},
        )
        for number in range(start, start + count)
    ]


def clean(raws: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{name: value for name, value in raw.items() if value is not None} for raw in raws]


async def test_a_rebuild_is_equal_takes_the_live_ones_place_and_gives_it_back(
    resources: Resources, tenant: Tenant, partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("context_graph.delivery.rebuilds.GRACE_SECONDS", 0)
    await append(resources.ledger, partition, parsed(clean(story(0, 40))))
    async with working(resources):
        await caught_up(resources, partition)
        rebuild = await rebuilt(resources, tenant)
        assert rebuild.state == "ready", rebuild
        assert rebuild.comparison is not None
        assert rebuild.comparison["equal"] is True, rebuild.comparison
        assert rebuild.comparison["live_hash"] == rebuild.comparison["shadow_hash"]
        assert await graph_state(resources.derived_redis, partition, 2) == await graph_state(
            resources.derived_redis, partition, 1
        )
        with pytest.raises(AlreadyExists):
            await resources.rebuilds.start(tenant, "never")
        with pytest.raises(NotNow):
            await resources.rebuilds.roll_back(tenant.name, rebuild.id)

        await resources.rebuilds.promote(tenant.name, rebuild.id)
        assert (await resources.graph.keys(partition)).generation == 2
        await append(resources.ledger, partition, parsed(clean(story(40, 20))))
        await caught_up(resources, partition, 2)
        await caught_up(resources, partition, 1)  # the previous one is fed: the way back loses nothing
        assert set(await resources.graph.events(partition, ["e45"])) == {"e45"}

        await resources.rebuilds.roll_back(tenant.name, rebuild.id)
        assert (await resources.graph.keys(partition)).generation == 1
        assert set(await resources.graph.events(partition, ["e45"])) == {"e45"}
        assert await graph_state(resources.derived_redis, partition, 2) == await graph_state(
            resources.derived_redis, partition, 1
        )

        await resources.rebuilds.drop(tenant.name, rebuild.id)

        async def gone() -> bool:
            return not (await resources.generations.read(tenant.name)).dropping

        await until(gone, seconds=20)
    assert await graph_state(resources.derived_redis, partition, 2) == {}
    assert sorted(await resources.groups.names(partition)) == sorted(stage.group for stage in stages_of(1))
    indexes = await resources.derived_redis.execute_command("FT._LIST")  # type: ignore[no-untyped-call]
    assert GraphKeys(partition, 2).text_index.encode() not in indexes
