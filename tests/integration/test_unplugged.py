"""Stage 2 with the network unplugged: models, Redis, vectors, entities, search; nothing is asked of the outside."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def _namespace() -> list[str] | None:
    """What runs a command in a network namespace of its own, where that is allowed."""
    unshare = shutil.which("unshare")
    for argv in ([unshare, "-n"], [unshare, "-r", "-n"]) if unshare is not None else ():
        if subprocess.run([*argv, "true"], capture_output=True, check=False).returncode == 0:
            return argv
    return None


def test_the_whole_of_stage_two_works_without_a_network(tmp_path: Path) -> None:
    namespace = _namespace()
    if namespace is None:
        pytest.skip("this machine allows no network namespace (unshare -n)")
    argv = [*namespace, sys.executable, "-m", "tests.unplugged", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["outside"] != "answered"
    assert said["near"] == ["e1"]
    assert said["matching"] == ["e0"]
    assert {"id:w3470184", "person:mia kovacs"} <= set(said["entities"])
