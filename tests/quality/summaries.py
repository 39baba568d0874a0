"""How much extractive summaries share with written ones: `python -m tests.quality.summaries`.

ROUGE-1, -2 and -L (F1, stemmed; Lin 2004, by `rouge-score`) against the general summary of each of QMSum's development
meetings. Beside the consolidation's choice, as many sentences from the beginning, and as many drawn at random (the mean
of several draws). All three choose among the same sentences.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from rouge_score import rouge_scorer

from enrichment.reconsolidation.sentences import Sentence, most_important, split
from enrichment.reconsolidation.summaries import MOST_SENTENCES, choose, joined
from tests.quality.episodes import DATA

MEASURES = ("rouge1", "rouge2", "rougeL")
_DRAWS = 5
_COUNTS = (4, 6, 10)


@dataclass(frozen=True, slots=True)
class Meeting:
    """A meeting's sentences, and its summary by a person."""

    sentences: list[Sentence]
    reference: str


def meetings(folder: Path = DATA) -> Iterator[Meeting]:
    """Every meeting."""
    for file in sorted(folder.glob("*.json")):
        meeting = json.loads(file.read_text())
        sentences = [
            Sentence(text, f"turn-{turn}", turn * 1000, f"{turn:08d}", index, 5, said["speaker"])
            for turn, said in enumerate(meeting["meeting_transcripts"])
            for index, text in enumerate(split(said["content"]))
        ]
        yield Meeting(sentences, meeting["general_query_list"][0]["answer"])


def compared(those: Sequence[Meeting], count: int) -> dict[str, tuple[float, ...]]:
    """ROUGE-1, -2, -L of each way to choose `count` sentences, means over the meetings."""
    scorer: Any = rouge_scorer.RougeScorer(list(MEASURES), use_stemmer=True)

    def scores(meeting: Meeting, text: str) -> tuple[float, ...]:
        found = scorer.score(meeting.reference, text)
        return tuple(found[name].fmeasure for name in MEASURES)

    rows: dict[str, list[tuple[float, ...]]] = {"extractive": [], "first": [], "random": []}
    for meeting in those:
        chosen = choose(most_important(meeting.sentences, MOST_SENTENCES), count)
        rows["extractive"].append(scores(meeting, joined(chosen)))
        rows["first"].append(scores(meeting, _text(meeting.sentences[:count])))
        draws = [scores(meeting, _text(_drawn(meeting, count, seed))) for seed in range(_DRAWS)]
        rows["random"].append(_means(draws))
    return {name: _means(found) for name, found in rows.items()}


def _drawn(meeting: Meeting, count: int, seed: int) -> list[Sentence]:
    drawn = random.Random(seed).sample(meeting.sentences, min(count, len(meeting.sentences)))
    return sorted(drawn, key=lambda sentence: sentence.place)


def _text(sentences: Sequence[Sentence]) -> str:
    return " ".join(sentence.text for sentence in sentences)


def _means(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(mean(column) for column in zip(*rows, strict=True))


def main() -> None:
    """Print the table."""
    those = list(meetings())
    if not those:
        sys.stdout.write(f"skipped: no meetings in {DATA}\n")
        return
    sys.stdout.write(f"{len(those)} meetings\n{'':28}" + "".join(f"{name:>10}" for name in MEASURES) + "\n")
    for count in _COUNTS:
        for name, row in compared(those, count).items():
            sys.stdout.write(f"{f'{count} sentences, {name}':28}" + "".join(f"{value:10.4f}" for value in row) + "\n")


if __name__ == "__main__":
    main()
