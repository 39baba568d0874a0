"""Workers: the processes beside the API, found by entry point.

`context_graph` imports neither `projections` nor `enrichment`; they register a `Worker` under the entry-point group
`context_graph.workers`, and the command line starts it by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from context_graph.bootstrap import Resources
from context_graph.errors import ConfigurationError

_GROUP = "context_graph.workers"


@dataclass(frozen=True, slots=True)
class Worker:
    """A named process: `run` works until `stop` is set, then finishes what it holds and returns."""

    name: str
    summary: str
    run: Callable[[Resources, asyncio.Event], Coroutine[Any, Any, None]]
    once: Callable[[Resources], Coroutine[Any, Any, str]] | None = None
    """One pass by command, where that makes sense (consolidation); returns what was done, in words."""


def worker_names() -> list[str]:
    """Names that `load_worker` knows, in a fixed order."""
    return sorted(entry.name for entry in entry_points(group=_GROUP))


def load_worker(name: str) -> Worker:
    """The worker of that name. Raises ConfigurationError naming those there are."""
    for entry in entry_points(group=_GROUP, name=name):
        worker = entry.load()
        if isinstance(worker, Worker):
            return worker
        raise ConfigurationError(f"the entry point {entry.value} is not a Worker")
    raise ConfigurationError(f"there is no worker {name!r}; there are: {', '.join(worker_names())}")
