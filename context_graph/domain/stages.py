"""The table of stages: every consumer group that follows the ledger.

A group's name is stored in Redis and shown in metrics, readiness and dead letters, so it is fixed here, where both the
workers that run a stage and the API that reports on it can read it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from context_graph.domain.findings import Finding


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

    @property
    def name(self) -> str:
        """The same in every generation."""
        return self.group.partition(".g")[0]


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far a stage is in a partition, and what its workers have been doing.

    `lag`: events not delivered; `pending`: delivered, not finished; `again`: to be delivered again; `parked`: behind
    failed ones of their sessions. `waiting_seconds`: age of the oldest unfinished event. `living`: its workers.
    `idle_seconds`: since any of them last took events; None when none has. `held_seconds`: how long a worker has been
    holding the oldest event that it took and has not finished; None when none is held. `gaps`: what was trimmed unread
    and is being looked for; `gap_problems`: why that does not go on. `dead_letters`, `lost` (events): as kept.
    """

    partition: str
    stage: Stage
    lag: int
    pending: int
    waiting_seconds: float
    living: int
    idle_seconds: float | None
    held_seconds: float | None = None
    again: int = 0
    parked: int = 0
    gaps: tuple[str, ...] = ()
    gap_problems: tuple[str, ...] = ()
    dead_letters: int = 0
    lost: int = 0

    @property
    def waiting(self) -> int:
        """Events to go."""
        return self.lag + self.pending + self.again


@dataclass(frozen=True, slots=True)
class StageLimits:
    """Where a stage is no longer well: seconds without progress, dead letters, parked events of a partition."""

    stall_seconds: float
    dead_letters: int
    parked: int


def stage_findings(progress: StageProgress, limits: StageLimits) -> list[Finding]:
    """What is to be said about a stage in a partition; the one rule of readiness and `context-graph doctor`."""
    checks = (_progress(progress, limits), _gaps(progress), _dead_letters(progress, limits), _parked(progress, limits))
    return [finding for check in checks for finding in check]


def _progress(progress: StageProgress, limits: StageLimits) -> list[Finding]:
    """A stage that is behind but goes on is no failure: a backlog is not a stall."""
    where, stage, patience = f"{progress.partition}: {progress.stage.group}", progress.stage, limits.stall_seconds
    start, look = f"start `context-graph worker {stage.worker}`", f"look at the log of worker {stage.worker}"
    late = progress.waiting > 0 and progress.waiting_seconds > patience
    behind = f"{where}: {progress.waiting:,} events wait, the oldest for {int(progress.waiting_seconds)} s"
    if progress.living == 0:
        words = f"{behind}, and no worker lives" if progress.waiting else f"{where}: no worker lives"
        return [Finding("wrong" if late else "warn", "stages", words, start)]
    if late and progress.held_seconds is not None and progress.held_seconds > patience:
        words = f"{behind}, and a worker has been holding one for {int(progress.held_seconds)} s"
        return [Finding("wrong", "stages", words, look)]
    if late and progress.idle_seconds is not None and progress.idle_seconds > patience:
        words = f"{behind}, and its {progress.living} workers have taken none for {int(progress.idle_seconds)} s"
        return [Finding("wrong", "stages", words, look)]
    if progress.waiting > MANY_BEHIND:
        more = f"it goes on by itself; sooner with more `worker {stage.worker}`"
        return [Finding("warn", "stages", f"{where}: {progress.waiting:,} events to go", more)]
    return []


def _gaps(progress: StageProgress) -> list[Finding]:
    where = f"{progress.partition}: {progress.stage.group}"
    remedy = "bring the archive back where the workers find it (CG_ARCHIVE__URL); they go on by themselves"
    found = [Finding("wrong", "stages", f"{where}: {problem}", remedy) for problem in progress.gap_problems]
    found += [Finding("warn", "stages", f"{where}: {gap}", "wait: the archive is read") for gap in progress.gaps]
    if progress.lost:
        words = f"{where}: {progress.lost:,} events were trimmed unread, and no archive holds them"
        remedy = (
            "bring the archive back and re-drive their dead letters, or discard these: `context-graph dead-letters`"
        )
        found.append(Finding("wrong", "dead letters", words, remedy))
    return found


def _dead_letters(progress: StageProgress, limits: StageLimits) -> list[Finding]:
    if not progress.dead_letters:
        return []
    where, count = f"{progress.partition}: {progress.stage.group}", progress.dead_letters
    words = f"{where}: {count:,} dead letters"
    if count > limits.dead_letters:
        words += f", more than {limits.dead_letters:,}"
    remedy = "see them with `context-graph dead-letters list`, mend the cause, re-drive them"
    return [Finding("wrong" if count > limits.dead_letters else "warn", "dead letters", words, remedy)]


def _parked(progress: StageProgress, limits: StageLimits) -> list[Finding]:
    if not progress.parked:
        return []
    words = f"{progress.partition}: {progress.stage.group}: {progress.parked:,} events wait behind failed ones"
    full = progress.parked >= limits.parked
    if full:
        words += ", so many that nothing more is read"
    return [Finding("wrong" if full else "warn", "stages", words, "re-drive or discard the dead letters")]


MANY_BEHIND = 1_000
"""Events that an operator should know to be waiting."""

PROJECTION = Stage("projection", "projection", "nodes, timelines and causes")
INDEXING = Stage("indexing", "enrichment", "the searchable text with its filters")
ENRICHMENT = Stage("enrichment", "enrichment", "the vectors and entities")

STAGES: tuple[Stage, ...] = (PROJECTION, INDEXING, ENRICHMENT)


def stages_of(generation: int) -> tuple[Stage, ...]:
    """The stages that a generation is made by."""
    return tuple(stage.of(generation) for stage in STAGES)


def generation_of(group: str) -> int:
    """The generation that a stage's group feeds; the inverse of `Stage.of`."""
    _, mark, number = group.partition(".g")
    return int(number) if mark and number.isdigit() else 1
