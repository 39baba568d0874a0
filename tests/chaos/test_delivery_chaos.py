"""A short run of the chaos command: nothing lost, nothing twice, the poison in the dead letters, the rest done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.delivery_chaos import run

pytestmark = pytest.mark.chaos


@pytest.mark.timeout(180)
async def test_whatever_ends_in_the_middle_the_graph_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    verdict = await run(tmp_path, kills=5, events=1_500, workers=2, every=700, seed=20261124, deliveries=5)
    assert sum(verdict.kills.values()) >= 5
    assert verdict.redis_kills >= 2
    assert verdict.trimmed_unread > 0
    assert verdict.recovered > 0, "the archive was not needed: this run has shown nothing"
    assert verdict.took_over > 0, "no end hit a worker at work: this run has shown nothing"
    assert verdict.faults == 0, verdict.table()
