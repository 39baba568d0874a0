"""How long the event loop was ever kept from its next task: the longest such stall of the last minute.

A task wakes every few milliseconds and looks how late it is. What made it late is either work of this process, which
the processor time of the loop's own thread shows, or a machine that gave it no processor: both are told.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

_EVERY = 0.01  # seconds between looks
_WINDOW = 60.0  # seconds after which a stall is forgotten, at most twice that


@dataclass(frozen=True, slots=True)
class Stall:
    """Seconds that the loop was late, and how many of them its thread was computing."""

    late: float = 0.0
    busy: float = 0.0

    def longest(self, other: Stall) -> Stall:
        """The greater of each."""
        return Stall(max(self.late, other.late), max(self.busy, other.busy))


class Stalls:
    """The longest stalls of one loop."""

    def __init__(self) -> None:
        self._before = Stall()
        self._now = Stall()

    @property
    def longest(self) -> Stall:
        """Of the last minute; of the minute before, too, while this one is young."""
        return self._now.longest(self._before)

    async def run(self) -> None:
        """Look, for ever."""
        began = time.monotonic()
        while True:
            asleep, idle = time.monotonic(), time.thread_time()
            await asyncio.sleep(_EVERY)
            awake = time.monotonic()
            late = max(0.0, awake - asleep - _EVERY)
            self._now = self._now.longest(Stall(late, min(late, time.thread_time() - idle)))
            if awake - began > _WINDOW:
                self._before, self._now, began = self._now, Stall(), awake
