"""News of the ledger for everybody in this process who follows it: one subscription, however many follow.

It is there while somebody follows. A follower that sleeps is woken by news of its partitions, by a new subscription
(what was said while there was none is unknown) and by the end of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import aclosing, contextmanager

import structlog

from context_graph.domain.partition import Partition
from context_graph.errors import StoreUnavailable
from context_graph.store.notifications import Notifications

_PAUSE_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Watch:
    """One follower's view: which of its partitions have news."""

    def __init__(self, partitions: Iterable[Partition]) -> None:
        self._names = {str(partition): partition for partition in partitions}
        self._news: set[Partition] = set()
        self._woken = asyncio.Event()

    def tell(self, names: frozenset[str] | None) -> None:
        """There is news of these partitions; None: perhaps of any."""
        mine = self._names.values() if names is None else [self._names[name] for name in names & self._names.keys()]
        if mine:
            self._news.update(mine)
            self._woken.set()

    async def wait(self, seconds: float) -> frozenset[Partition]:
        """Partitions with news since the last wait; all of them after `seconds` without any."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return frozenset(self._names.values())
        news = frozenset(self._news)
        self._news.clear()
        self._woken.clear()
        return news


class Notices:
    """Followers of the ledger and the one subscription that wakes them."""

    def __init__(self, notifications: Notifications) -> None:
        self._notifications = notifications
        self._watches: set[Watch] = set()
        self._wanted = asyncio.Event()
        self.closed = False

    @contextmanager
    def watching(self, partitions: Iterable[Partition]) -> Iterator[Watch]:
        """A watch over these partitions."""
        watch = Watch(partitions)
        self._watches.add(watch)
        self._wanted.set()
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            if not self._watches:
                self._wanted.clear()

    def close(self) -> None:
        """The process stops: every follower is woken and sees `closed`."""
        self.closed = True
        self._tell(None)

    async def run(self) -> None:
        """Listen while anybody follows, until cancelled; an outage of the store is waited out."""
        while True:
            await self._wanted.wait()
            try:
                await self._listen()
            except StoreUnavailable as error:
                log.warning("notifications_lost", retry_in_seconds=_PAUSE_SECONDS, reason=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _listen(self) -> None:
        async with aclosing(self._notifications.listen()) as news:
            subscribed = False
            async for names in news:
                self._tell(names if subscribed else None)
                subscribed = True
                if not self._wanted.is_set():
                    return

    def _tell(self, names: frozenset[str] | None) -> None:
        for watch in tuple(self._watches):
            watch.tell(names)
