"""What every importer needs to make envelopes: deterministic ids, times as text, payloads that fit.

An imported event's id is a UUIDv5 of where it stands and what it says, so a second import of the same transcript finds
every event there already, and two transcripts that share a name never claim each other's ids. A payload beyond the
service's limit becomes a chain of events, part 1 of n to part n of n: nothing is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID, uuid5

import orjson

from context_graph.domain.event import JsonValue, Origin, Status, iso

# The namespace of every imported event id; changing it would make a second import append everything again.
_NAMESPACE = UUID("6f1d3c52-0b0e-5a44-9d0e-c0ffee5eed01")
# The service takes 256 KiB of payload unless told otherwise; a part stays below that with room for its own members.
PART_BYTES = 240 * 1024
_MOST_CAUSES = 64
_LONGEST_NAME = 128
_LONG_DIGITS = re.compile(r"(?<![\d.])\d{19}")

JsonObject = dict[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An event before it is known to fit one envelope. `content` is the payload member that may be split."""

    event_id: str
    event_type: str
    session_id: str
    agent_id: str
    occurred_at: int
    origin: Origin
    content: str
    payload: JsonObject
    caused_by: tuple[str, ...] = ()
    user_id: str | None = None
    tool_name: str | None = None
    status: Status | None = None


def derived_id(*parts: str) -> str:
    """The UUIDv5 of these parts, in order; stable across machines and releases."""
    return str(uuid5(_NAMESPACE, orjson.dumps(parts).decode()))


def envelopes_of(draft: Draft) -> Iterator[JsonObject]:
    """One envelope, or a chain of them when the payload is beyond PART_BYTES as JSON.

    The first part keeps the draft's id; each further part is caused by the one before it and by the draft's causes.
    """
    if len(orjson.dumps(draft.payload)) <= PART_BYTES:
        yield _envelope(draft)
        return
    draft = _only_content_long(draft)
    value = draft.payload[draft.content]
    room = PART_BYTES - len(orjson.dumps(draft.payload | {draft.content: ""})) - 64
    chunks = list(_chunks(value if isinstance(value, str) else orjson.dumps(value).decode(), room))
    previous: str | None = None
    for number, chunk in enumerate(chunks, 1):
        part_id = draft.event_id if number == 1 else derived_id(draft.event_id, "part", str(number))
        causes = draft.caused_by if previous is None else (previous, *draft.caused_by)
        payload = draft.payload | {draft.content: chunk, "part": number, "parts_total": len(chunks)}
        yield _envelope(replace(draft, event_id=part_id, caused_by=causes, payload=payload))
        previous = part_id


def _only_content_long(draft: Draft) -> Draft:
    """A draft whose other members are short: when they are not (embedded images), all goes into the content as JSON."""
    others = {key: value for key, value in draft.payload.items() if key != draft.content}
    if len(orjson.dumps(others)) <= PART_BYTES // 4:
        return draft
    short = {key: value for key, value in others.items() if len(orjson.dumps(value)) <= 1024}
    long = {key: value for key, value in draft.payload.items() if key not in short}
    return replace(draft, payload=short | {draft.content: long})


def _chunks(text: str, room: int) -> Iterator[str]:
    """Pieces of `text` that each take at most `room` bytes as JSON, cut behind a line end where one is near."""
    start = 0
    while start < len(text):
        low, high = 1, min(len(text) - start, room)
        while low < high:
            middle = (low + high + 1) // 2
            if len(orjson.dumps(text[start : start + middle])) <= room:
                low = middle
            else:
                high = middle - 1
        end = start + low
        if end < len(text):
            line_end = text.rfind("\n", start + low * 3 // 4, end)
            end = line_end + 1 if line_end > 0 else end
        yield text[start:end]
        start = end


def _envelope(draft: Draft) -> JsonObject:
    envelope: JsonObject = {
        "event_id": draft.event_id,
        "event_type": draft.event_type,
        "session_id": draft.session_id,
        "agent_id": draft.agent_id,
        "occurred_at": iso(draft.occurred_at),
        "origin": draft.origin,
        "payload": draft.payload,
    }
    if draft.caused_by:
        causes: list[JsonValue] = [*dict.fromkeys(draft.caused_by)]
        envelope["caused_by"] = causes[:_MOST_CAUSES]
    if draft.user_id is not None:
        envelope["user_id"] = draft.user_id
    if draft.tool_name:
        envelope["tool_name"] = draft.tool_name[:_LONGEST_NAME]
    if draft.status is not None:
        envelope["status"] = draft.status
    return envelope


def parsed_json(text: str) -> JsonValue:
    """The value that `text` is as JSON, else the text itself.

    Digits that a 64-bit number may not hold stay text: a long order number must come out as it went in.
    """
    if _LONG_DIGITS.search(text):
        return text
    try:
        value: JsonValue = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value


def moment_of(value: JsonValue) -> int | None:
    """Milliseconds UTC of a time as transcripts have them: RFC 3339 (naive means UTC), or seconds or ms since 1970."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        # 100,000,000,000 seconds lie in the year 5138, as many milliseconds in 1973: beyond it, it is milliseconds.
        moment = value if value > 1e11 else value * 1000
        return int(moment) if 0 < moment < 1e13 else None
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return milliseconds(parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC))


def milliseconds(moment: datetime) -> int:
    """Milliseconds since 1970 UTC, exact (a float of seconds would round)."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def type_word(text: str) -> str:
    """`text` as a segment of an event type: lower case, `[a-z0-9_-]`, beginning with a letter or digit."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:60] or "unknown"
