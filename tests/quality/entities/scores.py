"""Precision, recall and F1 of spans: a found mention counts when start, end and label are exactly the labelled ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Spans = frozenset[tuple[int, int, str]]


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of one label, or of all."""

    right: int
    found: int
    labelled: int

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.labelled if self.labelled else 0.0

    @property
    def f1(self) -> float:
        together = self.found + self.labelled
        return 2 * self.right / together if together else 0.0


@dataclass(slots=True)
class Tally:
    """Adds up texts."""

    right: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    labelled: Counter[str] = field(default_factory=Counter)

    def add(self, found: Spans, labelled: Spans) -> None:
        for counter, spans in ((self.right, found & labelled), (self.found, found), (self.labelled, labelled)):
            counter.update(label for _, _, label in spans)

    def scores(self) -> Mapping[str, Score]:
        """By label, those that occur, and `all` (micro) at the end."""
        labels = sorted(self.found | self.labelled)
        by_label = {name: Score(self.right[name], self.found[name], self.labelled[name]) for name in labels}
        return {**by_label, "all": Score(self.right.total(), self.found.total(), self.labelled.total())}


def tally(pairs: Iterable[tuple[Spans, Spans]]) -> Mapping[str, Score]:
    """Scores over (found, labelled) of each text."""
    counted = Tally()
    for found, labelled in pairs:
        counted.add(found, labelled)
    return counted.scores()
