"""The table of stages: every consumer group that follows the ledger.

A group's name is stored in Redis and shown in metrics, readiness and dead letters, so it is fixed here, where both the
workers that run a stage and the API that reports on it can read it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Stage:
    """A consumer group, the worker that runs it, and what an event has once the stage has passed it.

    `ordered`: the order within a session matters to it. Then one worker at a time reads a partition, and later events
    of a session wait while one of it failed. The stages of the table below need no order: what they write commutes
    (`tests/laws/test_fold.py`), each document is its event's own, and what is newer is told by position.
    """

    group: str
    worker: str
    gives: str
    ordered: bool = False

    def of(self, generation: int) -> Stage:
        """The same stage of another generation: a group of its own, from position 0. The first has the plain name."""
        return self if generation == 1 else replace(self, group=f"{self.group}.g{generation}")


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far a stage is: events waiting, age of the oldest (s), living workers, and what these have been doing.

    `idle_seconds`: since any living worker last took events; None when none has, or none lives. `held_seconds`: how
    long a worker has been holding the oldest event that it took and has not finished; None when none is held.
    """

    stage: Stage
    waiting: int
    waiting_seconds: float
    living: int
    idle_seconds: float | None
    held_seconds: float | None = None

    def problem(self, patience: float) -> str | None:
        """Why the stage is stalled, or None. One that is behind but goes on is not: a backlog is no failure."""
        if self.waiting == 0 or self.waiting_seconds <= patience:
            return None
        behind = f"{self.waiting:,} events wait, the oldest for {int(self.waiting_seconds)} s"
        if self.living == 0:
            return (
                f"{self.stage.group}: {behind}, and no worker lives: start `context-graph worker {self.stage.worker}`"
            )
        stuck = ""
        if self.held_seconds is not None and self.held_seconds > patience:
            stuck = f"a worker has been holding one for {int(self.held_seconds)} s"
        elif self.idle_seconds is not None and self.idle_seconds > patience:
            stuck = f"its {self.living} workers have taken none for {int(self.idle_seconds)} s"
        return f"{self.stage.group}: {behind}, and {stuck}: look at the log of its worker" if stuck else None


PROJECTION = Stage("projection", "projection", "nodes, timelines and causes")
INDEXING = Stage("indexing", "enrichment", "the searchable text with its filters")
ENRICHMENT = Stage("enrichment", "enrichment", "the vector, entities and keywords")

STAGES: tuple[Stage, ...] = (PROJECTION, INDEXING, ENRICHMENT)


def stages_of(generation: int) -> tuple[Stage, ...]:
    """The stages that a generation is made by."""
    return tuple(stage.of(generation) for stage in STAGES)
