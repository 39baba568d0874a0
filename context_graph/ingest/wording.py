"""What is said about a field that does not fit: what is wrong with it, and what to change.

pydantic's codes are kept as the stable `code`; its words are not, they speak of input and validation. One table has a
sentence for each kind of fault, with the bound that was passed; what a pattern asks for is said by field.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic_core import ErrorDetails

from context_graph.errors import FieldProblem

_TIMES = ("occurred_at", "ended_at")
_TIME = "send RFC 3339 with an offset, such as 2026-09-01T09:30:00Z"
# Code -> what is wrong, what to change; `{…}` are pydantic's own bounds.
_WORDS: dict[str, tuple[str, str]] = {
    "missing": ("it is missing", "add it"),
    "extra_forbidden": ("there is no such field here", "remove it; in an event, what is your own goes inside payload"),
    "string_type": ("it is not a string", "send a string"),
    "string_too_short": (
        "it has fewer characters than {min_length}",
        "send a longer one, {min_length} characters at least",
    ),
    "string_too_long": (
        "it has more characters than {max_length}",
        "send a shorter one, {max_length} characters at most",
    ),
    "int_type": ("it is not a whole number", "send a whole number"),
    "int_from_float": ("it is not a whole number", "send a whole number"),
    "int_parsing": ("it is not a whole number", "send a whole number"),
    "float_type": ("it is not a number", "send a number"),
    "float_parsing": ("it is not a number", "send a number"),
    "finite_number": ("it is not a finite number", "send a finite number"),
    "bool_type": ("it is neither true nor false", "send true or false"),
    "bool_parsing": ("it is neither true nor false", "send true or false"),
    "list_type": ("it is not an array", "send an array"),
    "dict_type": ("it is not an object", "send an object"),
    "model_type": ("it is not an object", "send an object"),
    "model_attributes_type": ("it is not an object", "send an object"),
    "too_short": ("it has fewer than {min_length}", "send {min_length} or more"),
    "too_long": ("it has more than {max_length}", "send {max_length} at most"),
    "greater_than": ("it is not over {gt}", "send a number over {gt}"),
    "greater_than_equal": ("it is under {ge}", "send {ge} or more"),
    "less_than": ("it is not under {lt}", "send a number under {lt}"),
    "less_than_equal": ("it is over {le}", "send {le} or less"),
    "literal_error": ("it is none of {expected}", "send one of {expected}"),
    "enum": ("it is none of {expected}", "send one of {expected}"),
}
# What the pattern of a field means.
_FORMS: dict[str, tuple[str, str]] = {
    "event_type": ("an event type is dot-namespaced and lower case", "send something like user.message or tool.result"),
    "entities": (
        "an entity's id is its label in lower case, a colon and its name",
        "send ids as GET /v1/entities has them, such as place:new york",
    ),
    "label": ("a label is one lower-case word", "send something like person, org, place or id"),
    "name": ("it has other characters than lower-case letters, digits, - and _", "send something like acme-2"),
}
_PRINTABLE = ("it has control characters", "send printable characters")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was likely meant; None when none is near."""
    return next(iter(get_close_matches(name.lower(), known, n=1)), None)


def field_problem(details: ErrorDetails, known: Iterable[str] = ()) -> FieldProblem:
    """A fault that pydantic found, in words for whoever sent it; `known`: fields at the top."""
    location = [str(part).replace("~", "~0").replace("/", "~1") for part in details["loc"]]
    pointer = "/" + "/".join(location) if location else ""
    code, field = details["type"], location[0] if location else ""
    if field in _TIMES and code != "missing":
        return FieldProblem(pointer, _plain(details["msg"]), _TIME, code)
    if code == "string_pattern_mismatch":
        return FieldProblem(pointer, *_FORMS.get(field, _PRINTABLE), code)
    near = nearest(str(details["loc"][0]), known) if code == "extra_forbidden" and len(location) == 1 else None
    if near is not None:
        return FieldProblem(pointer, _WORDS[code][0], f"did you mean {near}?", code)
    return FieldProblem(pointer, *_said(code, details), code)


def _said(code: str, details: ErrorDetails) -> tuple[str, str]:
    if code not in _WORDS:
        said = _plain(details["msg"])
        return said, f"change it: {said}"
    bounds: dict[str, Any] = details.get("ctx", {})
    detail, remedy = (words.format_map(bounds) for words in _WORDS[code])
    return detail, remedy


def _plain(message: str) -> str:
    return message.replace("Input should be", "it should be").replace("Value error, ", "")
