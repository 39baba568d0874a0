"""A worker that stands still in the middle of a batch, as of SIGSTOP or a frozen machine, and goes on much later."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from context_graph.bootstrap import Resources
from context_graph.domain.stages import PROJECTION
from context_graph.local.process import Child, Program
from context_graph.settings import Settings
from tests.events import event
from tests.graph_state import graph_state
from tests.ledger_events import append, only_partition, parsed
from tests.stages import caught_up
from tests.waiting import until

_DELIVERY = {
    "CG_DELIVERY__POLL_SECONDS": "0.1",
    "CG_DELIVERY__HEARTBEAT_SECONDS": "0.1",
    "CG_DELIVERY__RECLAIM_IDLE_SECONDS": "0.3",
    "CG_DELIVERY__BATCH_EVENTS": "8",
}

pytestmark = pytest.mark.chaos


def _worker(settings: Settings, folder: Path, point: str) -> Child:
    assert settings.redis_url is not None
    mine = {"CG_REDIS_URL": settings.redis_url.get_secret_value(), "CG_DATA_DIR": str(folder / "data"), **_DELIVERY}
    command = (sys.executable, "-m", "tests.chaos.mortal_worker", point, "2")
    return Child.start(Program(point, command, folder / f"{point}.log", os.environ | mine))


def _state(child: Child) -> str:
    """As the kernel says it: T is stopped."""
    return Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2][0]


async def _is_stopped(child: Child) -> bool:
    return _state(child) == "T"


async def test_what_a_stopped_worker_holds_is_taken_over_and_its_late_acknowledgement_changes_nothing(
    settings: Settings, resources: Resources, tmp_path: Path
) -> None:
    partition = await only_partition(resources.tenants)
    group, groups = PROJECTION.group, resources.groups
    await append(resources.ledger, partition, parsed([event(n) for n in range(40)]))
    sleeper = _worker(settings, tmp_path, "sleep")
    other: Child | None = None
    try:
        await until(lambda: _is_stopped(sleeper), seconds=30)
        held = await groups.state(partition, group)
        assert (held.pending, held.lag) == (8, 24), "it stands still with the second batch written and not acknowledged"
        other = _worker(settings, tmp_path, "never")
        await until(lambda: caught_up(groups, partition, group), seconds=30)
        before = await graph_state(resources.derived_redis, partition)
        assert sum(name.startswith("event:") for name in before) == 40
        os.kill(sleeper.pid, signal.SIGCONT)
        await append(resources.ledger, partition, parsed([event(n, session_id="later") for n in range(40, 80)]))
        await until(lambda: caught_up(groups, partition, group), seconds=30)
        assert await sleeper.stop(20), "it goes on and stops as it is asked to"
        after = await graph_state(resources.derived_redis, partition)
        assert sum(name.startswith("event:") for name in after) == 80
        assert {name: after[name] for name in before if name.startswith("event:")} == {
            name: fields for name, fields in before.items() if name.startswith("event:")
        }
        assert (await groups.state(partition, group)).pending == 0
        assert await resources.dead_letters.count(partition) == 0
    finally:
        if sleeper.exit_code is None:
            os.kill(sleeper.pid, signal.SIGCONT)
        for child in (sleeper, other):
            if child is not None and child.exit_code is None:
                await child.stop(20)
