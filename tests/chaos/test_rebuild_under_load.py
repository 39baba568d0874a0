"""A short run of the chaos command: a rebuild under load, its workers killed in the middle, loses and fails nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.rebuild_under_load import Plan, run

pytestmark = pytest.mark.chaos


@pytest.mark.timeout(150)
async def test_a_rebuild_goes_on_beside_reads_and_writes_and_survives_the_end_of_its_workers(tmp_path: Path) -> None:
    verdict = await run(tmp_path, Plan(events=700, texts=40, writes_per_second=15, readers=1, settle=1))
    assert verdict.kills == 1, "nobody was killed: this run has shown nothing"
    assert verdict.reads > 10
    assert verdict.writes > 20
    assert verdict.faults == 0, verdict
