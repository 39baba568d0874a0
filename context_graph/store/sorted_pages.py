"""Pages of sorted sets: a stretch behind a place, whatever is written meanwhile.

One script finds the place and reads behind it, so an entry that comes in while somebody pages moves ranks and no page.
Several sets (of several partitions) are asked in one pipelined round trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from context_graph.store.connection import RedisClient, store_errors

Order = Literal["asc", "desc"]
LAST = b"\xff"
"""Behind every member: none begins with this byte, which is no text."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins: exclusively behind this score and member, which need not exist (any more)."""

    score: int
    member: bytes


@dataclass(frozen=True, slots=True)
class Stretch:
    """Which set to read, in which order, behind which place (None: from the end that the order begins with)."""

    key: str
    order: Order
    behind: Place | None = None


Found = list[tuple[bytes, float]]


class SortedPages:
    """Reads stretches of any sorted sets of one Redis."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        source = files("context_graph.store").joinpath("lua/page.lua").read_text()
        self._page = redis.register_script(source)

    async def read(self, stretches: Sequence[Stretch], limit: int) -> list[Found]:
        """Up to `limit` members with scores of each; one round trip. Raises StoreUnavailable."""
        if not stretches:
            return []
        pipe: Any = self._redis.pipeline(transaction=False)
        with store_errors("reading a page"):
            for stretch in stretches:
                if stretch.behind is None:
                    pipe.zrange(stretch.key, 0, limit - 1, desc=stretch.order == "desc", withscores=True)
                else:
                    place = (stretch.behind.score, stretch.behind.member)
                    await self._page(keys=[stretch.key], args=[stretch.order, *place, limit], client=pipe)
            answers: list[Any] = await pipe.execute()
        return [
            answer
            if stretch.behind is None
            else [(member, float(score)) for member, score in zip(answer[::2], answer[1::2], strict=True)]
            for stretch, answer in zip(stretches, answers, strict=True)
        ]
