"""`python -m tests.benchmarks [--only NAME] [--events N] [--quick] [--out FILE]`: JSON to stdout, a table to stderr."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import orjson

from context_graph.store.readiness import read_redis_facts
from tests.benchmarks.context import context
from tests.benchmarks.entities import stage2_entities
from tests.benchmarks.freshness import freshness
from tests.benchmarks.graph_links import graph_links
from tests.benchmarks.ingest import ingest_batch, ingest_batch_sealed, ingest_single
from tests.benchmarks.memory import memory
from tests.benchmarks.projection import stage1, stage1_growth, stage1_workers
from tests.benchmarks.rebuild import rebuild
from tests.benchmarks.rows import Options, Row
from tests.benchmarks.stage import open_stage
from tests.benchmarks.vectors import stage2_vectors, stage2_workers

_OUT = Path(".benchmarks/latest.json")

Benchmark = Callable[[Options], Awaitable["Row | tuple[Row, ...]"]]
BENCHMARKS: Mapping[str, Benchmark] = {
    "ingest_batch": ingest_batch,
    "ingest_batch_sealed": ingest_batch_sealed,
    "ingest_single": ingest_single,
    "stage1": stage1,
    "stage1_two_workers": stage1_workers,
    "stage1_growth": stage1_growth,
    "rebuild": rebuild,
    "stage2_vectors": stage2_vectors,
    "stage2_two_workers": stage2_workers,
    "stage2_entities": stage2_entities,
    "context": context,
    "graph_links": graph_links,
    "freshness": freshness,
    "memory": memory,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for. The exit code tells whether it ran, not whether targets were met."""
    asked = _parser().parse_args(arguments)
    options = Options(events=asked.events, quick=asked.quick)
    report = asyncio.run(_run(asked.only or list(BENCHMARKS), options))
    text = orjson.dumps(report, option=orjson.OPT_INDENT_2)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_bytes(text + b"\n")
    sys.stdout.write(text.decode() + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="this one; may be repeated")
    parser.add_argument("--events", type=int, help="events of each sample, or in the memory asked")
    parser.add_argument("--quick", action="store_true", help="small sizes and two pairs: does it run, not how fast")
    parser.add_argument("--out", type=Path, default=_OUT, help=f"where the JSON goes as well [{_OUT}]")
    return parser


async def _run(names: Sequence[str], options: Options) -> dict[str, object]:
    environment = await _environment()
    rows: list[Row] = []
    for name in names:
        sys.stderr.write(f"{name} …\n")
        began = time.perf_counter()
        found = await BENCHMARKS[name](options)
        new = found if isinstance(found, tuple) else (found,)
        rows += new
        sys.stderr.write("".join(map(_line, new)) + f"  ({time.perf_counter() - began:.0f} s)\n")
    sys.stderr.write("\n" + "".join(map(_line, rows)))
    environment["load_average_after"] = os.getloadavg()[0]
    return {"environment": environment, "quick": options.quick, "rows": [row.as_json() for row in rows]}


def _line(row: Row) -> str:
    """`ingest_batch  21,000 events/s  floor 60,000  ratio 0.35 (0.33 to 0.37)  >= 0.35  met`."""
    floor = "" if row.floor is None else f"floor {row.floor:,.1f}"
    ratio = "" if row.ratio is None else f"ratio {row.ratio:.2f}"
    low, high = row.notes.get("ratio_min"), row.notes.get("ratio_max")
    spread = f" ({low:.2f} to {high:.2f})" if isinstance(low, float) and isinstance(high, float) else ""
    verdict = "met" if row.met else "MISSED"
    return (
        f"{row.name:18} {row.value:>10,.1f} {row.unit:12} {floor:>18}  {ratio}{spread:18}  {row.target:14} {verdict}\n"
    )


async def _environment() -> dict[str, object]:
    async with open_stage() as stage:
        facts = await read_redis_facts(stage.resources.ledger_redis)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load_average_before": os.getloadavg()[0],
        "redis": facts.version,
        "search": facts.search_version,
        "packages": {name: version(name) for name in ("redis", "fastapi", "uvicorn", "onnxruntime", "fastembed")},
        "commit": _commit(),
    }


def _commit() -> str:
    """The commit, with `+` when the tree has changes; `unknown` outside a repository."""
    answers = []
    for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no")):
        said = subprocess.run(("git", *words), capture_output=True, text=True, check=False)
        if said.returncode:
            return "unknown"
        answers.append(said.stdout.strip())
    return answers[0] + ("+" if answers[1] else "")


if __name__ == "__main__":
    main()
