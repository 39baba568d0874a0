"""`python -m tests.quality.lineage`: is every explicit cause in real transcripts found, and nothing invented?

The runs of tau_bench and the sessions of claude_code are imported, kept in a ledger and projected; then lineage is
asked for every event, one step in both directions. Two truths are held against the answers:

- what the posted events name as causes: `recall` and `precision` of the edges, from the effect and from the cause;
- what the raw files say, read here without the importer: which call each tool result answers. In tau_bench a call id
  is used again for other calls, so a result answers the latest call before it that has its id.

JSON on stdout. Without the data it says so and ends well.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.cli.files import events_of_file, files_of, importer_for
from context_graph.domain.event import Envelope
from context_graph.domain.partition import Tenant
from context_graph.ingest.transcripts import TranscriptOptions
from context_graph.ingest.validation import Validator
from context_graph.local.redis_server import embedded_redis
from context_graph.retrieval.deadline import Deadline
from context_graph.retrieval.forgotten import ForgottenNodes
from context_graph.retrieval.lineage import Bounds, Lineage, LineageWalk, Walk
from context_graph.retrieval.neighbours import Neighbours
from context_graph.settings import Settings
from context_graph.store import codec
from context_graph.store.forgotten import Forgotten
from context_graph.store.ledger import Appendable
from context_graph.store.mentions import Mentions
from context_graph.store.receipts import ReceiptIndex
from context_graph.store.timelines import Timelines
from projections.fold import fold
from tests.quality.sets import DATA

SETS = ("tau_bench", "claude_code")
_AT_ONCE = 50
_BATCH = 500
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Measured:
    """What lineage found of a set. Raw: tool results whose call the file tells, and how many were found as told."""

    events: int
    causes: int
    recall: float
    precision: float
    raw_results: int
    raw_right: int
    seconds: float


async def measure(resources: Resources, tenant: Tenant, name: str, runs: int | None = None) -> Measured:
    """Fill a tenant with (some runs of) a set and ask. `runs`: of each file at most so many sessions."""
    began = time.perf_counter()
    envelopes = _envelopes(resources.settings, name, runs)
    await _fill(resources, tenant, envelopes)
    told = {(e.event_id, cause) for e in envelopes for cause in e.causes}
    upward, downward = await _asked(resources, tenant, envelopes)
    found = upward & downward
    answered, right = _against_raw(name, envelopes, upward)
    return Measured(
        events=len(envelopes),
        causes=len(told),
        recall=len(told & found) / len(told),
        precision=len(told & (upward | downward)) / len(upward | downward),
        raw_results=answered,
        raw_right=right,
        seconds=round(time.perf_counter() - began, 1),
    )


def _envelopes(settings: Settings, name: str, runs: int | None) -> list[Envelope]:
    validator = Validator(settings.ledger, lambda: int(time.time() * 1000))
    found: dict[str, Envelope] = {}
    for path in files_of([DATA / name]):
        if path.suffix not in (".json", ".jsonl"):
            continue
        sessions: dict[str, None] = {}
        for located in events_of_file(path, importer_for(path, TranscriptOptions())):
            envelope = validator.envelope(located.event)
            sessions[envelope.session_id] = None
            if runs is not None and len(sessions) > runs:
                break
            found.setdefault(envelope.event_id, envelope)
    return list(found.values())


async def _fill(resources: Resources, tenant: Tenant, envelopes: Sequence[Envelope]) -> None:
    [partition] = tenant.partitions
    for start in range(0, len(envelopes), _BATCH):
        batch = envelopes[start : start + _BATCH]
        await resources.ledger.append(partition, [Appendable(e.event_id, e.session_id, codec.encode(e)) for e in batch])
    last = None
    while events := await resources.ledger.after(partition, last, _BATCH):
        await resources.graph.apply(partition, fold(events))
        last = events[-1].position


async def _asked(resources: Resources, tenant: Tenant, envelopes: Sequence[Envelope]) -> tuple[set[Pair], set[Pair]]:
    """Edges (effect, cause) as told from the effects, and as told from the causes."""
    index = ReceiptIndex(resources.derived_redis, resources.graph)
    timelines = Timelines(resources.derived_redis, resources.graph)
    mentions = Mentions(resources.derived_redis, resources.graph)
    memory = ForgottenNodes(resources.ledger, Forgotten(resources.derived_redis, resources.graph))
    walk = LineageWalk(Neighbours(resources.graph, timelines, index, mentions, memory), resources.index)
    bounds = Bounds(max_depth=1, max_nodes=5000, fan_out=1000)

    async def one(event_id: str) -> tuple[set[Pair], set[Pair]]:
        causes = await walk.walk(event_id, "causes", Walk(tenant, bounds, Deadline.after(60_000)))
        effects = await walk.walk(event_id, "effects", Walk(tenant, bounds, Deadline.after(60_000)))
        return _edges(causes, event_id, 0), _edges(effects, event_id, 1)

    upward: set[Pair] = set()
    downward: set[Pair] = set()
    for start in range(0, len(envelopes), _AT_ONCE):
        names = [e.event_id for e in envelopes[start : start + _AT_ONCE]]
        for ups, downs in await asyncio.gather(*map(one, names)):
            upward |= ups
            downward |= downs
    return upward, downward


def _edges(lineage: Lineage, event_id: str, end: int) -> set[Pair]:
    """Those at the event itself: the last step's look at what lies further adds edges between others."""
    return {pair for pair in lineage.edges if pair[end] == event_id}


def _against_raw(name: str, envelopes: Sequence[Envelope], edges: set[Pair]) -> tuple[int, int]:
    """How many tool results the raw files tell the call of, and for how many of these lineage names that very call."""
    causes: dict[str, set[str]] = {}
    for effect, cause in edges:
        causes.setdefault(effect, set()).add(cause)
    calls: dict[str, list[Envelope]] = {}
    results: dict[str, list[Envelope]] = {}
    for envelope in envelopes:
        group = {"tool.call": calls, "tool.result": results}.get(envelope.event_type)
        if group is not None:
            group.setdefault(_run_of(name, envelope), []).append(envelope)
    asked = right = 0
    for run, told in _told(name):
        if run not in results:
            continue
        mine = results[run]
        for place, call_place in enumerate(told):
            asked += 1
            if place < len(mine) and call_place < len(calls.get(run, ())):
                right += causes.get(mine[place].event_id, set()) == {calls[run][call_place].event_id}
    return asked, right


def _run_of(name: str, envelope: Envelope) -> str:
    """In claude_code ids are unique, so results are told apart by theirs; in tau_bench a run is a session."""
    if name == "tau_bench":
        return envelope.session_id
    return str(envelope.payload["tool_call_id"]) if isinstance(envelope.payload, dict) else ""


def _told(name: str) -> Iterator[tuple[str, list[int]]]:
    """From the raw files: of each run, for its tool results in order, the place among its calls of the one answered."""
    if name == "tau_bench":
        for run in json.loads((DATA / name / "gpt-4o-airline.json").read_text()):
            yield f"gpt-4o-airline-task{run['task_id']}-trial{run['trial']}", _answers(run["traj"])
    else:
        yield from ((call_id, [0]) for call_id in sorted(_both_ends(DATA / name)))


def _answers(messages: Sequence[dict[str, Any]]) -> list[int]:
    calls: list[str] = []
    answered: list[int] = []
    for message in messages:
        calls += [call["id"] for call in message.get("tool_calls") or ()]
        if message["role"] == "tool":
            answered.append(max(place for place, name in enumerate(calls) if name == message["tool_call_id"]))
    return answered


def _both_ends(folder: Path) -> set[str]:
    """Ids that some file of the sessions has both a call and a result of."""
    found: set[str] = set()
    for path in sorted(folder.rglob("*.jsonl")):
        ends: dict[str, set[str]] = {"tool_use": set(), "tool_result": set()}
        for line in path.read_text().splitlines():
            content = (json.loads(line).get("message") or {}).get("content")
            for part in content if isinstance(content, list) else ():
                if part.get("type") in ends:
                    ends[part["type"]].add(str(part.get("id") or part.get("tool_use_id")))
        found |= ends["tool_use"] & ends["tool_result"]
    return found


async def main() -> int:
    """Measure every set; 1 when anything is missing or invented."""
    if not all((DATA / name).is_dir() for name in SETS):
        sys.stderr.write(f"no transcripts in {DATA}: nothing measured\n")
        return 0
    found: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        async with embedded_redis(Path(folder)) as server:
            settings = Settings(redis_url=SecretStr(server.url), data_dir=Path(folder) / "data")
            async with open_resources(settings) as resources:
                for name in SETS:
                    tenant = await resources.tenants.ensure(name.replace("_", "-"), 1)
                    found[name] = await measure(resources, tenant, name)
    print(json.dumps({"lineage": {name: asdict(one) for name, one in found.items()}}, indent=2))
    return 0 if all(perfect(one) for one in found.values()) else 1


def perfect(one: Measured) -> bool:
    """Everything found, nothing invented."""
    return one.recall == one.precision == 1.0 and one.raw_right == one.raw_results > 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
