"""Episodes: a session cut where nothing happened for a while, and where the talk turned to something else. Pure.

An episode is a stretch of events none of which lies further than the gap behind its predecessor, cut further where the
topic shifts (`topics.py`). It has no text of its own; the summary of the session names its episodes so that a reader
can see what belonged together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from context_graph.domain.position import Position
from enrichment.reconsolidation.topics import Words, topic_borders


@dataclass(frozen=True, slots=True)
class Moment:
    """An event as the cut sees it: which, where in the ledger, when (ms UTC)."""

    event_id: str
    position: Position
    occurred_at: int


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch of a session: its number from 0, its first and last time (ms UTC), its events in order."""

    index: int
    started_at: int
    ended_at: int
    event_ids: tuple[str, ...]


def cut(moments: Sequence[Moment], gap_seconds: int, words: Sequence[Words] = ()) -> tuple[Episode, ...]:
    """Cut events in order of occurrence wherever more than `gap_seconds` lie between two neighbours.

    `words`, of each event: each stretch is cut at its shifts of topic too. Every event is in exactly one episode, and
    the episodes are in order. Raises ValueError when times go backwards.
    """
    gap = gap_seconds * 1000
    starts: list[int] = []
    for i, moment in enumerate(moments):
        silence = moment.occurred_at - moments[i - 1].occurred_at if i else gap + 1
        if silence < 0:
            raise ValueError("episodes are cut from events in order of occurrence")
        if silence > gap:
            starts.append(i)
    if words:
        stretches = list(pairwise([*starts, len(moments)]))
        starts = [at for start, end in stretches for at in _turns(words[start:end], start)]
    return tuple(
        Episode(
            index=index,
            started_at=moments[start].occurred_at,
            ended_at=moments[end - 1].occurred_at,
            event_ids=tuple(moment.event_id for moment in moments[start:end]),
        )
        for index, (start, end) in enumerate(pairwise([*starts, len(moments)]))
    )


def _turns(words: Sequence[Words], start: int) -> list[int]:
    """Where the segments of a stretch begin, the first at `start`."""
    return [start, *(start + border for border in topic_borders(words))]
