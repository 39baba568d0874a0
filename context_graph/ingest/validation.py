"""The gate: JSON from outside becomes an `Envelope` or an error that names every wrong field and its remedy.

`EventIn` is also the schema that OpenAPI shows. Types are strict: a number is not a string, "5" is not 5. Times are
RFC 3339 strings with an offset, because a naive time or a bare number is a guess about what the caller meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from ulid import ULID

from context_graph.domain.event import (
    ANSWER_REFUSED_TYPE,
    ENTITY_MERGE_TYPE,
    ENTITY_SPLIT_TYPE,
    ERASURE_TYPE,
    FACT_SUPERSEDED_TYPE,
    FACT_TYPE,
    FACTS_READ_TYPE,
    FEEDBACK_TYPE,
    RECEIPT_TYPE,
    REREAD_TYPE,
    SUMMARY_TYPE,
    Envelope,
    EventId,
    Origin,
    SessionId,
    Status,
    iso,
)
from context_graph.domain.leap_seconds import without_leap_second
from context_graph.domain.text import SUMMARY_ID_PREFIX
from context_graph.errors import FieldProblem, InvalidInput
from context_graph.ingest.exact_json import large_integer
from context_graph.ingest.quick_check import CheckedEvent, quick_check
from context_graph.ingest.wording import field_problem
from context_graph.settings import LedgerSettings
from context_graph.store import codec

# No control characters: an id goes into paths, logs and citations.
_PRINTABLE = r"^[^\x00-\x1f\x7f]+$"
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=_PRINTABLE)]
SessionIdentifier = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=_PRINTABLE)]
EventType = Annotated[str, StringConstraints(max_length=128, pattern=r"^[a-z][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)+$")]
Timestamp = Annotated[
    str, StringConstraints(min_length=1, max_length=40), Field(json_schema_extra={"format": "date-time"})
]

_RESERVED_TYPES = (
    SUMMARY_TYPE, RECEIPT_TYPE, FEEDBACK_TYPE, ERASURE_TYPE, ENTITY_MERGE_TYPE, ENTITY_SPLIT_TYPE,
    FACT_TYPE, FACT_SUPERSEDED_TYPE, FACTS_READ_TYPE, ANSWER_REFUSED_TYPE, REREAD_TYPE,
)  # fmt: skip
_ROOM = 30  # levels that stored and rendered forms may put around a payload: orjson writes 254 levels and no more
_DEEPEST = 254 - _ROOM
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventIn(BaseModel):
    """What happened, as a caller says it."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        title="Event",
        json_schema_extra={
            "examples": [
                {
                    "event_id": "msg-1",
                    "event_type": "user.message",
                    "session_id": "order-4711",
                    "agent_id": "support",
                    "occurred_at": "2026-09-01T09:30:00Z",
                    "user_id": "nadia",
                    "payload": {"text": "Where is my parcel?"},
                }
            ]
        },
    )

    event_type: EventType = Field(description="dot-namespaced and lower case: user.message, tool.call, tool.result …")
    session_id: SessionIdentifier = Field(description="the conversation or run this belongs to")
    agent_id: Identifier = Field(description="who posts: the agent")
    occurred_at: Timestamp = Field(description="RFC 3339 with an offset; at most 300 s in the future")
    event_id: Identifier | None = Field(default=None, description="yours, for safe retries; absent: made here")
    trace_id: Identifier | None = None
    user_id: Identifier | None = Field(default=None, description="the person this event is about")
    parent_event_id: Identifier | None = Field(default=None, description="the event this one belongs under; a cause")
    caused_by: list[Identifier] = Field(default=[], max_length=64, description="events that led to this one")
    tool_name: Identifier | None = None
    ended_at: Timestamp | None = None
    status: Status | None = None
    schema_version: int = Field(default=1, ge=1, le=10_000)
    importance_hint: int | None = Field(default=None, ge=1, le=10)
    origin: Origin | None = Field(default=None, description="who the content comes from; absent: told by the type")
    payload: Any = Field(default=None, description="JSON: the content")
    payload_ref: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = Field(
        default=None, description="where a content too large for the ledger lies"
    )


@dataclass(frozen=True, slots=True)
class Validator:
    """Turns JSON values into envelopes under the ledger's limits. `now_ms` is the clock, in ms UTC."""

    settings: LedgerSettings
    now_ms: Callable[[], int]

    def latest_ms(self) -> int:
        """The last time that is not too far in the future, ms UTC."""
        return self.now_ms() + self.settings.max_future_seconds * 1000

    def checked(self, raw: object, latest_ms: int) -> CheckedEvent:
        """One event as it is stored; `latest_ms` as above, asked once for a batch. Raises as `envelope` does."""
        named = raw
        if isinstance(raw, dict) and raw.get("event_id") is None:
            named = raw | {"event_id": _new_id()}
        found = quick_check(named, latest_ms, self.settings.max_payload_bytes)
        if found is not None:
            return found
        envelope = self.envelope(raw)
        return CheckedEvent(
            envelope.event_id, envelope.session_id, envelope.event_type, envelope.schema_version, envelope.payload,
            envelope.payload_ref, codec.encode(envelope), None,
        )  # fmt: skip

    def envelope(self, raw: object) -> Envelope:
        """The envelope of one event. Raises InvalidInput naming each wrong field."""
        if not isinstance(raw, dict):
            raise InvalidInput([FieldProblem("", "an event is a JSON object", "send an object with event_type, …")])
        try:
            event = EventIn.model_validate(raw)
        except ValidationError as error:
            raise InvalidInput(problems_of(error, known=EventIn.model_fields)) from error
        problems: list[FieldProblem] = []
        occurred_at = self._time("occurred_at", event.occurred_at, problems)
        ended_at = None if event.ended_at is None else self._time("ended_at", event.ended_at, problems)
        too_large = self._check(event, occurred_at, ended_at, problems)
        if problems:
            raise InvalidInput(problems, too_large=too_large)
        return Envelope(
            event_id=EventId(event.event_id or _new_id()),
            event_type=event.event_type,
            session_id=SessionId(event.session_id),
            agent_id=event.agent_id,
            occurred_at=occurred_at,
            trace_id=event.trace_id,
            user_id=event.user_id,
            parent_event_id=None if event.parent_event_id is None else EventId(event.parent_event_id),
            caused_by=tuple(EventId(cause) for cause in event.caused_by),
            tool_name=event.tool_name,
            ended_at=ended_at,
            status=event.status,
            schema_version=event.schema_version,
            importance_hint=event.importance_hint,
            origin=event.origin,
            payload=event.payload,
            payload_ref=event.payload_ref,
        )

    def _time(self, field: str, text: str, problems: list[FieldProblem]) -> int:
        """Milliseconds UTC; 0 with a problem noted when the text is not a time this service takes."""
        match = _RFC3339.fullmatch(text)
        if match is None:
            problems.append(_time_problem(field, f"{text!r} is not an RFC 3339 time"))
            return 0
        if match[2] is None:
            problems.append(_time_problem(field, f"{text!r} has no offset, so the moment it means is unknown", "naive"))
            return 0
        try:
            moment = datetime.fromisoformat(without_leap_second(text.upper()))
        except ValueError as error:
            problems.append(_time_problem(field, f"{text!r} is not a time: {error}"))
            return 0
        since = moment - _EPOCH
        ms = since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
        ahead = ms - self.now_ms()
        if ahead > self.settings.max_future_seconds * 1000:
            detail = f"{text!r} lies {ahead // 1000} s in the future"
            limit = self.settings.max_future_seconds
            remedy = f"send when it happened, at most {limit} s ahead of this server ({iso(ms - ahead)})"
            problems.append(FieldProblem(f"/{field}", detail, remedy, "future"))
        elif ms < 0:
            problems.append(FieldProblem(f"/{field}", f"{text!r} lies before 1970", "send a time since 1970", "past"))
        return ms

    def _check(self, event: EventIn, occurred_at: int, ended_at: int | None, problems: list[FieldProblem]) -> bool:
        """What no single field can say by itself. Returns whether the payload is too large."""
        if event.event_id is not None:
            if event.event_id.startswith(SUMMARY_ID_PREFIX):
                detail = f"ids that begin with {SUMMARY_ID_PREFIX!r} are those of summaries"
                problems.append(FieldProblem("/event_id", detail, "use another id", "reserved"))
            if event.parent_event_id == event.event_id:
                problems.append(_own_cause("/parent_event_id", event.event_id))
            problems += [
                _own_cause(f"/caused_by/{index}", event.event_id)
                for index, cause in enumerate(event.caused_by)
                if cause == event.event_id
            ]
        if ended_at is not None and not problems and ended_at < occurred_at:
            detail, remedy = "it ends before it occurs", "send ended_at at or after occurred_at"
            problems.append(FieldProblem("/ended_at", detail, remedy, "order"))
        if event.origin == "derived" or event.event_type in _RESERVED_TYPES:
            pointer = "/origin" if event.origin == "derived" else "/event_type"
            detail = "derived events (summaries, receipts, feedback) are appended by the service alone"
            problems.append(FieldProblem(pointer, detail, "use another origin or type", "reserved"))
        return self._check_payload(event, problems)

    def _check_payload(self, event: EventIn, problems: list[FieldProblem]) -> bool:
        if event.payload is None:
            return False
        limit = self.settings.max_payload_bytes
        try:
            size = len(orjson.dumps(_wrapped(event.payload))) - 2 * _ROOM
        except orjson.JSONEncodeError as error:
            large = large_integer(event.payload)
            if large is not None:
                detail = "the integer does not fit 64 bits and would not come out as it went in"
                problems.append(FieldProblem(f"/payload{large}", detail, "send it as a string", "integer"))
                return False
            remedy = f"nest at most {_DEEPEST} levels"
            problems.append(FieldProblem("/payload", f"it nests too deep: {error}", remedy, "depth"))
            return False
        if size <= limit:
            return False
        detail = f"the payload is {size:,} bytes as JSON; the limit is {limit:,}"
        remedy = "split it into events, store it elsewhere and send payload_ref, or raise CG_LEDGER__MAX_PAYLOAD_BYTES"
        problems.append(FieldProblem("/payload", detail, remedy, "too-large"))
        return True


def _new_id() -> str:
    """A UUIDv7: ids made one after the other sort by time."""
    return str(ULID().to_uuid7(compliant=True))


def _wrapped(payload: Any) -> Any:
    """The payload inside as many arrays as answers and records may put around it."""
    for _ in range(_ROOM):
        payload = [payload]
    return payload


def _own_cause(pointer: str, event_id: str) -> FieldProblem:
    return FieldProblem(
        pointer, f"event {event_id!r} names itself as its cause", "name the event that came before", "cycle"
    )


def _time_problem(field: str, detail: str, code: str = "time") -> FieldProblem:
    return FieldProblem(f"/{field}", detail, "send RFC 3339 with an offset, such as 2026-09-01T09:30:00Z", code)


def problems_of(error: ValidationError | list[Any], prefix: str = "", known: Iterable[str] = ()) -> list[FieldProblem]:
    """Field problems of a pydantic error, for other request bodies; `prefix` is put before each pointer."""
    found = error.errors(include_url=False) if isinstance(error, ValidationError) else error
    return [
        FieldProblem(prefix + problem.pointer, problem.detail, problem.remedy, problem.code)
        for problem in (field_problem(details, known) for details in found)
    ]
