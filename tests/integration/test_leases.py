"""Leases: one holder at a time, by the server's clock, and nobody acts on a lease that was lost."""

from __future__ import annotations

import asyncio

from context_graph.bootstrap import Resources
from context_graph.domain.event import TenantId
from context_graph.domain.partition import Partition
from context_graph.store.keys import PartitionKeys
from tests.waiting import until

HERE = Partition(TenantId("default"), 0)
LONG = 60_000


async def _expired(resources: Resources) -> None:
    async def gone() -> bool:
        return await resources.ledger_redis.exists(PartitionKeys(HERE).lease("work")) == 0

    await until(gone)


async def test_of_many_who_try_at_once_exactly_one_gets_the_lease(resources: Resources) -> None:
    tries = (resources.leases.acquire(HERE, "work", f"holder-{i}", LONG) for i in range(20))
    taken = [lease for lease in await asyncio.gather(*tries) if lease is not None]
    assert [lease.fence for lease in taken] == [1]


async def test_the_holder_itself_cannot_take_it_twice(resources: Resources) -> None:
    assert await resources.leases.acquire(HERE, "work", "a", LONG) is not None
    assert await resources.leases.acquire(HERE, "work", "a", LONG) is None


async def test_every_holder_has_a_larger_fence_than_those_before(resources: Resources) -> None:
    fences = []
    for holder in ("a", "b", "a"):
        lease = await resources.leases.acquire(HERE, "work", holder, LONG)
        assert lease is not None
        fences.append(lease.fence)
        assert await resources.leases.release(lease)
    assert fences == [1, 2, 3]


async def test_names_and_partitions_are_leased_apart(resources: Resources) -> None:
    elsewhere = Partition(TenantId("default"), 1)
    assert await resources.leases.acquire(HERE, "work", "a", LONG) is not None
    assert await resources.leases.acquire(HERE, "play", "b", LONG) is not None
    assert await resources.leases.acquire(elsewhere, "work", "c", LONG) is not None


async def test_a_lease_that_expired_goes_to_another_and_the_first_holder_can_do_nothing(resources: Resources) -> None:
    stale = await resources.leases.acquire(HERE, "work", "a", 20)
    assert stale is not None
    await _expired(resources)
    assert not await resources.leases.renew(stale)
    fresh = await resources.leases.acquire(HERE, "work", "b", LONG)
    assert fresh is not None
    assert fresh.fence > stale.fence
    assert not await resources.leases.renew(stale)
    assert not await resources.leases.release(stale)
    assert await resources.leases.renew(fresh)


async def test_the_same_name_after_a_loss_is_another_holder(resources: Resources) -> None:
    stale = await resources.leases.acquire(HERE, "work", "a", 20)
    await _expired(resources)
    fresh = await resources.leases.acquire(HERE, "work", "a", LONG)
    assert stale is not None
    assert fresh is not None
    assert not await resources.leases.release(stale)
    assert await resources.leases.release(fresh)


async def test_renewing_prolongs_by_the_whole_time_to_live(resources: Resources) -> None:
    lease = await resources.leases.acquire(HERE, "work", "a", LONG)
    assert lease is not None
    key = PartitionKeys(HERE).lease("work")
    await resources.ledger_redis.pexpire(key, 5_000)
    assert await resources.leases.renew(lease)
    assert await resources.ledger_redis.pttl(key) > 50_000


async def test_leases_work_on_after_the_server_forgot_its_scripts(resources: Resources) -> None:
    lease = await resources.leases.acquire(HERE, "work", "a", LONG)
    assert lease is not None
    await resources.ledger_redis.script_flush()
    assert await resources.leases.renew(lease)
    await resources.ledger_redis.script_flush()
    assert await resources.leases.release(lease)
