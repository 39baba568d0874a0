"""A real HTTP server in the OpenAI form whose answers a test scripts: right, slow, wrong, or none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.scripted_server import Answer, scripted_server


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

    def answer(asked: dict[str, Any], _: dict[str, str]) -> Answer:
        served.requests.append(asked)
        reply = served.answer(asked)
        if reply.after is not None:
            reply.after.wait(30)
        return reply.status, _completion(reply) if reply.status == 200 else {"error": {"message": reply.text}}

    with scripted_server("llm server", answer) as served.url:
        yield served


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
