"""What the measured API process costs: its processor time and its memory, by /proc.

Processor time an event says what a change did on a machine that others use too, where a rate says little.
"""

from __future__ import annotations

import os
from pathlib import Path


def cpu_seconds(port: int) -> float:
    """Processor time that the process serving the port has used; 0 where /proc does not tell."""
    folder = _process(port)
    if folder is None:
        return 0.0
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system


def peak_bytes(port: int) -> int:
    """The most memory (VmHWM) it has had; 0 where /proc does not tell."""
    folder = _process(port)
    return 0 if folder is None else int((folder / "status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def _process(port: int) -> Path | None:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        if b"context_graph.cli.main" in words and str(port).encode() in words:
            return folder
    return None
