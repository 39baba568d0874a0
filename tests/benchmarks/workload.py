"""What the benchmarks post: events of agents at work, some 400 bytes of JSON each, the same in every run.

Texts are sentences of real conversations (tau_bench when the development data is there, else the packaged sample),
recombined two and two by a seeded generator, so that 100,000 events have distinct texts with real words.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson

from context_graph.domain.event import EventId
from context_graph.ingest.validation import Validator
from context_graph.settings import LedgerSettings
from context_graph.store import codec
from context_graph.store.ledger import Appendable

_START = datetime(2025, 3, 1, 9, 0, tzinfo=UTC)
_NOW_MS = int(datetime(2030, 1, 1, tzinfo=UTC).timestamp() * 1000)  # any time behind all of the events
_SESSION_EVENTS = 40
_TOOLS = ("search", "get_order", "get_user", "refund", "update_order", "list_flights", "calculate", "send_mail")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_SHORTEST, _LONGEST = 25, 110  # characters of a sentence
Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Texts:
    """Real texts: whole messages, and the sentences they are made of. `source` names where from."""

    source: str
    messages: tuple[str, ...]
    sentences: tuple[str, ...]


def load_texts() -> Texts:
    """Messages of tau_bench's runs below CG_SHARED_DATA, else of the packaged sample."""
    shared = Path(os.environ.get("CG_SHARED_DATA", "../shared/data"))
    runs = shared / "tau_bench" / "gpt-4o-airline.json"
    if runs.is_file():
        source, found = (
            "tau_bench",
            [
                turn["content"]
                for run in orjson.loads(runs.read_bytes())
                for turn in run["traj"]
                if turn["role"] != "system" and isinstance(turn.get("content"), str)
            ],
        )
    else:
        source, found = "packaged sample", list(_sample_texts())
    messages = tuple(dict.fromkeys(text.strip() for text in found if text.strip()))
    pieces = (piece.strip() for text in messages for piece in _SENTENCE_END.split(text))
    sentences = tuple(dict.fromkeys(piece for piece in pieces if _SHORTEST <= len(piece) <= _LONGEST))
    return Texts(source, messages, sentences)


def _sample_texts() -> Iterator[str]:
    folder = files("context_graph.local").joinpath("sample")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".ndjson"):
            for line in file.read_bytes().splitlines():
                payload = orjson.loads(line).get("payload") or {}
                text = payload.get("text") or payload.get("result")
                if text is not None:
                    yield text if isinstance(text, str) else orjson.dumps(text).decode()


@dataclass(frozen=True, slots=True)
class Workload:
    """Makes events. Equal arguments make equal events."""

    sentences: tuple[str, ...]
    seed: int = 7

    def picks(self, count: int) -> list[tuple[int, int]]:
        """For each event the two sentences that are its text, by number."""
        chance = random.Random(self.seed)
        total = len(self.sentences)
        return [(chance.randrange(total), chance.randrange(total)) for _ in range(count)]

    def text(self, pick: tuple[int, int]) -> str:
        return f"{self.sentences[pick[0]]} {self.sentences[pick[1]]}"

    def events(self, count: int, name: str) -> list[Raw]:
        """`count` envelopes as callers post them; `name` keeps ids of different calls apart."""
        return [self._event(number, name, self.text(pick)) for number, pick in enumerate(self.picks(count))]

    def slice(self, start: int, count: int, name: str) -> list[Raw]:
        """`count` envelopes from number `start` on, of a memory of any size, without making those before."""
        chance = random.Random(self.seed * 1_000_003 + start)
        total = len(self.sentences)
        picks = [(chance.randrange(total), chance.randrange(total)) for _ in range(count)]
        return [self._event(start + place, name, self.text(pick)) for place, pick in enumerate(picks)]

    def _event(self, number: int, name: str, text: str) -> Raw:
        session, step = divmod(number, _SESSION_EVENTS)
        occurred = _START + timedelta(seconds=number)
        event: Raw = {
            "event_id": f"{name}-{number:07d}",
            "session_id": f"{name}-session-{session:05d}",
            "agent_id": f"agent-{session % 4}",
            "user_id": f"customer-{session % 199:03d}",
            "trace_id": f"trace-{session:08x}",
            "occurred_at": occurred.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }
        if step:
            event["caused_by"] = [f"{name}-{number - 1:07d}"]
        tool = _TOOLS[(session + step) % len(_TOOLS)]
        match number % 5:
            case 0:
                event |= {"event_type": "user.message", "origin": "user", "payload": {"text": text}}
            case 1:
                arguments = {"order_id": f"#W{number:07d}", "reason": text}
                event |= {"event_type": "tool.call", "tool_name": tool, "payload": {"arguments": arguments}}
            case 2:
                event |= {"event_type": "tool.result", "tool_name": tool, "status": "completed"}
                event["payload"] = {"result": {"order_id": f"#W{number - 1:07d}", "message": text}}
            case _:
                event |= {"event_type": "agent.message", "origin": "agent", "payload": {"text": text}}
        return event


def stored(raws: list[Raw]) -> list[Appendable]:
    """The same events as the ingest would append them: validated, as canonical JSON."""
    validator = Validator(LedgerSettings(), lambda: _NOW_MS)
    envelopes = [validator.envelope(raw) for raw in raws]
    return [Appendable(EventId(e.event_id), e.session_id, codec.encode(e)) for e in envelopes]


def event_bytes(raws: list[Raw]) -> int:
    """Bytes of the events as compact JSON, as a caller sends them."""
    return sum(len(orjson.dumps(raw)) for raw in raws)
