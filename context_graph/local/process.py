"""A child process: in a session of its own, dead when its parent dies, stopped under a deadline.

The session of its own keeps the terminal's Ctrl-C away: the parent alone hears it and decides in which order its
children go.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_POLL = 0.05  # seconds between two looks at a child; a handful of children make this a negligible load


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: its name for people, its command, its environment, where its output goes."""

    name: str
    argv: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(repr=False)  # it holds passwords
    pass_fds: tuple[int, ...] = ()


class Child:
    """A started program."""

    def __init__(self, program: Program, process: subprocess.Popen[bytes]) -> None:
        self.program = program
        self._process = process

    @classmethod
    def start(cls, program: Program) -> Child:
        """Start it, its output appended to its log. From the main thread only: it dies with the thread that forked."""
        bound = (sys.executable, "-I", "-S", str(Path(__file__).with_name("bound_exec.py")), str(os.getpid()))
        with program.log.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - the programs are this package's own and the server it found
                (*bound, *program.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(program.environment),
                pass_fds=program.pass_fds,
                start_new_session=True,
            )
        return cls(program, process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        while (code := self._process.poll()) is None:  # noqa: ASYNC110 - a process has no awaitable end on every platform
            await asyncio.sleep(_POLL)
        return code

    async def stop(self, seconds: float) -> bool:
        """SIGTERM, and SIGKILL after `seconds`. Returns whether it went by itself; it has ended in any case."""
        deadline = time.monotonic() + seconds
        self._signal(signal.SIGTERM)
        try:
            while self._process.poll() is None:
                if time.monotonic() >= deadline:
                    return False
                await asyncio.sleep(_POLL)
            return True
        finally:
            self.kill()  # also when this wait is cancelled

    def kill(self) -> None:
        """End it now, if it still runs."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)


def last_lines(log: Path, count: int = 8) -> str:
    """The end of a log, for an error message; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])
    except FileNotFoundError:
        return ""
