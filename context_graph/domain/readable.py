"""JSON as a person would read it: `key: value` lines instead of braces and quotes.

What is embedded, matched word by word and shown to an agent is this form: fewer tokens, and no syntax that drowns the
content. Keys lose their underscores, so that "flight number" finds `flight_number`. Depth and recursion are bounded:
whatever a caller sends, reading it ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from context_graph.domain.event import JsonValue

# Below this depth only the values are kept, in order: keys of keys of keys carry no meaning a search would ask for.
MAX_DEPTH = 5


def readable(value: JsonValue) -> str:
    """Any JSON value as text: an object's members one a line, a list's elements one a line, nested ones in brackets.

    A string that is itself a JSON object or list is read as such. Nulls and empty containers leave no trace.
    """
    value = parsed(value)
    if isinstance(value, dict):
        return "\n".join(_members(value, depth=0))
    if isinstance(value, list):
        return "\n".join(line for line in (inline(element) for element in value) if line)
    return inline(value)


def inline(value: JsonValue, depth: int = 0) -> str:
    """One line: `key: value, key: value`; nested objects in parentheses, list elements separated by semicolons."""
    value = parsed(value)
    if isinstance(value, dict):
        if depth >= MAX_DEPTH:
            return ", ".join(leaves(value))
        text = ", ".join(_members(value, depth))
        return f"({text})" if depth and text else text
    if isinstance(value, list):
        if depth >= MAX_DEPTH:
            return ", ".join(leaves(value))
        parts = [part for part in (inline(element, depth + 1) for element in value) if part]
        return ("; " if any(isinstance(element, dict | list) for element in value) else ", ").join(parts)
    return scalar(value)


def parsed(value: JsonValue) -> JsonValue:
    """A string that holds a JSON object or list, as that; everything else as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text or (text[0], text[-1]) not in {("{", "}"), ("[", "]")}:
        return value
    try:
        inner: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        return value
    return inner


def scalar(value: JsonValue) -> str:
    """A leaf as text. Embedded binary data (`data:` addresses) is named, not shown."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = value.strip()
        return "[data]" if text.startswith("data:") and ";base64," in text[:200] else text
    return str(value)


def leaves(value: JsonValue) -> Iterator[str]:
    """Every leaf of a value as text, in order of reading; keeps its own stack, so no depth can exhaust Python's."""
    stack: list[JsonValue] = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, dict):
            stack.extend(reversed(list(top.values())))
        elif isinstance(top, list):
            stack.extend(reversed(top))
        else:
            text = scalar(top)
            if text:
                yield text


def key_words(key: str) -> str:
    """`flight_number` → `flight number`; a key with a digit is likely an id (`credit_card_4421486`) and stays."""
    return key.strip() if any(letter.isdigit() for letter in key) else key.replace("_", " ").strip()


def _members(value: dict[str, JsonValue], depth: int) -> Iterator[str]:
    for key, member in value.items():
        text = inline(member, depth + 1)
        if text:
            yield f"{key_words(key)}: {text}"
