"""Transcript records as turns: the neutral form between a file's own shape and events.

Owns reading one message of the OpenAI chat form, the `messages_display` text of few-shot files, and mini-swe-agent's
first protocol, in which commands stand as bash blocks in the assistant's text and outputs come back as user messages.
What a turn leads to is decided in `transcript_causes.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from context_graph.domain.event import JsonValue
from context_graph.ingest.transcript_envelopes import JsonObject, moment_of, parsed_json

Role = Literal["user", "assistant", "tool", "system", "other"]
_ROLES: dict[str, Role] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "function": "tool",
    "system": "system",
    "developer": "system",
}
_TIMES = ("timestamp", "created_at", "occurred_at", "created", "time")
_TEXT_PARTS = frozenset(("text", "input_text", "output_text"))


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call. `inferred`: the transcript shows only its result."""

    call_id: str | None
    tool_name: str | None
    arguments: JsonValue
    inferred: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. `text` is None when it says nothing; `parts` are contents that are no text; `at` is ms UTC."""

    role: Role
    text: str | None
    name: str
    calls: tuple[Call, ...] = ()
    call_id: str | None = None
    tool_name: str | None = None
    parts: tuple[JsonValue, ...] = ()
    reasoning: str | None = None
    at: int | None = None
    failed: bool | None = None


def turn_of_message(message: JsonObject) -> Turn:
    """A message of the OpenAI chat form. Unknown roles are kept as `other` under their own name."""
    name = str(message.get("role") or "unknown")
    role = _ROLES.get(name.lower(), "other")
    text, parts = text_and_parts(message.get("content"))
    refusal = message.get("refusal")
    if not text and isinstance(refusal, str):
        text = refusal
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    tool_name = message.get("name") if role == "tool" else None
    return Turn(
        role=role,
        text=text,
        name=name,
        calls=tuple(_calls(message)) if role == "assistant" else (),
        call_id=_text(message.get("tool_call_id")),
        tool_name=_text(tool_name),
        parts=parts,
        reasoning=reasoning if isinstance(reasoning, str) else None,
        at=_time_of(message),
    )


def text_and_parts(content: JsonValue) -> tuple[str | None, tuple[JsonValue, ...]]:
    """A content as its text (None when there is none) and the parts that are not text."""
    if content is None or isinstance(content, str):
        return content, ()
    if not isinstance(content, list):
        return None, (content,)
    texts: list[str] = []
    parts: list[JsonValue] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str):
            texts.append(str(part["text"]))
        else:
            parts.append(part)
    return "\n".join(texts) if texts else None, tuple(parts)


def _calls(message: JsonObject) -> Iterator[Call]:
    listed = message.get("tool_calls")
    for call in listed if isinstance(listed, list) else ():
        if isinstance(call, dict):
            yield _call(call, _text(call.get("id")))
    legacy = message.get("function_call")
    if isinstance(legacy, dict):
        yield _call({"function": legacy}, None)


def _call(call: JsonObject, call_id: str | None) -> Call:
    function = call.get("function") or call.get("custom")
    inner = function if isinstance(function, dict) else call
    arguments = inner.get("arguments", inner.get("input"))
    return Call(
        call_id=call_id,
        tool_name=_text(inner.get("name")),
        arguments=parsed_json(arguments) if isinstance(arguments, str) else arguments,
    )


def _text(value: JsonValue) -> str | None:
    return str(value) if isinstance(value, str | int) and value != "" else None


def _time_of(message: JsonObject) -> int | None:
    extra = message.get("extra")
    response = extra.get("response") if isinstance(extra, dict) else None
    for holder in (message, extra, response):
        for key in _TIMES if isinstance(holder, dict) else ():
            moment = moment_of(holder.get(key)) if isinstance(holder, dict) else None
            if moment is not None:
                return moment
    return None


_DISPLAY_LINE = re.compile(r"^(user|assistant|tool|system): ?", re.MULTILINE)


def turns_of_display(text: str) -> list[Turn]:
    """Turns of a `messages_display` text: `role: content`, contents running on until the next role.

    Such a text drops the calls: `assistant: None` in front of a tool's line is one, and where a tool's line follows a
    text the call is inferred behind that text, so that every result has a call. The tool's name is not known. Lines
    before the first role are kept as a system turn.
    """
    found = list(_DISPLAY_LINE.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    turns: list[Turn] = []
    head = text[: found[0].start() if found else len(text)].strip()
    if head:
        turns.append(Turn("system", head, "system"))
    for match, end in zip(found, ends, strict=True):
        content = text[match.end() : end].removesuffix("\n")
        role = _ROLES[match[1]]
        if role == "assistant" and content.strip() == "None":
            turns.append(Turn(role, None, match[1], calls=(Call(None, None, None, inferred=True),)))
        elif role == "tool":
            turns[-1:] = [*_with_call(turns[-1:]), Turn(role, content, match[1])]
        else:
            turns.append(Turn(role, content, match[1]))
    return turns


def _with_call(last: list[Turn]) -> Iterable[Turn]:
    """The turn before a tool's line, with a call in it; a call of its own when it was not the assistant's."""
    call = Call(None, None, None, inferred=True)
    if not last or last[0].role != "assistant":
        return (*last, Turn("assistant", None, "assistant", calls=(call,)))
    return last if last[0].calls else (replace(last[0], calls=(call,)),)


_BASH_BLOCK = re.compile(r"```bash\s*\n(.*?)\n?```", re.DOTALL)
_RETURN_CODE = re.compile(r"\s*<returncode>(-?\d+)</returncode>")


def with_shell_calls(turns: Iterable[Turn]) -> Iterator[Turn]:
    """mini-swe-agent's first protocol with its calls made explicit: one bash block is a call, the answer its result.

    A message without exactly one block is refused by that agent's environment, so the answer to it stays a user's.
    """
    waiting: str | None = None
    for number, turn in enumerate(turns):
        if turn.role == "assistant" and turn.text is not None:
            blocks = _BASH_BLOCK.findall(turn.text)
            waiting = f"bash-{number}" if len(blocks) == 1 else None
            calls = (Call(waiting, "bash", {"command": blocks[0]}),) if waiting is not None else ()
            yield replace(turn, calls=calls)
        elif turn.role == "user" and waiting is not None:
            code = _RETURN_CODE.match(turn.text or "")
            failed = code is not None and code[1] != "0"
            yield replace(turn, role="tool", call_id=waiting, tool_name="bash", failed=failed)
            waiting = None
        else:
            yield turn
