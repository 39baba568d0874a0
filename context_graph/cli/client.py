"""The service's client: how the command line (and anything else in Python) talks to the HTTP API.

Sending is safe to repeat, because every event has its id before the first try; so connection errors, 429 and 503 are
tried again with backoff, honouring Retry-After. What the service refuses is never tried again: it is counted and shown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import httpx2
import orjson
from ulid import ULID

from context_graph.cli.files import BrokenFile, LocatedEvent, events_of_file, importer_for
from context_graph.cli.reports import IngestReport, Tally, describe_problem
from context_graph.errors import ConfigurationError, PermanentError, TemporaryError
from context_graph.ingest.transcript_envelopes import JsonObject
from context_graph.ingest.transcripts import TranscriptOptions

BATCH_EVENTS = 500
BATCH_BYTES = 4 * 1024 * 1024
_TRIES = 8
_LONGEST_WAIT = 30.0

Progress = Callable[[int], None]


class ServiceRefused(PermanentError):
    """The service said no. `status` is the HTTP status; the message is the problem with each field and its remedy."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ServiceAway(TemporaryError):
    """The service did not answer, or asked for patience until the last try."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    body: bytes
    line: int
    event_id: str


class ServiceClient:
    """An open connection to one service with one key: `async with ServiceClient(url, key) as client`."""

    def __init__(
        self,
        base_url: str,
        key: str | None,
        *,
        key_header: str = "X-Engine-API-Key",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        timeout: float = 60.0,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._sleep = sleep
        self._clock = clock
        self.has_key = bool(key)
        headers = {key_header: key} if key else {}
        # The key is for the service alone: no proxy of the environment sees it, and no redirect carries it on.
        self._http = httpx2.AsyncClient(
            base_url=self._base_url, headers=headers, timeout=timeout, trust_env=False, follow_redirects=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()

    @property
    def http(self) -> httpx2.AsyncClient:
        """The connection, with address and key: for streams in either direction."""
        return self._http

    async def ingest_events(
        self, envelopes: AsyncIterable[JsonObject] | Iterable[JsonObject], progress: Progress | None = None
    ) -> IngestReport:
        """Append events in batches; `progress` is told how many were answered. Lines count from 1 in order given.

        Events without an id get a UUIDv7 here. Raises ServiceRefused (the whole request) and ServiceAway.
        """
        began, tally = self._clock(), Tally()
        await self._send_all(_numbered(envelopes), tally, progress)
        return tally.report(self._clock() - began)

    async def ingest_file(
        self, path: Path, options: TranscriptOptions | None = None, progress: Progress | None = None
    ) -> IngestReport:
        """Append every event of a file. A file that breaks: what was before is in, and `broken` says where.

        Raises ConfigurationError (no such file), ServiceRefused and ServiceAway.
        """
        began, tally = self._clock(), Tally()
        importer = importer_for(path, options or TranscriptOptions())
        breaks: list[BrokenFile] = []
        await self._send_all(_until_broken(events_of_file(path, importer), breaks), tally, progress)
        return replace(
            tally.report(self._clock() - began),
            skipped=tuple(sorted(importer.skipped.items(), key=lambda item: -item[1])),
            broken=str(breaks[0]) if breaks else None,
        )

    async def context(self, body: JsonObject) -> JsonObject:
        """Working memory: the body and the answer of `POST /v1/context`."""
        return await self._json("POST", "/v1/context", body)

    async def search(self, body: JsonObject) -> JsonObject:
        """The answer of `POST /v1/search`."""
        return await self._json("POST", "/v1/search", body)

    async def event(self, event_id: str) -> JsonObject:
        """One event with its position."""
        return await self._json("GET", f"/v1/events/{quote(event_id, safe='')}")

    async def lineage(self, event_id: str, direction: str = "causes", max_depth: int | None = None) -> JsonObject:
        """The graph of an event's causes, effects or both."""
        depth = "" if max_depth is None else f"&max_depth={max_depth}"
        return await self._json("GET", f"/v1/events/{quote(event_id, safe='')}/lineage?direction={direction}{depth}")

    async def receipt_content(self, receipt_id: str) -> JsonObject:
        """What a receipt's context was, rendered again."""
        return await self._json("GET", f"/v1/receipts/{quote(receipt_id, safe='')}/content")

    async def known_before(self, event_id: str) -> JsonObject:
        """What an agent had been served before an event; waits until what came before it can be found."""
        position = (await self.event(event_id)).get("position")
        path = f"/v1/events/{quote(event_id, safe='')}/context"
        return await self._json("GET", f"{path}?min_position={position}&wait_ms=10000")

    async def feedback(self, receipt_id: str, body: JsonObject) -> JsonObject:
        """The body and the answer of `POST /v1/receipts/{id}/feedback`."""
        return await self._json("POST", f"/v1/receipts/{quote(receipt_id, safe='')}/feedback", body)

    async def forget(self, kind: str, identifier: str, wait_ms: int) -> JsonObject:
        """Erase a person (`users`) or a session (`sessions`): the certificate as it stands after the wait."""
        return await self._json("DELETE", f"/v1/{kind}/{quote(identifier, safe='')}?wait_ms={wait_ms}")

    async def call(self, method: str, path: str, body: JsonObject | None = None) -> JsonObject:
        """Any request that is safe to repeat, with a JSON object in the answer."""
        return await self._json(method, path, body)

    async def wait_for(
        self,
        position: str,
        timeout: float = 30.0,  # noqa: ASYNC109 - the server waits
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Return when every stage has passed `position`, so that what was ingested is found by meaning too.

        `tell` is called every few seconds with what is still to do. Raises ServiceAway after `timeout` seconds.
        """
        deadline = self._clock() + timeout
        while True:
            left = deadline - self._clock()
            body: JsonObject = {
                "query": "position",
                "mode": "keyword",
                "limit": 1,
                "min_position": position,
                "wait_ms": int(max(0.0, min(left, 10.0)) * 1000),
            }
            meta = (await self.search(body)).get("meta")
            if isinstance(meta, dict) and meta.get("complete") is True:
                return
            if tell is not None:
                tell(await self._to_go())
            if self._clock() >= deadline:
                raise ServiceAway(f"the stages had not passed {position} after {timeout:g} s: look at /health/ready")

    async def _to_go(self) -> str:
        """How many events each stage has still to handle, in words."""
        response = await self._http.get("/health/ready")
        stages = orjson.loads(response.content).get("stages", [])
        waiting: dict[str, int] = {}
        for stage in stages:
            waiting[stage["stage"]] = waiting.get(stage["stage"], 0) + stage["lag"] + stage["pending"]
        words = [f"{name} has {count:,} events to go" for name, count in waiting.items() if count]
        return ", ".join(words) or "nearly done"

    async def _send_all(self, events: AsyncIterable[LocatedEvent], tally: Tally, progress: Progress | None) -> None:
        batch: list[_Prepared] = []
        size = 0
        async for located in events:
            item = _prepared(located)
            if batch and (len(batch) >= BATCH_EVENTS or size + len(item.body) > BATCH_BYTES):
                await self._send(batch, tally, progress)
                batch, size = [], 0
            batch.append(item)
            size += len(item.body) + 1
        if batch:
            await self._send(batch, tally, progress)

    async def _send(self, batch: list[_Prepared], tally: Tally, progress: Progress | None) -> None:
        """One batch, until every event of it has an answer that another try would not change."""
        waiting = batch
        for attempt in range(_TRIES):
            try:
                answer = await self._json("POST", "/v1/events/batch", _batch_body(waiting))
            except ServiceRefused as error:
                # The service may be set to smaller requests than ours.
                if error.status != 413 or len(waiting) == 1:
                    raise
                half = len(waiting) // 2
                await self._send(waiting[:half], tally, progress)
                await self._send(waiting[half:], tally, progress)
                return
            again = self._count(waiting, answer, tally, last=attempt == _TRIES - 1)
            if progress is not None:
                progress(len(waiting) - len(again))
            if not again:
                return
            waiting = again
            await self._sleep(_backoff(attempt))

    @staticmethod
    def _count(sent: list[_Prepared], answer: JsonObject, tally: Tally, *, last: bool) -> list[_Prepared]:
        """Count the answers; the events that failed for the moment come back, unless this was the last try."""
        results = answer.get("results")
        if not isinstance(results, list) or len(results) != len(sent):
            raise ServiceRefused(207, "the service did not answer for each event of the batch")
        again: list[_Prepared] = []
        for item, result in zip(sent, results, strict=True):
            if isinstance(result, dict):
                if result.get("status") == "failed" and not last:
                    again.append(item)
                else:
                    tally.add(item.line, item.event_id, result)
        return again

    async def _json(self, method: str, path: str, body: JsonObject | bytes | None = None) -> JsonObject:
        content = orjson.dumps(body) if isinstance(body, dict) else body
        response = await self._answered(method, path, content)
        if response.status_code >= 400:
            raise ServiceRefused(response.status_code, _refusal(response))
        value = _object(response)
        if value is None:
            raise ServiceRefused(response.status_code, f"{self._base_url}{path} did not answer with a JSON object")
        return value

    async def _answered(self, method: str, path: str, content: bytes | None) -> httpx2.Response:
        """An answer that is neither 429 nor 503. Raises ServiceAway after the last try."""
        reason = ""
        for attempt in range(_TRIES):
            wait = _backoff(attempt)
            try:
                response = await self._http.request(
                    method, path, content=content, headers={"Content-Type": "application/json"} if content else {}
                )
            except httpx2.InvalidURL as error:
                raise ConfigurationError(f"{self._base_url} is not an address: {error}") from error
            except httpx2.UnsupportedProtocol as error:
                raise ConfigurationError(f"{self._base_url} is not an address: begin it with http://") from error
            except httpx2.TransportError as error:
                reason = f"{self._base_url} did not answer: {str(error) or type(error).__name__}"
                # Nobody listens: a start takes seconds, a wrong address for ever.
                if isinstance(error, httpx2.ConnectError) and attempt >= 3:
                    break
            else:
                if response.status_code not in (429, 503):
                    return response
                reason = _refusal(response)
                wait = _retry_after(response) or wait
            if attempt < _TRIES - 1:
                await self._sleep(wait)
        raise ServiceAway(f"{reason}. Is it running (`context-graph up`)? Everything sent so far is kept; send again.")


async def _numbered(envelopes: AsyncIterable[JsonObject] | Iterable[JsonObject]) -> AsyncIterator[LocatedEvent]:
    number = 0
    if isinstance(envelopes, AsyncIterable):
        async for envelope in envelopes:
            number += 1
            yield LocatedEvent(envelope, number)
        return
    for number, envelope in enumerate(envelopes, 1):
        yield LocatedEvent(envelope, number)


async def _until_broken(events: Iterable[LocatedEvent], breaks: list[BrokenFile]) -> AsyncIterator[LocatedEvent]:
    """The events up to where the file breaks; the break goes into `breaks`."""
    try:
        for located in events:
            yield located
    except BrokenFile as error:
        breaks.append(error)


def _prepared(located: LocatedEvent) -> _Prepared:
    event = located.event
    if event.get("event_id") is None:
        event = event | {"event_id": str(ULID().to_uuid7(compliant=True))}
    return _Prepared(orjson.dumps(event), located.line, str(event["event_id"]))


def _batch_body(batch: list[_Prepared]) -> bytes:
    return b'{"events":[' + b",".join(item.body for item in batch) + b"]}"


def _backoff(attempt: int) -> float:
    return min(_LONGEST_WAIT, 0.25 * 2.0**attempt)


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds that the service asks for (a number or a date), at most 30."""
    text = response.headers.get("Retry-After", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return min(_LONGEST_WAIT, max(0.0, seconds))


def _object(response: httpx2.Response) -> JsonObject | None:
    try:
        value = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _refusal(response: httpx2.Response) -> str:
    problem = _object(response)
    if problem is not None and ("title" in problem or "detail" in problem):
        return describe_problem(problem)
    return f"the service answered {response.status_code} {response.reason_phrase}"
