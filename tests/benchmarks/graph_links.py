"""What links cost a graph query: the default one with SIMILAR_TO, RELATED_TO and SAME_AS beside it without them.

Links are found when asked for (adr/0028), SIMILAR_TO by a KNN search for each event at the frontier. The same question
is asked without the three (the default), with each of them and with all, in turns; else as by default: two steps, 200
nodes. With links a walk reaches more, so the nodes of each are told beside the times.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

from context_graph.domain.edges import EDGE_TYPES, LINKS, SAID
from tests.benchmarks.filling import MADE, fill_derived, fill_ledger, open_pool
from tests.benchmarks.http_client import Connection
from tests.benchmarks.rows import Options, Pairs, Row, Target, percentile
from tests.benchmarks.stage import open_stage
from tests.benchmarks.workload import load_texts

_WARM = 3  # questions before the clock counts
_KINDS = ("event", "session")
_EDGES: Mapping[str, list[str]] = {
    "default": list(SAID),
    **{f"with_{name.lower()}": [*SAID, name] for name in sorted(LINKS)},
    "with_links": list(EDGE_TYPES),
}


async def graph_links(options: Options) -> tuple[Row, ...]:
    """Milliseconds of a graph query from an event, and from a session."""
    count = options.sized(10_000, 1_000)
    questions = 6 if options.quick else 20
    async with open_stage() as stage:
        pool = await open_pool(stage, load_texts().sentences, 64 if options.quick else 400)
        events = pool.workload.events(count, "g")
        await fill_ledger(stage, events)
        await fill_derived(stage, pool, count)
        chosen = events[7 :: count // questions][:questions]
        async with stage.api() as port:
            connection = Connection(port, stage.key)
            rows = [await _row(connection, kind, [event[f"{kind}_id"] for event in chosen], count) for kind in _KINDS]
            await connection.close()
    return tuple(rows)


async def _row(connection: Connection, kind: str, ids: list[str], count: int) -> Row:
    taken: dict[str, list[float]] = {name: [] for name in _EDGES}
    nodes: dict[str, list[float]] = {name: [] for name in _EDGES}
    for number, identifier in enumerate(ids):
        order = list(_EDGES) if number % 2 else list(_EDGES)[::-1]
        for name in order:
            body = {"start": [{"kind": kind, "id": identifier}], "edges": _EDGES[name]}
            began = time.perf_counter()
            status, answer = await connection.post("/v1/graph/query", body)
            spent = (time.perf_counter() - began) * 1000
            if status != 200:
                raise RuntimeError(f"/v1/graph/query: {status} {answer}")
            if number >= _WARM:
                taken[name].append(spent)
                nodes[name].append(len(answer["nodes"]))
    floor = taken["default"]
    return Pairs(taken["with_links"], floor).row(
        f"graph_links_{kind}",
        "ms p50",
        Target(2.0, "at most"),
        events=count,
        filled=MADE,
        p50_ms={name: median(times) for name, times in taken.items()},
        p95_ms={name: percentile(times, 0.95) for name, times in taken.items()},
        ratios={name: median(Pairs(times, floor).ratios) for name, times in taken.items()},
        nodes={name: median(counts) for name, counts in nodes.items()},
    )
