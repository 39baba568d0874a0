"""Every error the service raises on purpose.

An error's class says whether trying again can help, and the delivery loop reads nothing else: a `TemporaryError`
is retried with backoff, a `PermanentError` is recorded and not retried. Vendor exceptions stop at `store/` and
`models/` and arrive here chained. What an error looks like over HTTP is decided in `api/problems.py` alone.
"""

from __future__ import annotations

from dataclasses import dataclass


class ContextGraphError(Exception):
    """The root: catch it to catch everything this service raises on purpose."""


class TemporaryError(ContextGraphError):
    """Trying the same again later can succeed: a server is away, a model is loading."""


class PermanentError(ContextGraphError):
    """Trying the same again cannot succeed: the input, the configuration or a name is wrong."""


class StoreUnavailable(TemporaryError):
    """Redis did not answer, is loading its data, or refused for want of memory."""


class ModelUnavailable(TemporaryError):
    """A model (embedder, recogniser, language model) did not answer."""


class ConfigurationError(PermanentError):
    """A setting, a file or a program is missing or wrong; the message says what to change."""


class UnknownThing(PermanentError):
    """Nothing by that id exists in this tenant. `kind` is what was asked for (event, receipt …)."""

    def __init__(self, kind: str, identifier: str) -> None:
        super().__init__(f"there is no {kind} {identifier!r} here")
        self.kind = kind
        self.identifier = identifier


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing wrong with one field: where (`pointer`, RFC 6901), what, and what to do about it."""

    pointer: str
    detail: str
    remedy: str
    code: str = "invalid"


class InvalidInput(PermanentError):
    """What the caller sent cannot be accepted; every field that is wrong is named with its remedy."""

    def __init__(self, problems: list[FieldProblem], *, too_large: bool = False) -> None:
        super().__init__("; ".join(f"{p.pointer or '/'}: {p.detail}" for p in problems))
        self.problems = problems
        self.too_large = too_large


class EventConflict(PermanentError):
    """The event id is taken by an event with other content; nothing was written."""

    def __init__(self, event_id: str, position: str) -> None:
        super().__init__(f"event {event_id!r} exists at position {position} with other content")
        self.event_id = event_id
        self.position = position
