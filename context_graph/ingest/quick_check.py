"""The quick way through the gate: an ordinary event becomes its canonical JSON in a third of the time.

`validation.py` is the law: it builds a model, an envelope, and an explanation for whatever is wrong, and costs 8 µs an
event of which an ordinary one needs none. Here every rule is asked in its cheapest form, and at the first thing that is
not plainly right the answer is None and the law decides. So nothing is refused here, and whatever is taken has the
bytes that the law would have made (`tests/laws/test_quick_check.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from context_graph.domain.event import ORIGINS, STATUSES, EventId, JsonValue, SessionId
from context_graph.domain.text import SUMMARY_ID_PREFIX

_EVENT_TYPE = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)+", re.ASCII)
_MINUTE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:", re.ASCII)
_MINUTES = 4096  # that are remembered
_TYPES = 1024
_SHALLOW = 200  # opening brackets: a value with no more nests no deeper, and 224 levels are allowed
_IDENTIFIERS: Final = frozenset({"agent_id", "event_id", "parent_event_id", "tool_name", "trace_id", "user_id"})
_NULLABLE: Final = (_IDENTIFIERS - {"agent_id"}) | {
    "ended_at", "status", "importance_hint", "origin", "payload", "payload_ref"
}  # fmt: skip
_REQUIRED: Final = frozenset({"agent_id", "event_id", "event_type", "occurred_at", "session_id"})
_ORIGINS: Final = frozenset(ORIGINS) - {"derived"}
_STATUSES: Final = frozenset(STATUSES)
_MOST_CAUSES = 64
_LENGTHS: Final = frozenset({20, 24})
Fields = dict[str, Any]


class CheckedEvent(NamedTuple):
    """A valid event: what is asked of it on its way, its canonical JSON, and the fields of that if they are at hand."""

    event_id: EventId
    session_id: SessionId
    event_type: str
    schema_version: int
    payload: JsonValue
    payload_ref: str | None
    body: bytes
    fields: Fields | None


def quick_check(raw: object, latest_ms: int, most_payload_bytes: int) -> CheckedEvent | None:
    """The event, if it is plainly valid; None when the whole gate has to look at it.

    `latest_ms`: the last time that is not too far in the future. The caller has given it an id.
    """
    if type(raw) is not dict:
        return None
    fields: Fields = {}
    for name, value in raw.items():
        if name in _IDENTIFIERS and value is not None:
            if type(value) is not str or not 0 < len(value) <= 128 or not value.isprintable():
                return None
        elif value is None:
            if name not in _NULLABLE:
                return None
            continue
        elif name != "payload":
            is_plain = _PLAIN.get(name)
            if is_plain is None or not is_plain(value):
                return None
        fields[name] = value
    return _whole(fields, latest_ms, most_payload_bytes) if fields.keys() >= _REQUIRED else None


def _whole(fields: Fields, latest_ms: int, most_payload_bytes: int) -> CheckedEvent | None:
    occurred_at = quick_ms(fields["occurred_at"])
    if occurred_at is None or occurred_at > latest_ms or not _hold_together(fields, occurred_at, latest_ms):
        return None
    fields["occurred_at"] = occurred_at
    version = fields.get("schema_version", 1)
    if version == 1:
        fields.pop("schema_version", None)
    try:
        body = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return None
    if len(body) > most_payload_bytes or body.count(b"{") + body.count(b"[") > _SHALLOW:
        return None
    return CheckedEvent(
        fields["event_id"],
        fields["session_id"],
        fields["event_type"],
        version,
        fields.get("payload"),
        None,
        body,
        fields,
    )


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_session_id(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= 256 and value.isprintable()


def _is_identifier(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= 128 and value.isprintable()


def _are_causes(value: Any) -> bool:
    return type(value) is list and len(value) <= _MOST_CAUSES and all(map(_is_identifier, value))


@lru_cache(_TYPES)
def _names_a_type(text: str) -> bool:
    """The service's own begin with `memory.`: whether one of these may come from outside, the whole gate says."""
    return len(text) <= 128 and _EVENT_TYPE.fullmatch(text) is not None and not text.startswith("memory.")


_PLAIN: Final[dict[str, Callable[[Any], bool]]] = {
    "event_type": lambda value: type(value) is str and _names_a_type(value),
    "session_id": _is_session_id,
    "occurred_at": _is_text,
    "ended_at": _is_text,
    "caused_by": _are_causes,
    "status": lambda value: type(value) is str and value in _STATUSES,
    "origin": lambda value: type(value) is str and value in _ORIGINS,
    "schema_version": lambda value: type(value) is int and 1 <= value <= 10_000,
    "importance_hint": lambda value: type(value) is int and 1 <= value <= 10,
}
"""Fields that are neither identifiers nor the payload: whether a value is plainly right, by itself."""


def _hold_together(fields: Fields, occurred_at: int, latest_ms: int) -> bool:
    """What no single field says by itself; takes an empty `caused_by` away and turns `ended_at` into a number."""
    event_id = fields["event_id"]
    if event_id.startswith(SUMMARY_ID_PREFIX) or fields.get("parent_event_id") == event_id:
        return False
    if "caused_by" in fields:
        causes = fields["caused_by"]
        if event_id in causes:
            return False
        if not causes:
            del fields["caused_by"]
    if "ended_at" in fields:
        ended_at = fields["ended_at"] = quick_ms(fields["ended_at"])
        return ended_at is not None and occurred_at <= ended_at <= latest_ms
    return True


def quick_ms(text: str) -> int | None:
    """Milliseconds of `2026-09-01T09:30:00Z` or `…00.123Z`, since 1970; None for everything else."""
    length = len(text)
    if length not in _LENGTHS or text[-1] != "Z":
        return None
    minute = _minute(text[:17])
    seconds, fraction = text[17:19], text[20:-1]
    digits = seconds + fraction
    if minute is None or seconds > "59" or not (digits.isascii() and digits.isdecimal()):
        return None
    if length == 20:
        return minute + 1000 * int(seconds)
    return minute + int(digits) if text[19] == "." else None


@lru_cache(_MINUTES)
def _minute(text: str) -> int | None:
    """Milliseconds of `2026-09-01T09:30:`."""
    if _MINUTE.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(f"{text}00").replace(tzinfo=UTC)
    except ValueError:
        return None
    ms = int(moment.timestamp()) * 1000
    return ms if ms >= 0 else None
