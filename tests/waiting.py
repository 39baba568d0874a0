"""Waiting for a condition, never for a time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

_PAUSE = 0.02  # seconds between two looks


async def until(condition: Callable[[], bool | Awaitable[bool]], *, seconds: float = 30.0) -> None:
    """Return when `condition` holds; TimeoutError when it does not within `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(_PAUSE)
