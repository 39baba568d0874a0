"""Reading files of events and transcripts: records with the line they stand on, broken files told exactly.

JSON Lines are read line by line. A file that is one JSON value is loaded whole, but an array's elements are decoded one
after the other, so that what stands before a break is still read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import orjson

from context_graph.domain.event import JsonValue
from context_graph.errors import ConfigurationError, PermanentError
from context_graph.ingest.transcript_envelopes import JsonObject
from context_graph.ingest.transcripts import Importer, TranscriptOptions, UnknownForm

LINE_SUFFIXES = (".jsonl", ".ndjson")
_SUFFIXES = (*LINE_SUFFIXES, ".json")


class BrokenFile(PermanentError):
    """A file that cannot be read further; the message names the file, the line and the column."""


@dataclass(frozen=True, slots=True)
class Record:
    """A JSON value of a file, the line it begins on (from 1), and its place among several (from 0), if so."""

    value: JsonValue
    line: int
    index: int | None


@dataclass(frozen=True, slots=True)
class LocatedEvent:
    """An event as it will be sent, and the line of the record it came from."""

    event: JsonObject
    line: int


def files_of(paths: Iterable[Path]) -> list[Path]:
    """The files named, and of folders every .json, .jsonl and .ndjson file below, in order.

    Raises ConfigurationError naming what is not there.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
            if not inside:
                raise ConfigurationError(f"the folder {path} holds no .json, .jsonl or .ndjson file")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ConfigurationError(f"there is no file {path}")
    return list(dict.fromkeys(found))


def importer_for(path: Path, options: TranscriptOptions) -> Importer:
    """An importer for one file; it knows which sub-agents of a Claude Code session have a file of their own."""
    beside = path.with_suffix("") / "subagents"
    names = [file.stem.removeprefix("agent-") for file in beside.glob("agent-*.jsonl")] if beside.is_dir() else []
    return Importer(options, _stem(path), sub_agents=frozenset(names))


def _stem(path: Path) -> str:
    """`run.traj.json` → `run.traj`: the name without its last ending."""
    return path.name.removesuffix(path.suffix) or path.name


def events_of_file(path: Path, importer: Importer) -> Iterator[LocatedEvent]:
    """Every event of a file in order. Raises BrokenFile where the file cannot be read on."""
    line = 1
    for record in records_of_file(path):
        line = record.line
        try:
            for event in importer.events(record.value, record.index):
                yield LocatedEvent(event, line)
        except UnknownForm as error:
            raise BrokenFile(f"{path}, line {line}: {error}") from error
    for event in importer.rest():
        yield LocatedEvent(event, line)


def records_of_file(path: Path) -> Iterator[Record]:
    """The JSON values of a file. Raises BrokenFile, ConfigurationError when it cannot be opened."""
    try:
        with path.open("rb") as file:
            by_line = path.suffix in LINE_SUFFIXES or _first_line_is_whole(file.readline(), file.readline())
        if by_line:
            yield from _lines(path)
        else:
            yield from _whole(path, path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from error


def _first_line_is_whole(first: bytes, second: bytes) -> bool:
    """Whether a file without a telling name holds a value a line: its first line is an object and another follows."""
    if not second.strip() or not first.lstrip(b"\xef\xbb\xbf \t").startswith(b"{"):
        return False
    try:
        orjson.loads(first.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        return False
    return True


def _lines(path: Path) -> Iterator[Record]:
    index = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
            if not text:
                continue
            try:
                value = _value(text)
            except _NotJson as error:
                if number == 1 and text[:1] in b"{[" and len(text) < 3:
                    # A pretty-printed value under a name that promises lines.
                    yield from _whole(path, path.read_bytes())
                    return
                raise BrokenFile(f"{path}, line {number}, column {error.column}: {error}") from error
            yield Record(value, number, index)
            index += 1


class _NotJson(ValueError):
    def __init__(self, reason: str, column: int) -> None:
        super().__init__(reason)
        self.column = column


def _value(text: bytes) -> JsonValue:
    """A line's value. What orjson refuses and Python's json takes (unpaired surrogates) is repaired, not refused."""
    try:
        value: JsonValue = orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            return _well_formed(json.loads(text.decode(), parse_constant=_no_constant))
        except json.JSONDecodeError as error:
            raise _NotJson(f"not JSON: {error.msg}", error.colno) from error
        except UnicodeDecodeError as error:
            raise _NotJson(f"not UTF-8: {error.reason}", error.start + 1) from error
        except (ValueError, RecursionError) as error:
            raise _NotJson(f"not JSON: {error}", 1) from error
    return value


def _whole(path: Path, content: bytes) -> Iterator[Record]:
    """A file that is one JSON value: an object, or an array whose elements are records."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BrokenFile(f"{path}, line {line}: not UTF-8: {error.reason}") from error
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    at = _skip_space(text, 0)
    if at == len(text):
        return
    if text[at] != "[":
        value, end = _decoded(path, decoder, text, at)
        _expect_end(path, text, end)
        yield Record(value, 1, None)
        return
    yield from _elements(path, decoder, text, at + 1)


def _elements(path: Path, decoder: json.JSONDecoder, text: str, at: int) -> Iterator[Record]:
    index, line, counted = 0, 1, 0
    at = _skip_space(text, at)
    while text[at : at + 1] != "]" or index:
        line, counted = line + text.count("\n", counted, at), at
        value, at = _decoded(path, decoder, text, at)
        yield Record(value, line, index)
        index += 1
        at = _skip_space(text, at)
        mark = text[at : at + 1]
        if mark == "]":
            break
        if mark != ",":
            _broken(path, text, at, "the array goes on without a comma or ends without ]")
        at = _skip_space(text, at + 1)
    _expect_end(path, text, at + 1)


def _decoded(path: Path, decoder: json.JSONDecoder, text: str, at: int) -> tuple[JsonValue, int]:
    try:
        value, end = decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
        _broken(path, text, error.pos, f"not JSON: {error.msg}")
    except (ValueError, RecursionError) as error:
        _broken(path, text, at, f"not JSON: {error}")
    return (_well_formed(value) if "\\ud" in text[at:end].lower() else value), end


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _expect_end(path: Path, text: str, at: int) -> None:
    at = _skip_space(text, at)
    if at < len(text):
        _broken(path, text, at, "something follows the end of the JSON value")


def _broken(path: Path, text: str, at: int, reason: str) -> NoReturn:
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    raise BrokenFile(f"{path}, line {line}, column {column}: {reason}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _well_formed(value: JsonValue) -> JsonValue:
    """The value with unpaired surrogates, which UTF-8 cannot hold, as U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_well_formed(item) for item in value]
    if isinstance(value, dict):
        return {str(_well_formed(key)): _well_formed(item) for key, item in value.items()}
    return value
