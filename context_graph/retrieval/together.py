"""Several reads at once; a single one, as of most tenants, without the cost of a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

Found = TypeVar("Found")


async def together(works: Sequence[Coroutine[Any, Any, Found]]) -> list[Found]:
    """What they give, in order. The first that raises is the outcome."""
    if len(works) == 1:
        return [await works[0]]
    return list(await asyncio.gather(*works))
