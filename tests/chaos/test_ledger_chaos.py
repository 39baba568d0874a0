"""A short run of the chaos command: what was acknowledged is in the ledger once and in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.ledger_chaos import run

pytestmark = pytest.mark.chaos


@pytest.mark.timeout(150)
async def test_what_was_acknowledged_survives_the_end_of_the_api_and_of_redis(tmp_path: Path) -> None:
    verdict = await run(tmp_path, kills=6, seconds=45, seed=20261123)
    assert sum(verdict.kills.values()) >= 4
    assert verdict.repeated_requests > 0, "no kill hit a writer: this run has shown nothing"
    assert verdict.faults == 0, verdict.table()
