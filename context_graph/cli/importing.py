"""Sending a file of events as one stream: `context-graph ingest --import`.

The file goes as it is, compressed or not; the service unpacks it and reads only as fast as it appends, so the bytes
that were taken show how far it is. A connection that breaks, or a service that asks for patience, means sending the
file again from its beginning: what is there already is a duplicate.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2

from context_graph.cli.client import Progress, ServiceAway, ServiceClient, ServiceRefused
from context_graph.cli.reports import EventProblem, IngestReport, describe_problem
from context_graph.errors import ConfigurationError
from context_graph.ingest.transcript_envelopes import JsonObject

_PATH = "/v1/events/import"
_ENCODINGS = {".gz": "gzip", ".zst": "zstd"}
_LINES = (".ndjson", ".jsonl")
_PIECE = 256 * 1024
_TRIES = 5
# The service may wait for its store before it takes more, or answers: longer than its own patience.
_TIMEOUT = httpx2.Timeout(connect=10, read=300, write=300, pool=10)


def importable(path: Path) -> str | None:
    """The file's encoding (None: plain). Raises ConfigurationError when it is no file of NDJSON by its name."""
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}; --import takes files, not folders")
    encoding = _ENCODINGS.get(path.suffix)
    inner = path.with_suffix("") if encoding is not None else path
    if inner.suffix not in _LINES:
        raise ConfigurationError(f"--import takes .ndjson and .jsonl, plain or as .gz or .zst, not {path.name}")
    return encoding


async def import_file(client: ServiceClient, path: Path, progress: Progress | None = None) -> IngestReport:
    """Send one file; `progress` is told how many bytes of it went out (negative: it begins anew).

    Raises ConfigurationError, ServiceRefused and ServiceAway.
    """
    encoding = importable(path)
    headers = {"Content-Type": "application/x-ndjson"} | ({"Content-Encoding": encoding} if encoding else {})
    for attempt in range(_TRIES):
        sent = _Sent(progress)
        try:
            response = await client.http.post(_PATH, content=_pieces(path, sent), headers=headers, timeout=_TIMEOUT)
        except httpx2.TransportError as error:
            reason = f"the connection broke: {str(error) or type(error).__name__}"
        else:
            if response.status_code not in (429, 503):
                return _report(response)
            reason = describe_problem(_json(response))
        sent.take_back()
        if attempt < _TRIES - 1:
            await asyncio.sleep(min(10.0, 0.5 * 2.0**attempt))
    raise ServiceAway(f"{reason}. What was sent is kept: run the same command again")


class _Sent:
    """Bytes told to the progress, so that a new try can take them back."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._total = 0

    def add(self, count: int) -> None:
        self._total += count
        if self._progress is not None:
            self._progress(count)

    def take_back(self) -> None:
        self.add(-self._total)


async def _pieces(path: Path, sent: _Sent) -> AsyncIterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece
                sent.add(len(piece))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from error


def _report(response: httpx2.Response) -> IngestReport:
    body = _json(response)
    summary = body if response.status_code == 200 else body.get("summary")
    if not isinstance(summary, dict):
        raise ServiceRefused(response.status_code, describe_problem(body))
    positions = summary.get("last_positions")
    return IngestReport(
        events=_number(summary, "lines"),
        created=_number(summary, "created"),
        duplicates=_number(summary, "duplicate"),
        invalid=_number(summary, "invalid"),
        conflicts=_number(summary, "conflict"),
        problems=tuple(_problems(summary)),
        last_positions=tuple(str(position) for position in positions) if isinstance(positions, list) else (),
        seconds=float(str(summary.get("seconds", 0))),
        broken=None if response.status_code == 200 else str(body.get("detail")),
    )


def _problems(summary: JsonObject) -> list[EventProblem]:
    errors = summary.get("first_errors")
    found: list[EventProblem] = []
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict):
            status = "conflict" if error.get("code") == "event-conflict" else "invalid"
            event_id, line = error.get("event_id"), error.get("line")
            reason = f"{error.get('pointer') or '/'}: {error.get('detail')} ({error.get('remedy')})"
            known = event_id if isinstance(event_id, str) else None
            found.append(EventProblem(line if isinstance(line, int) else 0, known, status, reason))
    return found


def _number(summary: JsonObject, name: str) -> int:
    value = summary.get(name)
    return value if isinstance(value, int) else 0


def _json(response: httpx2.Response) -> JsonObject:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ServiceRefused(response.status_code, f"the service answered {response.status_code} without a JSON object")
    return body
