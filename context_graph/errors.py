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
    """Trying the same again later can succeed: a server is away, a model is loading. `retry_after`: seconds."""

    retry_after: int = 2


class PermanentError(ContextGraphError):
    """Trying the same again cannot succeed: the input, the configuration or a name is wrong."""


class StoreUnavailable(TemporaryError):
    """Redis did not answer, is loading its data, or refused for want of memory."""


class NotReplicated(StoreUnavailable):
    """An append was not confirmed by enough replicas in time. The events may be in the ledger: repeating is safe."""


class LeaseLostError(TemporaryError):
    """Another worker took over; whoever held the lease stops where it is, and nothing of it was written."""


class Overloaded(TemporaryError):
    """Nothing was written, so that what is written stays safe: memory is nearly full, or the stages are far behind."""

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class QuotaExceeded(TemporaryError):
    """Nothing was written: the tenant's quota does not cover it now. `quota` names which.

    `retry_after` 0: it never will, as long as so much comes at once.
    """

    def __init__(self, quota: str, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.quota = quota
        self.retry_after = retry_after


class ArchiveUnavailable(StoreUnavailable):
    """The archive's folder or object store did not answer."""


class LedgerBehind(StoreUnavailable):
    """The archive holds events that the ledger lost: nothing is appended there before they are restored."""


class ModelUnavailable(TemporaryError):
    """A model (embedder, recogniser, language model) did not answer."""


class PartlyDone(TemporaryError):
    """What can be done now is done and stored; the rest waits for something that is away.

    These events are delivered once more later, whole, and what came after them need not wait for that.
    """


class ArchiveDamaged(PermanentError):
    """A file of the archive is missing, cut off or changed; the message names it. Nothing is trimmed meanwhile."""


class ConfigurationError(PermanentError):
    """A setting, a file or a program is missing or wrong; the message says what to change."""


class ModelMissing(ConfigurationError):
    """This process cannot load the model that a generation's vectors were made by, or has another one in its place."""


class WrongDimensions(ConfigurationError):
    """A model makes vectors of `found` dimensions where `wanted` are set."""

    def __init__(self, model_id: str, found: int, wanted: int) -> None:
        super().__init__(
            f"{model_id} makes {found} dimensions, CG_EMBEDDING__DIMENSIONS says {wanted}: "
            f"set it to {found} and rebuild the index, or name a model of {wanted} dimensions"
        )
        self.model_id = model_id
        self.found = found


class VaultLocked(ConfigurationError):
    """What is sealed cannot be opened or sealed with the master keys that this process has."""


class ErasureUnavailable(PermanentError):
    """Nothing can be erased as this service is configured; the message says what to set."""


class Erased(PermanentError):
    """The person or session was erased: nothing more is kept about it. `kind`: user or session."""

    def __init__(self, kind: str, identifier: str) -> None:
        # Not by name: this ends in answers that are kept, and in logs.
        super().__init__(f"the event's {kind} was erased: nothing more is kept about it")
        self.kind = kind
        self.identifier = identifier


class AlreadyExists(PermanentError):
    """Something by that name is there already; nothing was changed."""


class NotNow(PermanentError):
    """What was asked for is not possible in the state that things are in; the message says what is. Nothing changed."""


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


class SchemaConflict(PermanentError):
    """That version of an event type's schema is stored with other content; nothing was written."""

    def __init__(self, event_type: str, version: int) -> None:
        super().__init__(f"version {version} of the schema of {event_type} exists with other content")
        self.event_type = event_type
        self.version = version


class EventConflict(PermanentError):
    """The event id is taken by an event with other content; nothing was written."""

    def __init__(self, event_id: str, position: str) -> None:
        super().__init__(f"event {event_id!r} exists at position {position} with other content")
        self.event_id = event_id
        self.position = position
