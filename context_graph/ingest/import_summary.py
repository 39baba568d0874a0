"""What became of an import: counted while it goes on, told as a value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from context_graph.domain.places import moment_key
from context_graph.domain.position import Position
from context_graph.errors import ContextGraphError, FieldProblem
from context_graph.ingest.ingest import Outcome


@dataclass(frozen=True, slots=True)
class LineProblem:
    """One thing wrong with one line (from 1)."""

    line: int
    event_id: str | None
    problem: FieldProblem


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """Lines answered, by outcome; `bytes` after decompression; `positions`: the newest of each bucket written to.

    `broken` says what ended the import before the end of the body, `line` where it was then.
    """

    lines: int
    created: int
    duplicate: int
    conflict: int
    invalid: int
    bytes: int
    seconds: float
    first_errors: tuple[LineProblem, ...]
    positions: tuple[Position, ...]
    line: int
    broken: ContextGraphError | None = None

    @property
    def last_position(self) -> Position | None:
        """The newest position of all."""
        return max(self.positions, key=moment_key, default=None)


class ImportTally:
    """Counts answers as they come."""

    def __init__(self, clock: Callable[[], float], errors_shown: int) -> None:
        self.line = 0
        self.bytes = 0
        self.broken: ContextGraphError | None = None
        self._clock = clock
        self._began = clock()
        self._errors_shown = errors_shown
        self._counts: Counter[str] = Counter()
        self._errors: list[LineProblem] = []
        self._newest: dict[int, Position] = {}

    def count(self, answers: Sequence[tuple[int, Outcome, list[FieldProblem]]]) -> None:
        """Count lines with what became of them and what was wrong with them."""
        for number, outcome, problems in answers:
            self._counts[outcome.status] += 1
            for problem in problems:
                if len(self._errors) < self._errors_shown:
                    self._errors.append(LineProblem(number, outcome.event_id, problem))
            position = outcome.position
            if position is not None and outcome.status != "conflict":
                known = self._newest.get(position.bucket)
                self._newest[position.bucket] = position if known is None else max(known, position)

    def summary(self) -> ImportSummary:
        """What has been counted so far."""
        return ImportSummary(
            lines=self._counts.total(),
            created=self._counts["created"],
            duplicate=self._counts["duplicate"],
            conflict=self._counts["conflict"],
            invalid=self._counts["invalid"],
            bytes=self.bytes,
            seconds=self._clock() - self._began,
            first_errors=tuple(self._errors),
            positions=tuple(position for _, position in sorted(self._newest.items())),
            line=self.line,
            broken=self.broken,
        )
