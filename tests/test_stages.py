"""When a stage counts as unwell: not when it is behind, but when it does not go on, or has given up too much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from context_graph.domain.stages import ENRICHMENT, StageLimits, StageProgress, stage_findings

LIMITS = StageLimits(stall_seconds=60.0, dead_letters=100, parked=1000)
BEHIND = StageProgress(
    "acme.0", ENRICHMENT, lag=13_000, pending=755, waiting_seconds=282.0, living=1, idle_seconds=0.4, held_seconds=3.0
)
WELL = replace(BEHIND, lag=0, pending=0, waiting_seconds=0.0, held_seconds=None)


def wrong(progress: StageProgress) -> list[str]:
    return [finding.sentence for finding in stage_findings(progress, LIMITS) if finding.level == "wrong"]


def warned(progress: StageProgress) -> list[str]:
    return [finding.sentence for finding in stage_findings(progress, LIMITS) if finding.level == "warn"]


def test_a_stage_that_is_well_is_not_spoken_of() -> None:
    assert stage_findings(WELL, LIMITS) == []


def test_a_backlog_that_is_worked_on_is_told_and_no_failure() -> None:
    assert wrong(BEHIND) == []
    assert "13,755 events to go" in warned(BEHIND)[0]


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (replace(BEHIND, living=0, idle_seconds=None), "no worker lives: start `context-graph worker enrichment`"),
        (replace(BEHIND, idle_seconds=61.0), "have taken none for 61 s"),
        (replace(BEHIND, held_seconds=75.0), "holding one for 75 s"),
        (replace(WELL, again=3, waiting_seconds=61.0, idle_seconds=61.0), "3 events wait"),
        (replace(WELL, dead_letters=101), "101 dead letters, more than 100: see them with"),
        (replace(WELL, lost=7), "7 events were trimmed unread, and no archive holds them"),
        (
            replace(WELL, gap_problems=("5 events are gone: no archive",)),
            "bring the archive back",
        ),
        (replace(WELL, parked=1000), "1,000 events wait behind failed ones, so many that nothing more is read"),
    ],
)
def test_what_makes_a_stage_unwell(progress: StageProgress, words: str) -> None:
    [problem] = wrong(progress)
    assert words in problem
    assert problem.startswith("acme.0: enrichment: ")


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (replace(WELL, living=0, idle_seconds=None), "no worker lives"),
        (replace(WELL, dead_letters=100), "100 dead letters"),
        (replace(WELL, gaps=("5 events behind 1-0 were trimmed unread",)), "wait: the archive is read"),
        (replace(WELL, parked=999), "999 events wait"),
        (replace(BEHIND, waiting_seconds=59.0, living=0), "no worker lives"),
    ],
)
def test_what_an_operator_should_know_and_no_more(progress: StageProgress, words: str) -> None:
    assert wrong(progress) == []
    [warning] = warned(progress)
    assert words in warning
