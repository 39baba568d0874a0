"""The development sets as conversations with questions: read from ../shared/data, never committed.

A set is a tuple of conversations; a conversation is turns in order and questions whose evidence is turns of it. How the
files are read is in the data's own README, malformed evidence ids included.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

DATA = Path(os.environ.get("CG_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))

_EVIDENCE = re.compile(r"D:?(\d+):(\d+)")  # 'D8:6; D9:17', 'D:11:26' and 'D30:05' are among the annotations
_CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open", 4: "single-hop", 5: "unanswerable"}
_MEETINGS_BEGIN = datetime(2023, 1, 2, 9, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Turn:
    """One event: what is posted of it."""

    id: str
    session: str
    speaker: str
    text: str
    at: datetime
    caption: str | None = None

    def envelope(self, conversation: str) -> dict[str, Any]:
        payload = {"text": self.text, "speaker": self.speaker}
        if self.caption:
            payload["image_caption"] = self.caption
        return {
            "event_id": f"{conversation}/{self.id}",
            "event_type": "user.message",
            "session_id": f"{conversation}/{self.session}",
            "agent_id": self.speaker,
            "user_id": conversation,
            "occurred_at": self.at.isoformat(),
            "payload": payload,
        }


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the numbers of the turns that hold the evidence."""

    text: str
    evidence: frozenset[int]
    category: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order of time, and what is asked about them."""

    name: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]


def locomo() -> tuple[Conversation, ...]:
    """Conversations of two people over months; questions of the categories 1 to 4 with evidence that can be found."""
    return tuple(_locomo_conversation(raw) for raw in orjson.loads((DATA / _LOCOMO).read_bytes()))


def qmsum() -> tuple[Conversation, ...]:
    """Meetings; the specific queries with their spans."""
    return tuple(_meeting(file) for file in sorted((DATA / _QMSUM).glob("*.json")))


_LOCOMO, _QMSUM = Path("locomo/locomo_dev5.json"), Path("qmsum/val")
SETS: Mapping[str, tuple[Path, Callable[[], tuple[Conversation, ...]]]] = {
    "locomo": (DATA / _LOCOMO, locomo),
    "qmsum": (DATA / _QMSUM, qmsum),
}


def _locomo_conversation(raw: Mapping[str, Any]) -> Conversation:
    held: Mapping[str, Any] = raw["conversation"]
    turns: list[Turn] = []
    numbers = sorted(int(key.split("_")[1]) for key in held if re.fullmatch(r"session_\d+", key))
    for number in numbers:
        began = datetime.strptime(held[f"session_{number}_date_time"], "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
        for place, said in enumerate(held[f"session_{number}"], 1):
            at = began + timedelta(seconds=place)
            turn = Turn(
                said["dia_id"], f"session-{number}", said["speaker"], said["text"], at, said.get("blip_caption")
            )
            turns.append(turn)
    places = {turn.id: place for place, turn in enumerate(turns)}
    questions = []
    for asked in raw["qa"]:
        named = {f"D{int(a)}:{int(b)}" for entry in asked.get("evidence", ()) for a, b in _EVIDENCE.findall(entry)}
        evidence = frozenset(places[name] for name in named if name in places)
        if evidence:
            questions.append(Question(asked["question"], evidence, _CATEGORIES[asked["category"]]))
    return Conversation(raw["sample_id"], tuple(turns), tuple(questions))


def _meeting(file: Path) -> Conversation:
    raw = orjson.loads(file.read_bytes())
    turns = tuple(
        Turn(str(place), "meeting", said["speaker"], said["content"], _MEETINGS_BEGIN + timedelta(seconds=place))
        for place, said in enumerate(raw["meeting_transcripts"])
    )
    questions = []
    for asked in raw["specific_query_list"]:
        spans = [(int(first), int(last)) for first, last in asked["relevant_text_span"]]
        evidence = frozenset(place for first, last in spans for place in range(first, last + 1) if place < len(turns))
        if evidence:
            questions.append(Question(asked["query"], evidence, "specific"))
    return Conversation(file.stem, turns, tuple(questions))
