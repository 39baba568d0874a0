"""Payload schemas compiled and applied: which schemas are taken, and what they find wrong with a payload.

Schemas come from outside and run on every event, so what a schema can cost is bounded when it is stored: its size, its
depth, and how many parts it has when every `$ref` is written out. References are local and never go in circles;
patterns run on an engine whose time is linear in the text (no lookaround, no backreferences), so no text can make one
slow. Nothing is ever fetched. The engine is jsonschema-rs: 0.4 µs where the Python one takes 25 µs for a small payload.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError

from context_graph.domain.event import Envelope
from context_graph.errors import FieldProblem, InvalidInput
from context_graph.ingest.quick_check import CheckedEvent
from context_graph.store.schemas import SchemaMode

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_SCHEMA_BYTES = 64 * 1024
MAX_SCHEMA_DEPTH = 40  # levels of JSON
MAX_EXPANDED = 1000  # objects and arrays with every $ref written out
_MOST_PROBLEMS = 20  # of one payload
_LONGEST_DETAIL = 300  # characters: the engine quotes the value
_REGEX = RegexOptions(size_limit=1_000_000, dfa_size_limit=1_000_000)  # bytes of a compiled pattern
_LOCAL = re.compile(r"#(/[^/%]+)*")  # a percent-encoded name would be another spelling of the same place
_LONGEST_CHAIN = 50  # references that lead to references
_REFUSED = ("$dynamicRef", "$dynamicAnchor", "$anchor", "$id", "$recursiveRef")

Owner = Literal["tenant", "service"]


@dataclass(frozen=True, slots=True)
class PayloadSchema:
    """One version of an event type's schema, compiled. `body` is its canonical JSON."""

    event_type: str
    version: int
    owner: Owner
    body: bytes
    validator: Draft202012Validator

    def problems(self, payload: object) -> list[FieldProblem]:
        """What is wrong with a payload, with pointers into the event; at most 20."""
        if self.validator.is_valid(payload):  # a quarter of the time of collecting nothing
            return []
        found: list[FieldProblem] = []
        for error in self.validator.iter_errors(payload):
            found.append(_problem(error, self))
            if len(found) == _MOST_PROBLEMS:
                break
        return found


@dataclass(frozen=True, slots=True)
class SchemaRules:
    """What a tenant's events are held against: the mode, and schemas by event type and version."""

    mode: SchemaMode
    schemas: Mapping[str, Mapping[int, PayloadSchema]]

    def check(self, event: CheckedEvent | Envelope) -> tuple[FieldProblem, ...]:
        """What the event's schema finds, as warnings. In strict mode it is raised as InvalidInput instead.

        Lenient: types and versions nobody described pass unsaid. Strict: they are refused. An event whose content lies
        elsewhere (`payload_ref` without a payload) has nothing to check.
        """
        schema = self.schemas.get(event.event_type, {}).get(event.schema_version)
        if schema is None:
            problems = [self._unknown(event)] if self.mode == "strict" else []
        elif event.payload is None and event.payload_ref is not None:
            problems = []
        else:
            problems = schema.problems(event.payload)
        if not problems:
            return ()
        if self.mode == "strict":
            raise InvalidInput(problems)
        return tuple(problems)

    def _unknown(self, event: CheckedEvent | Envelope) -> FieldProblem:
        versions = self.schemas.get(event.event_type)
        if versions is None:
            detail = f"no schema describes {event.event_type!r}, and this tenant takes only what is described"
            remedy = f"store one: PUT /v1/schemas/{event.event_type}/{event.schema_version}, or correct the type"
            return FieldProblem("/event_type", detail, remedy, "unknown-type")
        known = ", ".join(str(version) for version in sorted(versions))
        detail = f"{event.event_type} has no version {event.schema_version}; described are {known}"
        remedy = "send a described version, or store its schema"
        return FieldProblem("/schema_version", detail, remedy, "unknown-version")


def compile_schema(event_type: str, version: int, raw: object, owner: Owner) -> PayloadSchema:
    """The schema, compiled. Raises InvalidInput: no schema of draft 2020-12, too large, or with what is not taken."""
    if not isinstance(raw, dict):
        raise _refused("", "a schema is a JSON object", "send a JSON Schema of draft 2020-12", "object")
    try:
        body = orjson.dumps(raw, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise _refused("", f"it is not JSON that can be stored: {error}", "nest it less deep", "json") from error
    if len(body) > MAX_SCHEMA_BYTES:
        remedy = f"send at most {MAX_SCHEMA_BYTES:,}"
        problem = FieldProblem("", f"the schema has {len(body):,} bytes", remedy, "too-large")
        raise InvalidInput([problem], too_large=True)
    _check_dialect(raw)
    _check_words(raw, "", 0)
    _weight(raw, raw, {}, ())  # before the engine sees it: a circle would not end there
    try:
        validator = Draft202012Validator(raw, pattern_options=_REGEX, offline=True)
    except ValidationError as error:
        raise InvalidInput([_schema_problem(error)]) from error
    return PayloadSchema(event_type, version, owner, body, validator)


def _check_dialect(schema: dict[str, Any]) -> None:
    dialect = schema.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT:
        raise _refused("/$schema", f"the dialect is {dialect!r}", f"use draft 2020-12: {DIALECT}", "dialect")


def _check_words(value: object, pointer: str, depth: int) -> None:
    """No foreign or dynamic reference anywhere, and no endless depth."""
    if depth > MAX_SCHEMA_DEPTH:
        raise _refused(pointer, "the schema nests too deep", f"nest at most {MAX_SCHEMA_DEPTH} levels", "depth")
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_words(item, f"{pointer}/{index}", depth + 1)
    if not isinstance(value, dict):
        return
    for word, inner in value.items():
        place = f"{pointer}/{_escaped(word)}"
        if word in _REFUSED and isinstance(inner, str) and not (word == "$id" and depth == 0):
            raise _refused(place, f"{word} is not taken", "refer by `$ref` to `#/$defs/…`", "reference")
        if word == "$ref" and isinstance(inner, str) and _LOCAL.fullmatch(inner) is None:
            raise _refused(place, f"{inner!r} lies outside of the schema", "copy it under `$defs`", "reference")
        _check_words(inner, place, depth + 1)


def _weight(value: object, root: dict[str, Any], known: dict[str, int], path: tuple[str, ...]) -> int:
    """Objects and arrays in this value with every reference written out. Raises InvalidInput.

    Everything counts, data such as `enum` too: what a word means depends on where it stands. `known` remembers what a
    reference weighs; `path` is the chain of references that led here.
    """
    total = 1
    target = value.get("$ref") if isinstance(value, dict) else None
    if isinstance(target, str):
        if target in path:
            raise _refused("", f"{target!r} refers to itself", "write the levels out that you need", "recursion")
        if len(path) >= _LONGEST_CHAIN:
            raise _refused("", "references lead to references too often", "refer more directly", "complexity")
        if target not in known:
            known[target] = _weight(_resolved(target, root), root, known, (*path, target))
        total += known[target]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for inner in children:
        if isinstance(inner, dict | list):
            total += _weight(inner, root, known, path)
        if total > MAX_EXPANDED:
            detail = f"with every $ref written out it has over {MAX_EXPANDED:,} parts"
            raise _refused("", detail, "describe less, or share less", "complexity")
    return total


def _resolved(target: str, root: dict[str, Any]) -> object:
    """What `#` or `#/a/b` names. Raises InvalidInput when there is nothing."""
    found: Any = root
    for part in target.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            raise _refused("", f"{target!r} names nothing in the schema", "refer to `#/$defs/…`", "reference")
    return found


def _problem(error: ValidationError, schema: PayloadSchema) -> FieldProblem:
    path = [str(part) for part in error.instance_path]
    kind = error.kind.name
    if kind == "required":
        path.append(str(error.kind.as_dict().get("property", "")))
    pointer = "/payload" + "".join(f"/{_escaped(part)}" for part in path)
    detail = _short(error.message)
    remedy = f"send what version {schema.version} of {schema.event_type} asks for: GET /v1/schemas/{schema.event_type}"
    return FieldProblem(pointer, detail, f"{remedy}/{schema.version}", f"schema-{kind}")


def _schema_problem(error: ValidationError) -> FieldProblem:
    pointer = "".join(f"/{_escaped(str(part))}" for part in error.instance_path)
    remedy = "send a JSON Schema of draft 2020-12; patterns without lookaround and backreferences"
    return FieldProblem(pointer, _short(error.message), remedy, "schema")


def _refused(pointer: str, detail: str, remedy: str, code: str) -> InvalidInput:
    return InvalidInput([FieldProblem(pointer, detail, remedy, code)])


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_DETAIL else text[: _LONGEST_DETAIL - 1] + "…"
