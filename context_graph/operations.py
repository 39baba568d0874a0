"""What an operator does by command and a package above this one carries out, found by entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Protocol, TypeAlias, cast

from context_graph.bootstrap import Resources
from context_graph.domain.event import JsonValue
from context_graph.domain.partition import Tenant
from context_graph.errors import ConfigurationError

_GROUP = "context_graph.operations"
Tell: TypeAlias = Callable[[str], None]
"""Takes a line about how far something is, whenever there is something new to say."""


class Verify(Protocol):
    """Whether the live generation is what the ledger leads to: a report whose `equal` says so."""

    async def __call__(self, resources: Resources, tenant: Tenant, tell: Tell = ...) -> Mapping[str, JsonValue]: ...


def load_verify() -> Verify:
    """The check of a tenant's live generation against a replay."""
    for entry in entry_points(group=_GROUP, name="verify"):
        return cast("Verify", entry.load())
    raise ConfigurationError("nothing can verify here: install the whole package")
