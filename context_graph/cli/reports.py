"""What became of an ingest, and what a service's refusal says: values and words, no connection."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from context_graph.ingest.transcript_envelopes import JsonObject

_PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class EventProblem:
    """An event that was not taken: where it stands in the file (line, from 1), its id, what it is
    (conflict, invalid, failed), and the reason in words."""

    line: int
    event_id: str | None
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the events of a file. `last_positions`: the newest position of each partition that was written."""

    events: int = 0
    created: int = 0
    duplicates: int = 0
    invalid: int = 0
    conflicts: int = 0
    failed: int = 0
    problems: tuple[EventProblem, ...] = ()
    last_positions: tuple[str, ...] = ()
    skipped: tuple[tuple[str, int], ...] = ()
    seconds: float = 0.0
    broken: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every event of the file is in the ledger."""
        return self.broken is None and not (self.invalid or self.conflicts or self.failed)


@dataclass(slots=True)
class Tally:
    """The answers of a service, counted while they come."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[EventProblem] = field(default_factory=list)
    last: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    def add(self, line: int, event_id: str, result: JsonObject) -> None:
        """Count one answer of a batch."""
        status = result.get("status")
        self.counts["events"] += 1
        self.counts[str(status)] += 1
        position = result.get("position")
        if isinstance(position, str) and status in ("created", "duplicate"):
            bucket, ms, seq = position.split("-")
            self.last[bucket] = max(self.last.get(bucket, (0, 0, "")), (int(ms), int(seq), position))
        if status not in ("created", "duplicate") and len(self.problems) < _PROBLEMS_SHOWN:
            problem = result.get("problem")
            reason = describe_problem(problem) if isinstance(problem, dict) else f"the service says {status}"
            self.problems.append(EventProblem(line, event_id, str(status), reason))

    def report(self, seconds: float) -> IngestReport:
        """What was counted so far."""
        return IngestReport(
            events=self.counts["events"],
            created=self.counts["created"],
            duplicates=self.counts["duplicate"],
            invalid=self.counts["invalid"],
            conflicts=self.counts["conflict"],
            failed=self.counts["failed"],
            problems=tuple(self.problems),
            last_positions=tuple(last[2] for _, last in sorted(self.last.items())),
            seconds=seconds,
        )


def describe_problem(problem: JsonObject) -> str:
    """A problem document in words: title and detail, then each wrong field with its remedy."""
    title, detail = str(problem.get("title") or "The service refused"), problem.get("detail")
    errors = problem.get("errors")
    if not isinstance(errors, list) or not errors:
        remedy = problem.get("remedy")
        return ". ".join(str(part).rstrip(".") for part in (f"{title}: {detail}" if detail else title, remedy) if part)
    lines = [title]
    for error in errors:
        if isinstance(error, dict):
            remedy = f" ({error['remedy']})" if error.get("remedy") else ""
            lines.append(f"  {error.get('pointer') or '/'}: {error.get('detail')}{remedy}")
    return "\n".join(lines)
