"""The supervisor of `context-graph up`: keeps child processes running and stops them in order.

Children are kept in tiers. A tier is started after those it needs (Redis, then workers, then the API) and the tiers
are stopped the other way round, so nothing loses the server it writes to before it has finished. A child that ends by
itself is started again after a pause that doubles, said in one line. Decides nothing about what the children do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from context_graph.local.process import Child, Program

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds before a child is started again
_PROVEN = 60.0  # seconds of life after which a child's earlier ends are forgotten

Say = Callable[[str], None]
"""Where the supervisor says, in one line, what a person should know."""


@dataclass(slots=True)
class _Kept:
    """A program that is to run: the child that runs it now and the task that sees to it."""

    program: Program
    child: Child
    started: float
    pause: float = _FIRST_PAUSE
    ends: int = 0
    keeper: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _Tier:
    stop_seconds: float
    members: list[_Kept] = field(default_factory=list)


class Supervisor:
    """An async context manager; leaving it stops every tier, last one first."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._tiers: list[_Tier] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def keep(self, programs: Sequence[Program], *, stop_seconds: float) -> list[Child]:
        """Start a tier and keep it running. At the stop its members get `stop_seconds` between SIGTERM and SIGKILL."""
        tier = _Tier(stop_seconds)
        self._tiers.append(tier)
        for program in programs:
            kept = _Kept(program, Child.start(program), time.monotonic())
            tier.members.append(kept)
            kept.keeper = asyncio.create_task(self._keep(kept), name=f"keep {program.name}")
        return [kept.child for kept in tier.members]

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the children as they are now, by name."""
        return {kept.program.name: kept.child.pid for tier in self._tiers for kept in tier.members}

    @property
    def ends(self) -> dict[str, int]:
        """How often each child has ended by itself, by name."""
        return {kept.program.name: kept.ends for tier in self._tiers for kept in tier.members}

    async def stop(self) -> None:
        """Stop every tier, the last one first; each child's end is waited for."""
        try:
            while self._tiers:
                await self._stop_tier(self._tiers[-1])
                self._tiers.pop()
        finally:
            for tier in self._tiers:  # only when the stop itself was cut short
                for kept in tier.members:
                    _dismiss(kept)
                    kept.child.kill()

    async def _stop_tier(self, tier: _Tier) -> None:
        for kept in tier.members:
            _dismiss(kept)
        await asyncio.gather(*(self._stop_child(kept.child, tier.stop_seconds) for kept in tier.members))

    async def _stop_child(self, child: Child, seconds: float) -> None:
        if not await child.stop(seconds):
            self._say(f"{child.program.name} did not stop within {seconds:.0f} s and was killed")

    async def _keep(self, kept: _Kept) -> None:
        while True:
            code = await kept.child.wait()
            kept.ends += 1
            if time.monotonic() - kept.started > _PROVEN:
                kept.pause = _FIRST_PAUSE
            self._say(
                f"{kept.program.name} {describe_exit(code)}; starting it again in {kept.pause:g} s "
                f"(log: {kept.program.log})"
            )
            await asyncio.sleep(kept.pause)
            kept.pause = min(kept.pause * 2, _LONGEST_PAUSE)
            kept.started = time.monotonic()
            kept.child = Child.start(kept.program)


def _dismiss(kept: _Kept) -> None:
    """No more new starts of this program."""
    if kept.keeper is not None:
        kept.keeper.cancel()


def describe_exit(code: int) -> str:
    """An exit code in words; a negative one is the signal that ended the process."""
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
