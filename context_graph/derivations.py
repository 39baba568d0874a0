"""What stages say should be there: found by entry point, so that a check of all of them imports none by name.

`context_graph` imports neither `projections` nor `enrichment`, and these do not import each other; each registers a
`Derivation` under the entry-point group `context_graph.derivations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TypeAlias

from context_graph.domain.event import LedgerEvent
from context_graph.errors import ConfigurationError
from context_graph.store.answers import StoredAnswer
from context_graph.store.facts import Fact

_GROUP = "context_graph.derivations"


OfAnswers: TypeAlias = Callable[[Sequence[LedgerEvent], Mapping[str, StoredAnswer], str], Mapping[str, Sequence[Fact]]]
"""Events, what is remembered of them by id, and the recogniser's id -> facts by event id, of those that can be told."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """A stage as a pure function: the facts that these events lead to, and all kinds of facts that it decides on.

    `facts` may raise PermanentError on what the stage buries. `of_answers`: the facts that follow from what a model
    said as well, as far as it is remembered; they belong to one event each.
    """

    name: str
    kinds: tuple[str, ...]
    facts: Callable[[Sequence[LedgerEvent]], Iterable[Fact]]
    of_answers: OfAnswers | None = None


def derivations() -> list[Derivation]:
    """All of them, by name."""
    found = []
    for entry in sorted(entry_points(group=_GROUP), key=lambda entry: entry.name):
        loaded = entry.load()
        if not isinstance(loaded, Derivation):
            raise ConfigurationError(f"the entry point {entry.value} is not a Derivation")
        found.append(loaded)
    return found
