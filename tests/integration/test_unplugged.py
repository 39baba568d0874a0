"""Stage 2 with the network unplugged: models, Redis, vectors, entities, search; nothing is asked of the outside."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def _namespace() -> list[str] | None:
    """What runs a command in a network namespace of its own, where that is allowed."""
    unshare = shutil.which("unshare")
    for argv in ([unshare, "-n"], [unshare, "-r", "-n"]) if unshare is not None else ():
        if subprocess.run([*argv, "true"], capture_output=True, check=False).returncode == 0:
            return argv
    return None


def _clone(into: Path) -> Path:
    """What a user gets who clones the repository: what is committed, and nothing that lies beside it."""
    made = subprocess.run(
        ["git", "clone", "--quiet", "--no-local", "--depth", "1", f"file://{REPOSITORY}", str(into)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        pytest.skip(f"no clone of {REPOSITORY}: {made.stderr.strip()}")
    return into


def test_the_whole_of_stage_two_works_from_a_fresh_clone_without_a_network(tmp_path: Path) -> None:
    clone = _clone(tmp_path / "clone")
    namespace = _namespace()
    argv = [*(namespace or ()), sys.executable, "-m", "tests.unplugged", str(tmp_path / "data")]
    done = subprocess.run(
        argv if namespace else [*argv, "refuse"],
        cwd=clone, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["code"] == str(clone), "the clone's own code ran"
    assert said["outside"] != "answered"
    assert said["near"] == ["e1"]
    assert said["matching"] == ["e0"]
    assert {"id:w3470184", "person:mia kovacs"} <= set(said["entities"])
