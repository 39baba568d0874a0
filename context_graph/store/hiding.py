"""What a DELETE does before it is answered: after it, no read returns what was said.

The key is destroyed already, so the ledger opens nothing any more, and a receipt's words come from the ledger. What is
left is what was derived: documents, entities, summaries, facts. These go here, once nobody can bring them back: every
process has forgotten the key, and what a stage was given before that, it has finished. That takes about as long as
processes remember keys (`CG_VAULT__CACHE_SECONDS`), however far behind a stage is. A stage that holds a batch for
longer than `_PATIENCE` may write of it afterwards; the workers' own sweep (`delivery/erasing.py`), which waits for
every stage, takes that away. Only what a sweep of the whole keyspace would find is left to the workers as well.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from context_graph.domain.erasure import Erasure, Subject
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.store.erasures import Erasures
from context_graph.store.groups import Groups
from context_graph.store.sweeping import Sweeper

_LOOK_AGAIN = 0.05  # seconds
_PATIENCE = 5.0  # seconds for batches in hand: an answer is expected, and a worker that died holds its batch for long


@dataclass(frozen=True, slots=True)
class Hiding:
    """Hides what was derived, of any tenant. `cache_seconds`: how long processes remember keys.

    `again_seconds`: for how long what is delivered once more is its taker's.
    """

    erasures: Erasures
    sweeper: Sweeper
    groups: Groups
    cache_seconds: float
    again_seconds: float

    async def hide(self, tenant: Tenant, struck: Erasure) -> None:
        """Hide what an erasure that has struck is about; safe to repeat, beside the workers too. StoreUnavailable."""
        if struck.subject is None:
            return
        await asyncio.sleep(self.cache_seconds)
        subject = Subject(struck.kind, struck.subject)
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        for partition, tombstone in tombstones(struck).items():
            await self._out_of_hand(partition, tombstone, deadline)
            removed = await self.sweeper.hide(partition, subject, tombstone)
            await self.erasures.add_hidden(tenant, struck.id, removed)

    async def _out_of_hand(self, partition: Partition, tombstone: Position, deadline: float) -> None:
        while asyncio.get_running_loop().time() < deadline:
            if not await self._in_hand(partition, tombstone):
                return
            await asyncio.sleep(_LOOK_AGAIN)

    async def _in_hand(self, partition: Partition, tombstone: Position) -> bool:
        """Whether a stage still holds what was handed out while a process could remember the key."""
        opened_by = tombstone.ms + int(self.cache_seconds * 1000)
        for group in await self.groups.names(partition):
            if (await self.groups.state(partition, group)).has_passed(tombstone):
                continue
            if not await self.groups.let_go(partition, group, opened_by, int(self.again_seconds * 1000)):
                return True
        return False


def tombstones(struck: Erasure) -> dict[Partition, Position]:
    """Where the erasure's tombstones stand."""
    return {Partition.parse(each.partition): Position.parse(each.position) for each in struck.strikes if each.position}
