"""A real HTTP server in the OpenAI form whose answers a test scripts: right, slow, wrong, or none."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server does with a request: a status and a text, held back until `after` is set."""

    text: str = ""
    status: int = 200
    finish_reason: str = "stop"
    after: threading.Event | None = None


@dataclass(slots=True)
class LlmServer:
    """Where it listens, what it was asked, and how it answers. `answer` may be changed at any time."""

    url: str = ""
    answer: Callable[[dict[str, Any]], Reply] = lambda _: Reply("{}")
    requests: list[dict[str, Any]] = field(default_factory=list)

    def material(self, index: int = -1) -> str:
        """What the user's message of a request said."""
        return str(self.requests[index]["messages"][-1]["content"])


@contextmanager
def llm_server() -> Iterator[LlmServer]:
    """The server on a free port of this machine; stopped behind the block."""
    served = LlmServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            served.requests.append(asked)
            reply = served.answer(asked)
            if reply.after is not None:
                reply.after.wait(30)
            body = json.dumps(
                _completion(reply) if reply.status == 200 else {"error": {"message": reply.text}}
            ).encode()
            try:
                self.send_response(reply.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                return  # a client that did not want to wait

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="llm server")
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _completion(reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.text}
    return {
        "id": "completion",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "finish_reason": reply.finish_reason, "message": message}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }
