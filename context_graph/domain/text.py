"""Which text of an event is searched, embedded and shown, and who says it.

The text comes from the content of the payload (message, arguments, result, error, decision), never from ids and wire
syntax; the speaker, the time and the tool are fields of their own. A change here changes what every document and every
vector is made of: raise `TEXT_VERSION` with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from context_graph.domain.document import Document, DocumentKind
from context_graph.domain.echo import is_served, without_echo
from context_graph.domain.event import (
    ANSWER_REFUSED_TYPE,
    ENTITY_MERGE_TYPE,
    ENTITY_SPLIT_TYPE,
    ERASURE_TYPE,
    FACT_SUPERSEDED_TYPE,
    FACT_TYPE,
    FACTS_READ_TYPE,
    FEEDBACK_TYPE,
    FORGOTTEN_TYPE,
    PINNED_TYPE,
    RECALLED_TYPE,
    RECEIPT_TYPE,
    REREAD_TYPE,
    SUMMARY_TYPE,
    UNPINNED_TYPE,
    Envelope,
    JsonValue,
    LedgerEvent,
)
from context_graph.domain.readable import inline, key_words, parsed, readable, scalar
from context_graph.domain.words import LONGEST_WORD, storable

TEXT_VERSION = 4
IMAGE_MARK = "[image: "  # before the caption of a picture
# Characters of a document's text: about 1,500 tokens, six times what the embedder reads. A longer text keeps two
# thirds at its head and one third at its tail, where a log or a traceback has its conclusion.
MAX_TEXT = 6000
# Characters of a text whose words are searched; beyond these a text is known by its beginning alone. No setting: two
# processes that differ in it would index one event in two ways, and a rebuild would follow neither.
MAX_WORDS = 250_000
_CUT = " … "
SUMMARY_ID_PREFIX = "summary:"

_MESSAGE_KEYS = ("text", "content", "message", "body")
_RESULT_KEYS = ("result", "output", "content", "text", "message")
_ARGUMENT_KEYS = ("arguments", "args", "input", "parameters")
_ERROR_KEYS = ("message", "detail", "error", "reason")
# Members that say who, which or how, and nothing of what happened.
_WHO = ("speaker", "role", "name", "tool", "tool_name", "function")
_WIRE = ("type", "id", "index", "call_id", "tool_call_id", "message_id", "usage", "metadata", "model", "signature")
_HOW = ("stop_reason", "finish_reason", "refusal", "channel", "cache_control", "tool_use_id", "is_error")
_SILENT_KEYS = frozenset((*_WHO, *_WIRE, *_HOW))
_SPEAKING_KEYS = tuple(dict.fromkeys((*_MESSAGE_KEYS, *_RESULT_KEYS, "messages")))
_WORD_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_COMPOUND = re.compile(
    r"(?<![A-Za-z0-9])(?:[A-Za-z0-9]++(?:[_/.:\\-]++[A-Za-z0-9]++)+|[a-z0-9]++(?:[A-Z][a-z0-9]++)+|(?:[A-Z][a-z0-9]++){2,})"
)
_MAX_PARTS = 100

_SILENT_TYPES = frozenset(
    (
        RECEIPT_TYPE, FEEDBACK_TYPE, ERASURE_TYPE, ENTITY_MERGE_TYPE, ENTITY_SPLIT_TYPE,
        FORGOTTEN_TYPE, RECALLED_TYPE, PINNED_TYPE, UNPINNED_TYPE,
        FACT_TYPE, FACT_SUPERSEDED_TYPE, FACTS_READ_TYPE, ANSWER_REFUSED_TYPE, REREAD_TYPE,
    )
)  # fmt: skip

_Object = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Searchable:
    """What is said (at most MAX_TEXT characters), by whom, and what was cut out (to be searched by its words)."""

    text: str
    speaker: str
    rest: str = ""
    whole: int | None = None
    """Characters before it was cut; None where it was not."""


def indexed(envelope: Envelope) -> bool:
    """Whether an event is searched: receipts and feedback would find themselves, and tombstones say nothing.

    Facts are not: the events that say them are, and of what no longer holds nothing should be found as if it did.
    """
    return envelope.event_type not in _SILENT_TYPES


def searchable(envelope: Envelope) -> Searchable:
    """The text and the speaker of an event. The text is empty only when the event says nothing but its type."""
    payload = envelope.payload
    lines = list(_lines(envelope, payload)) if isinstance(payload, dict) else [readable(payload)]
    text = storable(without_echo("\n".join(line for line in lines if line)).strip() or _named(envelope)).strip()
    whole = len(text) if len(text) > MAX_TEXT else None
    return Searchable(cut(text, MAX_TEXT), _speaker(envelope), _rest(text), whole)


def _rest(text: str) -> str:
    """What `cut` leaves out, with a word's length on either side: the cut may go through one."""
    if len(text) <= MAX_TEXT:
        return ""
    tail = MAX_TEXT // 3
    head = MAX_TEXT - tail - len(_CUT)
    return text[head - LONGEST_WORD : len(text) - tail + LONGEST_WORD][:MAX_WORDS]


def document_of(event: LedgerEvent, importance: int, found: Searchable | None = None) -> Document:
    """The document of an event. A summary's id is that of its scope, so that a newer one takes an older one's place.

    `found`: what of the event is searched, where it is known.
    """
    envelope = event.envelope
    found = found or searchable(envelope)
    is_summary = envelope.event_type == SUMMARY_TYPE
    kinds: dict[str, DocumentKind] = {SUMMARY_TYPE: "summary", FACT_TYPE: "fact"}
    return Document(
        id=SUMMARY_ID_PREFIX + summary_scope(envelope) if is_summary else envelope.event_id,
        kind=kinds.get(envelope.event_type, "event"),
        text=found.text,
        speaker=found.speaker,
        event_ids=cited_events(envelope),
        position=event.position,
        event_type=envelope.event_type,
        session_id=envelope.session_id,
        agent_id=envelope.agent_id,
        occurred_at=envelope.occurred_at,
        origin=envelope.known_origin,
        tool_name=envelope.tool_name,
        user_id=envelope.user_id,
        status=envelope.status,
        importance=importance,
        rest=found.rest,
        whole=found.whole,
    )


def session_scope(session_id: str) -> str:
    """The scope of a session's summaries."""
    return f"session/{session_id}"


def summary_scope(envelope: Envelope) -> str:
    """What a summary summarises: `session/<id>` unless its payload says otherwise."""
    scope = envelope.payload.get("scope") if isinstance(envelope.payload, dict) else None
    return scope if isinstance(scope, str) and scope else session_scope(envelope.session_id)


def cited_events(envelope: Envelope) -> tuple[str, ...]:
    """The events that a summary's sentences cite, each once, in order, or a fact's evidence; else the event itself."""
    if envelope.event_type == FACT_TYPE:
        return envelope.causes or (envelope.event_id,)
    if envelope.event_type != SUMMARY_TYPE:
        return (envelope.event_id,)
    sentences = envelope.payload.get("sentences") if isinstance(envelope.payload, dict) else None
    cited: dict[str, None] = {}
    for sentence in sentences if isinstance(sentences, list) else ():
        ids = sentence.get("event_ids") if isinstance(sentence, dict) else None
        for event_id in ids if isinstance(ids, list) else ():
            if isinstance(event_id, str):
                cited[event_id] = None
    return tuple(cited) or (envelope.event_id,)


def cut(text: str, limit: int) -> str:
    """`text`, or its head and tail around an ellipsis, at most `limit` characters."""
    text = text.strip()
    if len(text) <= limit:
        return text
    tail = limit // 3
    return text[: limit - tail - len(_CUT)].rstrip() + _CUT + text[-tail:].lstrip()


def name_parts(text: str) -> str:
    """The words inside names (`src/auth/parse_token.py` → `src auth parse token py`), lower case, each once.

    The index splits text neither at slashes and underscores nor inside camel case; these words make a name findable by
    its parts. At most 100 words.
    """
    words: dict[str, None] = {}
    for compound in _COMPOUND.finditer(text):
        for part in _WORD_PART.finditer(compound.group()):
            if len(part.group()) > 1:
                words[part.group().lower()] = None
        if len(words) >= _MAX_PARTS:
            break
    return " ".join(list(words)[:_MAX_PARTS])


def _lines(envelope: Envelope, payload: _Object) -> Iterator[str]:
    """The readers of the table, in order, then whatever members no reader has used: nothing that is said is lost."""
    if envelope.event_type in (SUMMARY_TYPE, FACT_TYPE) and isinstance(payload.get("text"), str):
        yield scalar(payload["text"])
        return
    used: set[str] = set()
    for keys, read in _readers(envelope):
        key = next((key for key in keys if key not in used and payload.get(key) not in (None, "", [], {})), None)
        if key is not None:
            used.add(key)
            yield read(payload[key])
    yield from _others(payload, used)


def _others(value: _Object, used: Collection[str]) -> Iterator[str]:
    """The members that nothing has read: what is a text by its name first and without the name, then `key: value`."""
    rest = {key: member for key, member in value.items() if key not in used and key not in _SILENT_KEYS}
    for key in _SPEAKING_KEYS:
        if key in rest:
            yield _content(rest.pop(key))
    yield readable(rest)


_Reader = tuple[tuple[str, ...], Callable[[JsonValue], str]]


def _readers(envelope: Envelope) -> tuple[_Reader, ...]:
    """Which members are read how, in order; of each row the first member that is there."""
    segments = envelope.event_type.split(".")
    title: _Reader = (("title", "subject"), scalar)
    message: _Reader = (_MESSAGE_KEYS, _content)
    calls: _Reader = (("tool_calls",), _calls)
    call: _Reader = (_ARGUMENT_KEYS, lambda value: _call(_tool_of(envelope), value))
    result: _Reader = (_RESULT_KEYS, _content)
    caption: _Reader = (("image_caption",), lambda value: f"{IMAGE_MARK}{scalar(value)}]")
    error: _Reader = (("error",), _error)
    if segments[0] == "tool" and "call" in segments:
        return (call, error)
    if segments[0] == "tool":
        return (call, result, error)
    if envelope.tool_name is not None:
        return (title, message, call, calls, caption, error)
    return (title, message, calls, caption, error)


def _content(value: JsonValue, depth: int = 0) -> str:
    """A message's content: a string, a message, or a list of parts as model APIs have them (nested at most twice)."""
    if depth < 3:
        if isinstance(value, list) and any(
            isinstance(part, dict) and ("type" in part or "role" in part) for part in value
        ):
            return "\n".join(text for text in (_part(part, depth) for part in value) if text)
        if isinstance(value, dict) and "role" in value:
            return _part(value, depth)
    return readable(value)


def _part(part: JsonValue, depth: int) -> str:
    if not isinstance(part, dict):
        return readable(part)
    kind = part.get("type")
    if kind in ("tool_use", "function_call"):
        return _call(scalar(part.get("name")), part.get("input", part.get("arguments")))
    if kind == "search_result" and is_served(part.get("source")):
        return ""
    if kind in ("image", "image_url", "input_image"):
        return "[image]"
    key = next((key for key in ("text", "thinking", "content", "output") if part.get(key) is not None), None)
    if key is None and "tool_calls" not in part:
        return readable({key: value for key, value in part.items() if key not in _SILENT_KEYS})
    lines = [_content(part[key], depth + 1) if key else "", _calls(part.get("tool_calls") or [])]
    lines.append(readable({k: v for k, v in part.items() if k not in (key, "tool_calls") and k not in _SILENT_KEYS}))
    return "\n".join(line for line in lines if line)


def _calls(value: JsonValue) -> str:
    return "\n".join(_tool_call(call) for call in (value if isinstance(value, list) else [value]))


def _tool_call(call: JsonValue) -> str:
    """A call in the form of the chat APIs: `{"function": {"name", "arguments"}}`, or flat."""
    if not isinstance(call, dict):
        return readable(call)
    function = call.get("function")
    inner = function if isinstance(function, dict) else call
    arguments = next((inner[key] for key in _ARGUMENT_KEYS if key in inner), None)
    return _call(scalar(inner.get("name")), arguments)


def _call(name: str, arguments: JsonValue) -> str:
    """`tool_name(arg: value, …)`."""
    return f"{name or 'call'}({_arguments(parsed(arguments))})"


def _arguments(arguments: JsonValue) -> str:
    if isinstance(arguments, dict):
        pairs: Iterable[tuple[str, str]] = ((key_words(key), inline(value, 1)) for key, value in arguments.items())
        return ", ".join(f"{key}: {value}" for key, value in pairs if value)
    return inline(arguments)


def _error(value: JsonValue) -> str:
    """`Error: …` with the type or code in front of the message when both are there."""
    value = parsed(value)
    if isinstance(value, bool):
        return "Error" if value else ""
    if not isinstance(value, dict):
        text = readable(value)
        return text if text.lower().startswith("error") else f"Error: {text}"
    message = next((scalar(value[key]) for key in _ERROR_KEYS if isinstance(value.get(key), str)), "")
    kind = scalar(value.get("type") or value.get("code"))
    rest = {k: v for k, v in value.items() if k not in (*_ERROR_KEYS, "type") and (k != "code" or value.get("type"))}
    head = ": ".join(part for part in ("Error", kind, message) if part)
    return "\n".join(line for line in (head, readable(rest)) if line)


def _tool_of(envelope: Envelope) -> str:
    if envelope.tool_name is not None:
        return envelope.tool_name
    payload = envelope.payload if isinstance(envelope.payload, dict) else {}
    return next(
        (scalar(payload[key]) for key in ("name", "tool", "tool_name") if isinstance(payload.get(key), str)), ""
    )


def _named(envelope: Envelope) -> str:
    """For an event without content: its type, tool and status in words."""
    words = (envelope.event_type.replace(".", " ").replace("_", " "), envelope.tool_name, envelope.status)
    return " ".join(word for word in words if word)


def _speaker(envelope: Envelope) -> str:
    payload = envelope.payload if isinstance(envelope.payload, dict) else {}
    if isinstance(payload.get("speaker"), str) and payload["speaker"]:
        return scalar(payload["speaker"])
    first = envelope.event_type.partition(".")[0]
    if first == "tool":
        return (_tool_of(envelope) or "tool") if envelope.event_type.endswith("result") else envelope.agent_id
    for key in ("name", "role"):
        if isinstance(payload.get(key), str) and payload[key]:
            return scalar(payload[key])
    return {"user": "user", "system": "system", "memory": "memory"}.get(first, envelope.agent_id)
