"""A real HTTP server of JSON whose answers a test scripts: right, slow, wrong, or none."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]
"""A status, and a body: bytes as they are, anything else as JSON."""


@contextmanager
def scripted_server(name: str, answer: Callable[[dict[str, Any], dict[str, str]], Answer]) -> Iterator[str]:
    """The URL (with `/v1`) of a server on a free port of this machine; stopped behind the block.

    `answer` gets what was posted and the headers, their names in lower case; it runs in a thread for each connection
    and may take its time.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, said = answer(asked, {header.lower(): value for header, value in self.headers.items()})
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
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name=name)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
