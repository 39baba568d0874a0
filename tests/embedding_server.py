"""A real HTTP server of embeddings in the OpenAI form whose answers a test scripts: right, slow, wrong, or none."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]


def vector_of(text: str, dimensions: int = 384) -> list[float]:
    """A vector that depends on the text alone."""
    return [float((sum(text.encode()) * (place + 3)) % 17 + 1) for place in range(dimensions)]


def right(asked: dict[str, Any]) -> Answer:
    """A correct answer, its vectors in reverse order: their `index` counts."""
    data = [{"object": "embedding", "index": i, "embedding": vector_of(text)} for i, text in enumerate(asked["input"])]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return 200, {"object": "list", "model": "scripted", "data": data[::-1], "usage": usage}


@dataclass(slots=True)
class EmbeddingServer:
    """Where it listens, what it was asked, and how it answers. `answer` may be changed at any time."""

    url: str = ""
    answer: Callable[[dict[str, Any]], Answer] = right
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    slow: threading.Event | None = None


@contextmanager
def embedding_server() -> Iterator[EmbeddingServer]:
    """The server on a free port of this machine; stopped behind the block."""
    served = EmbeddingServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            served.requests.append(asked)
            served.headers.append({name.lower(): value for name, value in self.headers.items()})
            if served.slow is not None:
                served.slow.wait(30)
            status, said = served.answer(asked)
            body = said if isinstance(said, bytes) else json.dumps(said).encode()
            try:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                return  # a client that did not want to wait

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="embedding server")
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
