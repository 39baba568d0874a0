"""The measures are those of the data's README, and a run without the data says so and ends well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.quality.metrics import interval, ndcg, recall, within_budget


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
