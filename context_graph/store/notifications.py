"""The ledger's notifications as the names of the partitions that were written to."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import WAKE_CHANNEL

_LOOK_SECONDS = 5.0  # longest wait for a message before the connection is looked at


class Notifications:
    """A subscription that many readers of a process share."""

    def __init__(self, waiting: RedisClient) -> None:
        self._waiting = waiting

    async def listen(self) -> AsyncGenerator[frozenset[str], None]:
        """Names of partitions that were written to since the last item; an empty set when subscribed, and now and then.

        Notifications are not kept by Redis: whoever begins to listen looks once at everything. Raises StoreUnavailable.
        """
        async with self._waiting.pubsub() as pubsub:
            with store_errors("subscribing to the ledger"):
                await pubsub.subscribe(WAKE_CHANNEL)
                yield frozenset()
                while True:
                    yield await self._next(pubsub)

    @staticmethod
    async def _next(pubsub: Any) -> frozenset[str]:
        names: set[str] = set()
        timeout = _LOOK_SECONDS
        while (message := await pubsub.get_message(ignore_subscribe_messages=True, timeout=timeout)) is not None:
            names.add(message["data"].decode())
            timeout = 0  # one item answers for all that has arrived
        return frozenset(names)
