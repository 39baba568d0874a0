"""A real HTTP server of embeddings in the OpenAI form whose answers a test scripts: right, slow, wrong, or none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.scripted_server import Answer, scripted_server


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

    def answer(asked: dict[str, Any], headers: dict[str, str]) -> Answer:
        served.requests.append(asked)
        served.headers.append(headers)
        if served.slow is not None:
            served.slow.wait(30)
        return served.answer(asked)

    with scripted_server("embedding server", answer) as served.url:
        yield served
