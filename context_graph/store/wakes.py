"""Being woken when something was appended, instead of asking again and again."""

from __future__ import annotations

import asyncio
from typing import Any

from context_graph.store.connection import store_errors


class Wakes:
    """News that something was appended; several appends may be one piece of news."""

    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub

    async def wait(self, seconds: float) -> None:
        """Return at the next notification, or after `seconds`."""
        with store_errors("waiting for news"):
            try:
                async with asyncio.timeout(seconds):
                    while True:
                        message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=seconds)
                        if message is not None:
                            break
            except TimeoutError:
                return
            # One wake-up answers for all that arrived with it.
            while await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=0) is not None:
                continue
