"""A rebuild of a ledger that holds what no stage can handle."""

from __future__ import annotations

from typing import Any

from context_graph.bootstrap import Resources
from context_graph.domain.stages import STAGES
from context_graph.store.keys import PartitionKeys
from tests.events import event
from tests.ledger_events import append, parsed
from tests.rebuilding import caught_up, rebuilt, tenant_of, working
from tests.waiting import until


async def test_dead_letters_keep_no_rebuild_from_its_end_and_go_with_its_generation(resources: Resources) -> None:
    tenant = await tenant_of(resources)
    [partition] = tenant.partitions
    await append(resources.ledger, partition, parsed([event(n) for n in range(6)]))
    await resources.ledger_redis.xadd(PartitionKeys(partition).ledger, {"e": "no envelope"})
    await append(resources.ledger, partition, parsed([event(n) for n in range(6, 12)]))
    both = {stage.of(number).group for stage in STAGES for number in (1, 2)}

    async with working(resources):
        await caught_up(resources, partition)
        rebuild = await rebuilt(resources, tenant, "never")
        comparison: Any = rebuild.comparison
        assert (rebuild.state, comparison["equal"], comparison["live_lacks"]) == ("ready", True, None)
        progress = await resources.rebuilds.progress(tenant, rebuild)
        assert (progress.share, set(progress.lag.values())) == (1.0, {0}), "a letter is not waited for"
        assert (await resources.dead_letters.counts(partition)).letters == dict.fromkeys(both, 1)
        await resources.rebuilds.drop(tenant.name, rebuild.id)

        async def gone() -> bool:
            return not (await resources.generations.read(tenant.name)).dropping

        await until(gone)
        assert (await resources.dead_letters.counts(partition)).letters == {stage.group: 1 for stage in STAGES}
