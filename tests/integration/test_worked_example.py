"""The README's worked example runs as it is written, on the sample, and tells what the text says it tells."""

from __future__ import annotations

import asyncio
import re
import sys
from importlib.resources import files
from pathlib import Path

import httpx2
import orjson

from tests.events import post_all
from tests.service import Service
from tests.waiting import until

_README = Path(__file__).parents[2] / "README.md"


def _commands() -> str:
    section = _README.read_text().partition("## Why did the agent do that?")[2].partition("\n## ")[0]
    [block] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return str(block)


async def _findable(http: httpx2.AsyncClient) -> bool:
    """By its words: the vectors follow, and the example does not wait for them."""
    answer = await http.post("/v1/search", json={"query": "rf_3390 refund", "mode": "keyword"})
    lineage = await http.get("/v1/events/nadia-0902-37/lineage")
    return bool(answer.json()["results"]) and lineage.status_code == 200


async def test_the_worked_example_runs_as_written(http: httpx2.AsyncClient, service: Service, tmp_path: Path) -> None:
    sample = files("context_graph.local").joinpath("sample/support.ndjson").read_bytes().splitlines()
    events = [event for event in map(orjson.loads, sample) if event["session_id"].startswith("support-nadia")]
    await post_all(http, events)
    await until(lambda: _findable(http))
    (tmp_path / ".context-graph").mkdir()
    (tmp_path / ".context-graph" / "api-key").write_text(service.key)
    program = Path(sys.executable).parent / "context-graph"
    commands = (
        _commands().replace("http://127.0.0.1:8080", service.url).replace(".venv/bin/context-graph", str(program))
    )
    shell = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", commands, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "CG_URL": service.url, "CG_API_KEY": service.key, "HOME": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await asyncio.wait_for(shell.communicate(), 120)
    told = output.decode()
    assert shell.returncode == 0, errors.decode()
    assert '"created":3' in told.replace(" ", "")
    knew = told[told.index("receipt-") :]
    assert "asked: which refunds did Nadia get for LF-20817?" in knew
    assert "recorded after it asked: nadia-0905-01" in knew
    assert "reproduced" in errors.decode()
    assert "## Relevant" in told, "the context as it was served"
    for cause in ("nadia-0902-20", "nadia-0902-11", "nadia-0824-20", "nadia-0824-02"):
        assert cause in told[told.index("## Relevant") :], "lineage goes back to the first double charge"
    assert "nadia-0905-03" in told[told.rindex("→") :]
    assert '"impact":{"events":' in told
