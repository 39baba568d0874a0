"""Single events of concurrent callers, appended together.

One script call costs the API more than the event in it. So while an append of a partition is under way, the events
that come in wait for it and go out as one group: alone an event waits for nobody, under load the groups grow by
themselves, and an fsync per append (the durable profile) is shared by the group. Each caller still gets the ledger's
own answer for its own event.

The first event of a group has its caller write for all. When that caller is cancelled, the others are told that the
store is unavailable: sending again is safe.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from context_graph.domain.partition import Partition
from context_graph.errors import StoreUnavailable
from context_graph.store.ledger import Appendable, Appended, Ledger

_LARGEST = 256  # events of a group: bounds what one script holds Redis for to a few milliseconds


@dataclass(slots=True)
class _Group:
    """Events to write together; `others` are the callers of all but the first."""

    events: list[Appendable]
    others: list[asyncio.Future[Appended]] = field(default_factory=list)

    def fail(self, error: Exception) -> None:
        for other in self.others:
            if not other.done():
                other.set_exception(error)

    def answer(self, answers: list[Appended]) -> Appended:
        """Tell the others; returns the first one's answer."""
        for other, appended in zip(self.others, answers[1:], strict=True):
            if not other.done():  # its caller may have gone
                other.set_result(appended)
        return answers[0]


class GatheredAppends:
    """Appends single events of any partition, those that come together in one script call."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._gathering: dict[Partition, _Group] = {}
        self._writing: dict[Partition, asyncio.Lock] = {}

    async def append(self, partition: Partition, event: Appendable) -> Appended:
        """Append one event once. Raises StoreUnavailable."""
        group = self._gathering.get(partition)
        if group is None or len(group.events) >= _LARGEST:
            group = self._gathering[partition] = _Group([event])
            return await self._write(partition, group)
        mine: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        group.events.append(event)
        group.others.append(mine)
        return await mine

    async def _write(self, partition: Partition, group: _Group) -> Appended:
        try:
            async with self._writing.setdefault(partition, asyncio.Lock()):
                self._close(partition, group)
                return group.answer(await self._ledger.append(partition, group.events))
        except asyncio.CancelledError:
            group.fail(StoreUnavailable("the append was interrupted: send the event again"))
            raise
        except Exception as error:
            group.fail(error)
            raise
        finally:
            self._close(partition, group)

    def _close(self, partition: Partition, group: _Group) -> None:
        """Nobody joins the group any more."""
        if self._gathering.get(partition) is group:
            del self._gathering[partition]
