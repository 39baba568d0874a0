"""Server-sent events for tests: parsed as a browser would."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its name, its id, its data as JSON (None: a message without data)."""

    event: str
    id: str
    data: dict[str, Any] | None


@asynccontextmanager
async def tailing(
    http: httpx2.AsyncClient, *, last_event_id: str | None = None, **query: str
) -> AsyncIterator[AsyncIterator[Message]]:
    """An open tail."""
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    async with http.stream("GET", "/v1/events/tail", params=query, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _messages(response)


async def _messages(response: httpx2.Response) -> AsyncIterator[Message]:
    name, last, data = "message", "", ""
    async for line in response.aiter_lines():
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            yield Message(name, last, orjson.loads(data) if data else None)
            name, data = "message", ""
        elif field == "event":
            name = value
        elif field == "id":
            last = value
        elif field == "data":
            data += value
