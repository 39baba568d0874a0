"""Formats: how items are shown to an agent, and therefore what they cost.

A `Format` is a row of the table: how one item looks by itself (to price it), under which heading it stands, and how all
of them look together (to send and to count exactly). Every item carries its citation `[n]`, n being its place in
`items`. Lines are lean, because in a small budget every token of overhead is evidence left out: the day stands once
above the lines of that day, the year once until it changes, and who says it once for lines of a day that follow each
other: `[3] nadia: Where is my parcel?`, then `[4] It was due on Monday.` A line with a colon always has its name, so
that no text can pass for somebody else's.

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
from context_graph.domain.text import IMAGE_MARK
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
    `shared` what it shares with others (its day, who says it), each with a name and a text: the first pays for it.
    """

    name: str
    alone: Callable[[Item], str]
    shared: Callable[[Item], Sequence[tuple[str, str]]]
    content: Callable[[Sequence[Item]], Content | None]
    counted: Callable[[Sequence[Item]], str]


def untrusted(item: Item) -> bool:
    """Whether others wrote the text: a tool's result or a document, not a person or the agent itself."""
    document = item.document
    return document.event_type.partition(".")[0] in _OUTSIDE or (
        document.origin == "tool" and document.event_type != "tool.call"
    )


def line(item: Item, ref: int, *, named: bool = True) -> str:
    """`[3] nadia: Where is my parcel?`, on one line; without the name where it is known from the line before."""
    text = " ".join(item.text.split())
    return f"[{ref}] {_speaker(item)}: {text}" if named else f"[{ref}] {text}"


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
    speaking: str | None = None
    for ref, item in numbered:
        if item.document.kind == "summary":
            lines.append(line(item, ref, named=False))
            continue
        day = item.document.occurred_at // _DAY_MS
        if day != last:
            at = _date(day)
            lines.append(_day(at, with_year=last is None or at.year != _date(last).year))
            last, speaking = day, None
        name = _speaker(item) if _named(item) else None
        lines.append(line(item, ref, named=name is not None and (name != speaking or not _can_go_on(item))))
        speaking = name
    return lines


def _named(item: Item) -> bool:
    """Whether somebody says it: summaries and facts are told by nobody."""
    return item.document.kind not in ("summary", "fact")


def _can_go_on(item: Item) -> bool:
    """Whether the line may stand without its name behind another of the same speaker: no colon but that of our mark."""
    return ":" not in item.text.replace(IMAGE_MARK, "")


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
    named = _named(item) and not _can_go_on(item)
    return line(item, _LONGEST_REF, named=named) + "\n"


def _line_shared(item: Item) -> Sequence[tuple[str, str]]:
    """The day, and the name on that day: an estimate, as lines of others may stand between two of a speaker."""
    if item.document.kind == "summary":
        return ()
    number = item.document.occurred_at // _DAY_MS
    above = (f"{item.section} {number}", _day_of(number))
    name = _speaker(item)
    return (above, (f"{above[0]} {name}", f" {name}:")) if _named(item) and _can_go_on(item) else (above,)


def _message_shared(item: Item) -> Sequence[tuple[str, str]]:
    return () if item.section == "recent" else _line_shared(item)


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
        Format("json", _line_alone, _line_shared, lambda items: None, markdown),
        Format("markdown", _line_alone, _line_shared, markdown, markdown),
        Format("messages", _message_alone, _message_shared, messages, _as_json(messages)),
        Format("anthropic", _block_alone, lambda item: (), anthropic, _as_json(anthropic)),
    )
}
