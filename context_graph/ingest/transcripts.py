"""Agent transcripts as events: the forms that are known, and the identity and time of a conversation.

Known forms of a record (a line of a JSON Lines file, an element of an array, a whole file): an event envelope, a chat
in the OpenAI form (`messages` or `traj`), a list of messages or a single one, a `messages_display` text, a line of a
Claude Code session. Everything here is pure: JSON values in, envelopes of the HTTP contract out, the same each time.
Details of a run that are no message (rewards, settings, token counts) are not imported.

Sessions are named by what names the conversation in the record, else by the file and the record's place in it. Times
that a transcript does not have are made up in one documented way: see `begins_at`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from hashlib import blake2b
from typing import Literal

from context_graph.domain.event import JsonValue
from context_graph.ingest.transcript_causes import Conversation, events_of_turns
from context_graph.ingest.transcript_claude import ClaudeSession, is_claude_entry
from context_graph.ingest.transcript_envelopes import JsonObject, milliseconds
from context_graph.ingest.transcript_turns import Turn, turn_of_message, turns_of_display, with_shell_calls

Form = Literal["envelope", "chat", "message", "messages", "display", "claude", "unknown"]

EPOCH_MS = milliseconds(datetime(2024, 1, 1, tzinfo=UTC))
_MINUTE_MS = 60_000
_SLOTS = 480  # minutes: sessions without times are spread over eight hours
_LONGEST_SESSION = 200
_SESSION_FIELDS = ("session_id", "conversation_id", "thread_id", "sessionId", "instance_id", "id")
_ENVELOPE_FIELDS = frozenset(("event_id", "agent_id", "occurred_at", "payload", "payload_ref"))
DEFAULT_AGENT = "assistant"


class UnknownForm(ValueError):
    """A record that is none of the known forms; the message says which there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptOptions:
    """What the caller knows better than the file. `started_at`: ms UTC of the first message of times-less records."""

    session: str | None = None
    agent: str | None = None
    user: str | None = None
    started_at: int | None = None


def form_of(record: JsonValue) -> Form:
    """Which of the known forms a record has."""
    if isinstance(record, list):
        return "messages" if record and all(isinstance(item, dict) and "role" in item for item in record) else "unknown"
    if not isinstance(record, dict):
        return "unknown"
    return next((form for form, has_form in _TELLS if has_form(record)), "unknown")


def events_of_transcript(
    record: JsonObject | list[JsonValue], options: TranscriptOptions, *, stem: str, index: int | None = None
) -> Iterator[JsonObject]:
    """The events of one conversation: a chat, a list of messages or a `messages_display` text.

    `stem` is the file's name without its ending, `index` the record's place in the file when it is not the only one:
    they name the session of a record that does not name itself. Raises UnknownForm.
    """
    fields: JsonObject = record if isinstance(record, dict) else {}
    turns = _turns_of(record)
    key = session_key(fields, stem, index)
    conversation = Conversation(
        key=key,
        session_id=options.session or key,
        agent_id=options.agent or _agent_of(fields),
        user_id=options.user or _user_of(fields),
        begins_at=options.started_at if options.started_at is not None else begins_at(turns, key),
    )
    yield from events_of_turns(turns, conversation)


def _turns_of(record: JsonObject | list[JsonValue]) -> list[Turn]:
    messages = record if isinstance(record, list) else _messages_of(record)
    if isinstance(messages, list):
        turns = [turn_of_message(message) for message in messages if isinstance(message, dict)]
        if len(turns) != len(messages):
            raise UnknownForm("a message is not a JSON object: each needs a role and a content")
        fields = record if isinstance(record, dict) else {}
        if str(fields.get("trajectory_format", "")).startswith("mini-swe-agent") and not any(t.calls for t in turns):
            return list(with_shell_calls(turns))
        return turns
    display = record.get("messages_display") if isinstance(record, dict) else None
    if not isinstance(display, str):
        raise UnknownForm(_FORMS)
    return turns_of_display(display)


_FORMS = (
    "this is no event (event_type), chat (messages, traj or messages_display), message (role) "
    "or Claude Code entry (type, uuid, sessionId)"
)


def _messages_of(record: JsonObject) -> JsonValue:
    for key in ("messages", "traj", "trajectory", "conversation"):
        found = record.get(key)
        if isinstance(found, list) and all(isinstance(item, dict) and "role" in item for item in found):
            return found
    return None


_TELLS: tuple[tuple[Form, Callable[[JsonObject], bool]], ...] = (
    ("envelope", lambda record: "event_type" in record),
    ("chat", lambda record: _messages_of(record) is not None),
    ("display", lambda record: isinstance(record.get("messages_display"), str)),
    ("claude", is_claude_entry),
    ("message", lambda record: "role" in record),
    # An event that lacks its type: the service says so, with the remedy.
    ("envelope", lambda record: not _ENVELOPE_FIELDS.isdisjoint(record)),
)


def session_key(fields: JsonObject, stem: str, index: int | None) -> str:
    """The session's name: the record's own, `<stem>-task<id>-trial<n>`, `<stem>-<index>`, or the stem."""
    for field in _SESSION_FIELDS:
        named = fields.get(field)
        if isinstance(named, str | int) and not isinstance(named, bool) and str(named).strip():
            own = str(named).strip()
            return (own if isinstance(named, str) else f"{stem}-{own}")[:_LONGEST_SESSION]
    stem = stem[: _LONGEST_SESSION - 60]
    if isinstance(fields.get("task_id"), str | int):
        trial = fields.get("trial")
        return f"{stem}-task{fields['task_id']}" + (f"-trial{trial}" if isinstance(trial, str | int) else "")
    return stem if index is None else f"{stem}-{index}"


def _agent_of(fields: JsonObject) -> str:
    for field in ("agent_id", "agent", "agent_name", "model"):
        named = fields.get(field)
        if isinstance(named, str) and named.strip():
            return named.strip()[:128]
    return DEFAULT_AGENT


def _user_of(fields: JsonObject) -> str | None:
    info = fields.get("info")
    task = info.get("task") if isinstance(info, dict) else None
    for holder in (fields, task):
        named = holder.get("user_id") if isinstance(holder, dict) else None
        if isinstance(named, str) and named.strip():
            return named.strip()[:128]
    return None


_STATED_TIME = re.compile(
    r"current (?:date and )?time is:? (\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d)?)(?: ?(UTC|GMT|Z|[ECMP][SD]T))?",
    re.IGNORECASE,
)
_ZONE_HOURS = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}


def begins_at(turns: list[Turn], key: str) -> int:
    """When a conversation without times began, ms UTC: from its content alone, so that every import says the same.

    The base is the time that a system message states ("The current time is 2024-05-15 15:00:00 EST"; no zone: UTC),
    else 2024-01-01T00:00:00Z. To it come 0 to 479 minutes drawn from the session's name, so that the sessions of a
    file lie apart; within a session a message takes a second.
    """
    slot = int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()) % _SLOTS
    return _stated_time(turns) + slot * _MINUTE_MS


def _stated_time(turns: list[Turn]) -> int:
    for turn in turns:
        match = _STATED_TIME.search(turn.text) if turn.role == "system" and turn.text else None
        if match is not None:
            zone = timezone(timedelta(hours=_ZONE_HOURS.get((match[3] or "UTC").upper(), 0)))
            try:
                return milliseconds(datetime.fromisoformat(f"{match[1]}T{match[2]}").replace(tzinfo=zone))
            except ValueError:
                continue
    return EPOCH_MS


class Importer:
    """Records of one file to events, in order.

    Holds what spans records: single messages, which are one conversation that `rest` ends, and a Claude Code session.
    `skipped` counts what became no event, by reason.
    """

    def __init__(self, options: TranscriptOptions, stem: str, *, sub_agents: frozenset[str] = frozenset()) -> None:
        self._options = options
        self._stem = stem
        self._messages: list[JsonValue] = []
        self.skipped: Counter[str] = Counter()
        self._claude = ClaudeSession(
            session=options.session,
            agent=options.agent,
            user=options.user,
            stem=stem,
            skipped=self.skipped,
            sub_agents=sub_agents,
        )

    def events(self, record: JsonValue, index: int | None) -> Iterator[JsonObject]:
        """The events that a record gives by itself. Raises UnknownForm."""
        form = form_of(record)
        if form == "message":
            self._messages.append(record)
        elif isinstance(record, dict) and form == "envelope":
            yield record
        elif isinstance(record, dict) and form == "claude":
            yield from self._claude.events(record)
        elif isinstance(record, dict | list) and form != "unknown":
            yield from events_of_transcript(record, self._options, stem=self._stem, index=index)
        else:
            raise UnknownForm(_FORMS)

    def rest(self) -> Iterator[JsonObject]:
        """The events of the single messages seen; call it behind the last record."""
        messages, self._messages = self._messages, []
        if messages:
            yield from events_of_transcript(messages, self._options, stem=self._stem)
