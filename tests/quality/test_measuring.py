"""The measures are those of the data's README, and a run without the data says so and ends well."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.quality.asking import turns_told
from tests.quality.consolidated import COLUMNS, Rows, table
from tests.quality.metrics import interval, ndcg, recall, within_budget
from tests.quality.sets import Conversation, Turn


def test_recall_and_ndcg_are_of_the_evidence_among_the_best() -> None:
    evidence = {1, 5}
    assert recall([1, 2, 3, 5], evidence, 2) == 0.5
    assert recall([1, 2, 3, 5], evidence, 4) == 1.0
    assert ndcg([1, 5], evidence) == 1.0
    assert ndcg([2, 3], evidence) == 0.0
    assert 0.0 < ndcg([2, 1, 5], evidence) < 1.0


def test_what_does_not_fit_a_budget_is_skipped_and_the_next_is_tried() -> None:
    assert within_budget([0, 1, 2], [60.0, 60.0, 40.0], {2}, 100) == 1.0
    assert within_budget([0, 1, 2], [60.0, 60.0, 40.0], {1}, 100) == 0.0


def test_a_summary_brings_only_the_turns_whose_text_it_holds_word_for_word() -> None:
    texts = ("I moved to Lisbon.", "In May, I think. It was hot.", "Who told you?")
    turns = tuple(Turn(str(n), "s", "lena", text, datetime(2026, 5, 1, tzinfo=UTC)) for n, text in enumerate(texts))
    conversation = Conversation("c", turns, ())
    places = {"c/0": 0, "c/1": 1, "c/2": 2}
    summary = {
        "kind": "summary",
        "event_ids": ["c/0", "c/1", "x"],
        "text": "lena: I moved to\nLisbon. In May, I think.",
    }
    event = {"kind": "event", "event_ids": ["c/2"], "text": "Who told …"}
    assert turns_told(conversation, places, [summary]) == {0}
    assert turns_told(conversation, places, [summary, event]) == {0, 2}


def test_a_part_is_compared_question_by_question_with_the_one_before_it() -> None:
    def rows(*values: float) -> Rows:
        return {("c", n): dict.fromkeys(COLUMNS, value) for n, value in enumerate(values)}

    found = {"without": rows(0.5, 1.0), "with": rows(0.0, 1.0), "more": rows(0.0, 0.5)}
    lines = [line.split("  ") for line in table("made", found).splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()][:2] for line in lines]
    assert cells == [
        ["made, 2 questions", COLUMNS[0]],
        ["without", "0.750"],
        ["with", "0.500"],
        ["beside nothing", "-0.250 (-0.250 -0.250)"],
        ["more", "0.250"],
        ["beside nothing", "-0.500 (-0.500 -0.500)"],
        ["beside the one before", "-0.250 (-0.250 -0.250)"],
    ]


def test_the_interval_is_of_conversations_and_holds_the_mean() -> None:
    mean, low, high = interval({"a": [1.0, 1.0], "b": [0.0, 0.0], "c": [1.0, 0.0]})
    assert mean == pytest.approx(0.5)
    assert low <= mean <= high
    assert interval({"a": [0.5], "b": [0.5]}) == (0.5, 0.5, 0.5)


def test_without_the_data_a_run_says_so_and_ends_well(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = os.environ | {"CG_SHARED_DATA": str(tmp_path / "nothing"), "PYTHONPATH": str(root)}
    ran = subprocess.run(
        (sys.executable, "-m", "tests.quality"),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "locomo: skipped" in ran.stderr
    assert "qmsum: skipped" in ran.stderr
