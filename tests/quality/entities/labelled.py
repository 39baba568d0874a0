"""The hand-labelled events: excerpts of tau_bench and mini-swe-agent runs with every mention in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from context_graph.models.recogniser import Span
from enrichment.entities import find_mentions
from tests.quality.entities.scores import Score, Spans, tally

FILE = Path(__file__).with_name("labelled_events.ndjson")
UNSEEN = Path(__file__).with_name("held_out_events.ndjson")
"""Labelled when the rules were done."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """An excerpt of an event's searchable text, and where it is from. `labels`: (start, end, label) in the excerpt."""

    source: str
    event: str
    tool: str | None
    agent: str
    text: str
    labels: Spans


def read_labelled(file: Path = FILE) -> list[Labelled]:
    """All excerpts, in order."""
    return [_read(orjson.loads(line)) for line in file.read_bytes().splitlines()]


def _read(raw: dict[str, Any]) -> Labelled:
    labels = frozenset((begin, end, label) for begin, end, label in raw["mentions"])
    return Labelled(raw["file"], raw["event"], raw["tool"], raw["agent"], raw["text"], labels)


def measure(events: Sequence[Labelled], named: Sequence[Sequence[Span]]) -> Mapping[str, Score]:
    """Scores by label and of all; `named`: the recogniser's spans of each excerpt."""
    return tally((found_in(event, spans), event.labels) for event, spans in zip(events, named, strict=True))


def found_in(event: Labelled, spans: Sequence[Span]) -> Spans:
    """What the product finds in an excerpt."""
    mentions = find_mentions(event.text, spans, tool_name=event.tool, agent_id=event.agent)
    return frozenset((mention.start, mention.end, mention.label) for mention in mentions)
