"""Become another program, bound to the life of the parent: `python bound_exec.py PARENT_PID PROGRAM ARGUMENT...`

A process whose supervisor was killed with -9 would run on unseen. On Linux the kernel can be asked to send SIGTERM
when the parent dies; the request survives exec, so it is made here, between fork and program, instead of in a
`preexec_fn`, which is unsafe beside threads. Elsewhere this only execs. Standard library only, and started with -I -S:
it costs about ten milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def bind_to(parent: int) -> None:
    """Ask for SIGTERM at the parent's death; leave at once when it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    bind_to(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is the point
