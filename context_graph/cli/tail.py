"""`context-graph tail`: events as they come, one a line, also across restarts of the service.

The id of the last message is what it goes on from, so a connection that breaks costs nothing but its pause.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated

import httpx2
import orjson
import typer
from rich.console import Console

from context_graph.cli.client import ServiceAway, ServiceClient, ServiceRefused
from context_graph.cli.client_commands import Data, Key, Raw, Url, open_client
from context_graph.cli.reports import describe_problem
from context_graph.ingest.transcript_envelopes import JsonObject

_PATH = "/v1/events/tail"
_LONGEST_PAUSE = 10.0
_PATIENCE = 20  # tries in a row without an answer: some three minutes
_TRIES_AT_FIRST = 3  # a wrong address stays wrong
_SILENCE = 60.0  # seconds without even a keep-alive (one is sent every 15) after which the connection is dead


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the stream; `data` is None where only the place is told."""

    event: str
    id: str | None
    data: JsonObject | None


@dataclass(slots=True)
class _Parser:
    """Server-sent events from lines (WHATWG HTML, 9.2.6); the service sends one JSON value a message."""

    event: str = "message"
    id: str | None = None
    data: list[str] = field(default_factory=list)

    def line(self, text: str) -> Message | None:
        """The message that an empty line ends."""
        if not text:
            value = orjson.loads("\n".join(self.data)) if self.data else None
            message = Message(self.event, self.id, value if isinstance(value, dict) else None)
            self.event, self.data = "message", []
            return message
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self.event = value
            case "id":
                self.id = value
            case "data":
                self.data.append(value)
        return None


async def messages(client: ServiceClient, query: dict[str, str | list[str]]) -> AsyncGenerator[Message, None]:
    """The stream's messages, connection after connection. Raises ServiceRefused, ServiceAway when it stays away."""
    last: str | None = None
    failures = 0
    while True:
        headers = {} if last is None else {"Last-Event-ID": last}
        reason = "the stream ended"
        try:
            timeout = httpx2.Timeout(10, read=_SILENCE)
            async with client.http.stream("GET", _PATH, params=query, headers=headers, timeout=timeout) as response:
                await _check(response)
                parser = _Parser(id=last)
                async for line in response.aiter_lines():
                    message = parser.line(line)
                    if message is not None:
                        last, failures = message.id, 0
                        yield message
        except httpx2.TransportError as error:
            reason = str(error) or type(error).__name__
        except ServiceAway as error:
            reason = str(error)
        failures += 1
        if failures >= (_PATIENCE if last is not None else _TRIES_AT_FIRST):
            raise ServiceAway(f"the service does not answer: {reason}. Is it running (`context-graph up`)?")
        await asyncio.sleep(min(_LONGEST_PAUSE, 0.25 * 2.0 ** min(failures, 8)))


async def _check(response: httpx2.Response) -> None:
    if response.status_code == 200:
        return
    await response.aread()
    try:
        problem = response.json()
    except ValueError:
        problem = {"title": f"the service answered {response.status_code}"}
    said = describe_problem(problem) if isinstance(problem, dict) else str(problem)
    if response.status_code in (429, 502, 503, 504):
        raise ServiceAway(said)
    raise ServiceRefused(response.status_code, said)


def tail(
    *,
    session: Annotated[str | None, typer.Option(help="Only this session.")] = None,
    types: Annotated[list[str] | None, typer.Option("--type", help="Only this event type; repeat for several.")] = None,
    after: Annotated[
        str | None, typer.Option(help="A position: what is behind it; 0-0-0: everything; absent: from now on.")
    ] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """Follow events as they come, until Ctrl-C."""
    query: dict[str, str | list[str]] = {"event_type": types or []}
    query |= {name: value for name, value in (("session_id", session), ("after", after)) if value is not None}
    asyncio.run(_follow(open_client(url, key, data), query, _print_raw if raw else _print_line))


async def _follow(client: ServiceClient, query: dict[str, str | list[str]], show: Callable[[JsonObject], None]) -> None:
    notes = Console(stderr=True)
    async with client, aclosing(messages(client, query)) as stream:
        async for message in stream:
            if message.data is None:
                continue
            if message.event == "gap":
                bounds = f"{message.data.get('after')} … {message.data.get('until')}"
                notes.print(f"gap: {message.data.get('detail')} ({bounds})")
            else:
                show(message.data)


def _print_raw(event: JsonObject) -> None:
    print(orjson.dumps(event).decode(), flush=True)


def _print_line(event: JsonObject) -> None:
    payload = event.get("payload")
    text = ""
    if isinstance(payload, dict):
        text = next((str(payload[name]) for name in ("text", "content", "message") if payload.get(name)), "")
        text = text or orjson.dumps(payload).decode()
    elif payload is not None:
        text = str(payload)
    shown = " ".join(text.split())
    shown = shown if len(shown) <= 160 else shown[:159] + "…"
    print(f"{event['occurred_at']}  {event['session_id']}  {event['event_type']}  {shown}".rstrip(), flush=True)
