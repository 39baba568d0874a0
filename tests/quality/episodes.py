"""How well episodes meet the topics that people marked: `python -m tests.quality.episodes`.

On QMSum's development meetings, whose topics have borders by hand. Pk (Beeferman, Berger and Lafferty 1999) and
WindowDiff (Pevzner and Hearst 2002), window half a true segment; both are error rates, 0 is perfect. Beside the cut of
the consolidation: fixed windows of the same average length, the true number of equal parts (which knows the answer's
size), and no border at all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from enrichment.reconsolidation.sentences import terms
from enrichment.reconsolidation.topics import Words, topic_borders, words_of

DATA = Path(__file__).parents[3] / "shared" / "data" / "qmsum" / "val"


@dataclass(frozen=True, slots=True)
class Meeting:
    """A meeting: what the cut sees of each turn, and the turns with which a topic begins."""

    name: str
    turns: list[Words]
    borders: list[int]


@dataclass(frozen=True, slots=True)
class Errors:
    """Mean error rates over meetings, and the mean number of borders."""

    pk: float
    window_diff: float
    borders: float


def meetings(folder: Path = DATA) -> Iterator[Meeting]:
    """The meetings that have more than one topic."""
    for file in sorted(folder.glob("*.json")):
        meeting = json.loads(file.read_text())
        texts = [turn["content"] for turn in meeting["meeting_transcripts"]]
        begins = {int(span[0]) for topic in meeting["topic_list"] for span in topic["relevant_text_span"]}
        borders = sorted(begin for begin in begins if 0 < begin < len(texts))
        if borders:
            yield Meeting(file.stem, [words_of(terms(text)) for text in texts], borders)


def segments(length: int, borders: Sequence[int]) -> list[int]:
    """The segment's number of each turn."""
    edges = [0, *borders, length]
    return [number for number, (start, end) in enumerate(pairwise(edges)) for _ in range(start, end)]


def errors_of(meeting: Meeting, found: Sequence[int]) -> tuple[float, float]:
    """Pk and WindowDiff of one meeting."""
    true, made = segments(len(meeting.turns), meeting.borders), segments(len(meeting.turns), found)
    window = max(2, round(len(true) / (len(meeting.borders) + 1) / 2))
    pairs = [(true[i + window] - true[i], made[i + window] - made[i]) for i in range(len(true) - window)]
    pk = sum((expected == 0) != (got == 0) for expected, got in pairs) / len(pairs)
    return pk, sum(expected != got for expected, got in pairs) / len(pairs)


def measured(those: Sequence[Meeting], cut: Callable[[Meeting], Sequence[int]]) -> Errors:
    """A way to cut, over all meetings."""
    cuts = [cut(meeting) for meeting in those]
    rates = [errors_of(meeting, found) for meeting, found in zip(those, cuts, strict=True)]
    count = len(those)
    return Errors(
        sum(pk for pk, _ in rates) / count, sum(diff for _, diff in rates) / count, sum(map(len, cuts)) / count
    )


def compared(those: Sequence[Meeting]) -> dict[str, Errors]:
    """The consolidation's cut beside the others."""
    ours = {meeting.name: topic_borders(meeting.turns) for meeting in those}
    length = round(sum(len(m.turns) for m in those) / sum(len(found) + 1 for found in ours.values()))
    return {
        "topic shifts": measured(those, lambda m: ours[m.name]),
        f"fixed windows of {length}": measured(those, lambda m: range(length, len(m.turns), length)),
        "true number of equal parts": measured(those, lambda m: _parts(len(m.turns), len(m.borders) + 1)),
        "no border": measured(those, lambda _: []),
    }


def _parts(length: int, parts: int) -> list[int]:
    return [round(length * part / parts) for part in range(1, parts)]


def main() -> None:
    """Print the table."""
    those = list(meetings())
    if not those:
        sys.stdout.write(f"skipped: no meetings in {DATA}\n")
        return
    sys.stdout.write(f"{len(those)} meetings\n{'':30}{'Pk':>8}{'WindowDiff':>12}{'borders':>9}\n")
    for name, found in compared(those).items():
        sys.stdout.write(f"{name:30}{found.pk:8.3f}{found.window_diff:12.3f}{found.borders:9.1f}\n")


if __name__ == "__main__":
    main()
