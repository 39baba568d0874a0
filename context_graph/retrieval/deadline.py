"""One deadline for one retrieval: every step asks what is left of it, and what was cut is said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

Found = TypeVar("Found")
CUT = "deadline"
AWAY = "vectors: the embedder did not answer"
Cut: TypeAlias = Callable[[str], None]
"""Notes what was left out of an answer, for its `meta.truncated`."""


@dataclass(slots=True)
class Deadline:
    """When a retrieval has to be done; `truncated` names what it cut, once each."""

    ends: float
    clock: Callable[[], float] = time.monotonic
    truncated: list[str] = field(default_factory=list)

    @classmethod
    def after(cls, milliseconds: int, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """That long from now."""
        return cls(clock() + milliseconds / 1000, clock)

    @property
    def left(self) -> float:
        """Seconds; 0 when it has passed."""
        return max(0.0, self.ends - self.clock())

    @property
    def passed(self) -> bool:
        return self.left == 0.0

    def part(self, share: float) -> Deadline:
        """One of that share of what is left, which notes what it cuts here."""
        return Deadline(self.clock() + self.left * share, self.clock, self.truncated)

    def cut(self, what: str) -> None:
        """Note that something was left out."""
        if what not in self.truncated:
            self.truncated.append(what)

    async def within(self, work: Awaitable[Found], otherwise: Found, step: str) -> Found:
        """What the work gives in time; `otherwise` when it takes longer, which is noted as `deadline: <step>`."""
        try:
            async with asyncio.timeout(self.left):
                return await work
        except TimeoutError:
            self.cut(f"{CUT}: {step}")
            return otherwise
