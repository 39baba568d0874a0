"""An HTTP/1.1 client that costs next to nothing: keep-alive, requests built before the clock starts.

A benchmark's client shares the processors with what it measures. This one spends some 20 microseconds a request
(httpx: some 500), and says how busy it was. Standard library only, so that its process starts in no time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

_END_OF_HEADERS = b"\r\n\r\n"
_LENGTH = b"content-length:"


def request_bytes(path: str, body: bytes, key: str) -> bytes:
    """A whole POST request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Engine-API-Key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def parse_response(data: bytes) -> tuple[int, bytes, int] | None:
    """Status, body and length of the first response in `data`; None while it is not complete."""
    end = data.find(_END_OF_HEADERS)
    if end < 0:
        return None
    head = data[:end].lower()
    at = head.find(_LENGTH)
    stop = head.find(b"\r\n", at)
    length = int(head[at + len(_LENGTH) : stop if stop > 0 else None])
    total = end + len(_END_OF_HEADERS) + length
    return None if len(data) < total else (int(data[9:12]), data[total - length : total], total)


@dataclass(slots=True)
class Outcome:
    """What a load did: seconds from the first request to the last answer, ms of each, answers by status."""

    seconds: float = 0.0
    client_busy: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)


class _Lane(asyncio.Protocol):
    """One connection: sends the next request when the answer to the last one is complete."""

    def __init__(self, requests: Sequence[bytes], outcome: Outcome, done: asyncio.Future[None]) -> None:
        self._requests = iter(requests)
        self._outcome = outcome
        self._done = done
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def start(self) -> None:
        """Send the first request."""
        request = next(self._requests, None)
        if request is None:
            if not self._done.done():
                self._done.set_result(None)
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        answer = parse_response(self._buffer)
        if answer is not None:
            status, _, total = answer
            self._buffer = self._buffer[total:]
            self._outcome.latencies_ms.append((time.perf_counter() - self._sent_at) * 1000)
            self._outcome.statuses[status] = self._outcome.statuses.get(status, 0) + 1
            self.start()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server closed the connection"))


async def run_load(port: int, requests: Sequence[bytes], connections: int) -> Outcome:
    """Send all requests over that many keep-alive connections, each waiting for its answer before its next."""
    loop = asyncio.get_running_loop()
    outcome = Outcome()
    lanes: list[tuple[asyncio.BaseTransport, _Lane]] = []
    done: list[asyncio.Future[None]] = []
    for lane in range(connections):
        done.append(loop.create_future())
        make = partial(_Lane, requests[lane::connections], outcome, done[-1])
        lanes.append(await loop.create_connection(make, "127.0.0.1", port))
    began, cpu = time.perf_counter(), time.process_time()
    for _, protocol in lanes:
        protocol.start()
    await asyncio.gather(*done)
    outcome.seconds = time.perf_counter() - began
    outcome.client_busy = (time.process_time() - cpu) / outcome.seconds
    for transport, _ in lanes:
        transport.close()
    return outcome


class Connection:
    """A keep-alive connection for requests one after another, from within the benchmark's own process."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and parsed answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request_bytes(path, json.dumps(body).encode(), self._key))
        data = b""
        while (answer := parse_response(data)) is None:
            chunk = await reader.read(1 << 20)
            if not chunk:
                raise ConnectionError("the server closed the connection")
            data += chunk
        return answer[0], json.loads(answer[1])

    async def close(self) -> None:
        """Close it."""
        if self._streams is not None:
            self._streams[1].close()
            await self._streams[1].wait_closed()
