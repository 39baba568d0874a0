"""When a stage counts as stalled: not when it is behind, but when it does not go on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from context_graph.domain.stages import ENRICHMENT, StageProgress

BEHIND = StageProgress(ENRICHMENT, waiting=13_755, waiting_seconds=282.0, living=1, idle_seconds=0.4, held_seconds=3.0)


def test_a_backlog_that_is_worked_on_is_no_problem() -> None:
    assert BEHIND.problem(60.0) is None


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (replace(BEHIND, living=0, idle_seconds=None), "no worker lives: start `context-graph worker enrichment`"),
        (replace(BEHIND, idle_seconds=61.0), "have taken none for 61 s"),
        (replace(BEHIND, held_seconds=75.0), "holding one for 75 s"),
    ],
)
def test_a_stage_that_does_not_go_on_is_stalled(progress: StageProgress, words: str) -> None:
    problem = progress.problem(60.0)
    assert problem is not None
    assert words in problem


def test_nothing_waiting_is_never_a_problem() -> None:
    assert replace(BEHIND, waiting=0, living=0, idle_seconds=None).problem(60.0) is None


def test_what_waits_for_less_than_the_patience_is_no_problem() -> None:
    assert replace(BEHIND, waiting_seconds=59.0, living=0, idle_seconds=None).problem(60.0) is None
