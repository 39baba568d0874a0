"""What stages say should be there: found by entry point, so that a check of all of them imports none by name.

`context_graph` imports neither `projections` nor `enrichment`, and these do not import each other; each registers a
`Derivation` under the entry-point group `context_graph.derivations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points

from context_graph.domain.event import LedgerEvent
from context_graph.errors import ConfigurationError
from context_graph.store.facts import Fact

_GROUP = "context_graph.derivations"


@dataclass(frozen=True, slots=True)
class Derivation:
    """A stage as a pure function: the facts that these events lead to, and all kinds of facts that it decides on.

    `facts` may raise PermanentError on what the stage buries.
    """

    name: str
    kinds: tuple[str, ...]
    facts: Callable[[Sequence[LedgerEvent]], Iterable[Fact]]


def derivations() -> list[Derivation]:
    """All of them, by name."""
    found = []
    for entry in sorted(entry_points(group=_GROUP), key=lambda entry: entry.name):
        loaded = entry.load()
        if not isinstance(loaded, Derivation):
            raise ConfigurationError(f"the entry point {entry.value} is not a Derivation")
        found.append(loaded)
    return found
