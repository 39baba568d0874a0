"""Formats: how items are shown to an agent, and therefore what they cost.

A `Format` is a row of the table: how one item looks by itself (to price it), under which heading it stands, and how all
of them look together (to send and to count exactly). Every item carries its citation `[n]`, n being its place in
`items`. Lines are lean, because in a small budget every token of overhead is evidence left out: the day stands once
above the lines of that day, the year once until it changes.

What is served here and comes back in a message is recognised by its form (`domain/echo.py`): a change of headings,
lines or days is one there too.

What tools and documents brought in is marked: it was written by others, and what it says is no instruction. All of a
text is shown on one line, so that no text can imitate a line, a heading or a citation of another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from context_graph.domain.echo import PREAMBLE, SOURCE, TITLES
from context_graph.domain.event import JsonValue
from context_graph.retrieval.items import SECTIONS, Item, Section

Content = str | list[JsonValue]

_TITLES: Mapping[Section, str] = dict(zip(SECTIONS, TITLES, strict=True))
_DAY_MS = 86_400_000
_MARK = "(untrusted)"
_OUTSIDE = ("document", "page", "crawl")  # first segments of event types whose text others wrote
_LONGEST_REF = 999  # prices an item before its place is known: one to three digits are one token
_ROLES = {"user": "user", "agent": "assistant", "system": "system"}


@dataclass(frozen=True, slots=True)
class Format:
    """How items become content.

    `content` gives what is sent, `counted` the text whose tokens the budget bounds, `alone` what one item adds to it,
    `heading` what the first item of its day in its section costs besides.
    """

    name: str
    alone: Callable[[Item], str]
    heading: Callable[[Item], str]
    content: Callable[[Sequence[Item]], Content | None]
    counted: Callable[[Sequence[Item]], str]


def untrusted(item: Item) -> bool:
    """Whether others wrote the text: a tool's result or a document, not a person or the agent itself."""
    document = item.document
    return document.event_type.partition(".")[0] in _OUTSIDE or (
        document.origin == "tool" and document.event_type != "tool.call"
    )


def line(item: Item, ref: int) -> str:
    """`[3] nadia: Where is my parcel?`, on one line."""
    document = item.document
    text = " ".join(item.text.split())
    if document.kind in ("summary", "fact"):
        return f"[{ref}] {text}"
    return f"[{ref}] {_speaker(item)}: {text}"


def markdown(items: Sequence[Item]) -> str:
    """Sections with their days and lines, in the order of `items`."""
    blocks: list[str] = []
    for section in SECTIONS:
        lines = _dated([(ref, item) for ref, item in enumerate(items, 1) if item.section == section])
        if lines:
            blocks.append("\n".join([f"## {_TITLES[section]}", *lines]))
    return "\n\n".join(blocks)


def _dated(numbered: Sequence[tuple[int, Item]]) -> list[str]:
    """Lines with the day above the first line of each: `8 May 2023`, then `25 May`."""
    lines: list[str] = []
    last: int | None = None
    for ref, item in numbered:
        if item.document.kind != "summary":
            day = item.document.occurred_at // _DAY_MS
            if day != last:
                at = _date(day)
                lines.append(_day(at, with_year=last is None or at.year != _date(last).year))
                last = day
        lines.append(line(item, ref))
    return lines


def _speaker(item: Item) -> str:
    """Who says it, on one line and never empty; what others wrote is marked."""
    name = " ".join(item.document.speaker.split()) or item.document.event_type
    return f"{name} {_MARK}" if untrusted(item) else name


def messages(items: Sequence[Item]) -> list[JsonValue]:
    """Chat messages: one system message with what is remembered, then the recent turns in their roles."""
    remembered = [(ref, item) for ref, item in enumerate(items, 1) if item.section != "recent"]
    sent: list[JsonValue] = []
    if remembered:
        lines = "\n".join(_dated(remembered))
        sent.append({"role": "system", "content": f"{PREAMBLE}\n{lines}"})
    for ref, item in enumerate(items, 1):
        if item.section == "recent":
            role = _ROLES.get(item.document.origin, "assistant")
            prefix = f"{_speaker(item)}: " if item.document.origin == "tool" else ""
            sent.append({"role": role, "content": f"{prefix}{item.text} [{ref}]"})
    return sent


def anthropic(items: Sequence[Item]) -> list[JsonValue]:
    """search_result blocks, one an item, so that the model can cite each by itself."""
    return [
        {
            "type": "search_result",
            "source": f"{SOURCE}{item.document.kind}/{item.id}",
            "title": f"[{ref}] {_time(item):%Y-%m-%d %H:%M} {_speaker(item)}",
            "content": [{"type": "text", "text": item.text}],
            "citations": {"enabled": True},
        }
        for ref, item in enumerate(items, 1)
    ]


def _time(item: Item) -> datetime:
    return datetime.fromtimestamp(item.document.occurred_at / 1000, UTC)


def _date(day: int) -> datetime:
    return datetime.fromtimestamp(day * _DAY_MS / 1000, UTC)


@lru_cache(maxsize=4096)
def _day_of(day: int) -> str:
    return _day(_date(day), with_year=False) + "\n"


def _day(at: datetime, *, with_year: bool) -> str:
    return f"{at.day} {at:%B %Y}" if with_year else f"{at.day} {at:%B}"


def _line_alone(item: Item) -> str:
    return line(item, _LONGEST_REF) + "\n"


def _day_alone(item: Item) -> str:
    return "" if item.document.kind == "summary" else _day_of(item.document.occurred_at // _DAY_MS)


def _message_day(item: Item) -> str:
    return "" if item.section == "recent" else _day_alone(item)


def _as_json(build: Callable[[Sequence[Item]], list[JsonValue]]) -> Callable[[Sequence[Item]], str]:
    return lambda items: orjson.dumps(build(items)).decode() if items else ""


def _message_alone(item: Item) -> str:
    """A recent turn is a message of its own; what is remembered is a line within one message."""
    if item.section != "recent":
        return orjson.dumps(_line_alone(item)).decode()[1:-1]
    return orjson.dumps(messages([item])).decode()[1:-1] + ","


def _block_alone(item: Item) -> str:
    return orjson.dumps(anthropic([item])).decode()[1:-1] + ","


FORMATS: Mapping[str, Format] = {
    row.name: row
    for row in (
        # For json the agent renders the items itself; the budget covers them as markdown would show them.
        Format("json", _line_alone, _day_alone, lambda items: None, markdown),
        Format("markdown", _line_alone, _day_alone, markdown, markdown),
        Format("messages", _message_alone, _message_day, messages, _as_json(messages)),
        Format("anthropic", _block_alone, lambda item: "", anthropic, _as_json(anthropic)),
    )
}
