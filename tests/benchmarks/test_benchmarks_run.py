"""The benchmarks run and report in their shape; how fast anything is, is nobody's test."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import orjson
import pytest

from tests.benchmarks.rows import Pairs, Target, percentile

_FIELDS = {"name", "value", "unit", "floor", "ratio", "target", "met", "samples", "notes"}


async def test_a_quick_run_prints_the_rows_it_writes(tmp_path: Path) -> None:
    out = tmp_path / "latest.json"
    argv = ("-m", "tests.benchmarks", "--quick", "--only", "ingest_batch", "--events", "500", "--out", str(out))
    run = await asyncio.create_subprocess_exec(
        sys.executable, *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, table = await run.communicate()
    assert run.returncode == 0, table.decode()
    report = orjson.loads(said)
    assert report == orjson.loads(out.read_bytes())
    assert {"at", "python", "redis", "cores", "commit"} <= set(report["environment"])
    [row] = report["rows"]
    assert set(row) == _FIELDS
    assert row["name"] == "ingest_batch"
    assert row["value"] > 0
    assert row["floor"] > 0
    assert len(row["samples"]["ratio"]) == 2
    assert "ingest_batch" in table.decode()


def test_a_ratio_is_the_median_of_its_pairs() -> None:
    row = Pairs(product=[10.0, 30.0, 50.0], floor=[20.0, 40.0, 50.0]).row("r", "events/s", Target(0.7, "at least"))
    assert row.ratio == pytest.approx(0.75)
    assert row.met
    assert row.notes == {"ratio_min": 0.5, "ratio_max": 1.0}


def test_targets_are_met_on_their_side() -> None:
    assert Target(2.0, "at most").met_by(1.9)
    assert not Target(2.0, "at most").met_by(2.1)
    assert str(Target(0.35, "at least")) == ">= 0.35"


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([float(number) for number in range(100)], 0.95) == 95.0
