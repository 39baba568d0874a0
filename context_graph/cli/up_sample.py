"""The sample of `context-graph up`: ingested once, found again at later starts, and three questions about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

import orjson

from context_graph.bootstrap import Resources, open_resources
from context_graph.cli.client import ServiceClient
from context_graph.cli.reports import IngestReport
from context_graph.cli.up_output import Output
from context_graph.domain.event import TenantId
from context_graph.errors import PermanentError, TemporaryError
from context_graph.ingest.transcript_envelopes import JsonObject
from context_graph.settings import Settings
from context_graph.workers import load_worker

_SAMPLE_SECONDS = 600.0  # until the sample is in the graph and has its vectors
_SUMMARY_SECONDS = 60.0  # until new summaries are found
_BUDGET = 600  # tokens of working memory for each question: a screen
# Of a question's record only this goes into the request; the rest tells what a good answer would be.
_SCOPE = ("session_id", "agent_id", "user_id", "token_budget", "filters")


@contextmanager
def _sample_folder() -> Iterator[Path]:
    with as_file(files("context_graph.local").joinpath("sample")) as folder:
        yield folder


async def ingest_sample(client: ServiceClient, output: Output) -> None:
    """Append the sample's events, which have fixed ids, and wait until every stage has passed them."""
    reports: list[IngestReport] = []
    with output.step("Sample") as show, _sample_folder() as folder:
        sent = 0

        def progress(count: int) -> None:
            nonlocal sent
            sent += count
            show(f"{sent:,} events")

        for path in sorted(folder.glob("*.ndjson")):
            report = await client.ingest_file(path, progress=progress)
            if not report.complete:
                reasons = "; ".join(problem.reason for problem in report.problems) or report.broken
                raise PermanentError(f"the sample {path.name} was not taken whole: {reasons}")
            reports.append(report)
        created, known = sum(r.created for r in reports), sum(r.duplicates for r in reports)
        show(f"{created:,} new events, {known:,} known already")
    with output.step("Graph, index and vectors") as show:
        positions = [position for report in reports for position in report.last_positions]
        await asyncio.gather(*(client.wait_for(position, timeout=_SAMPLE_SECONDS, tell=show) for position in positions))
        show("the sample is in the graph and can be found")


async def summarise(settings: Settings, client: ServiceClient, output: Output) -> None:
    """One pass of Stage 3 now, not in hours, so that memory has summaries; unchanged sessions cost nothing.

    A backlog of earlier runs may hold it up: then the worker does it later, and the start goes on.
    """
    worker = load_worker("consolidation")
    if worker.once is None:
        raise PermanentError("the worker `consolidation` cannot run a single pass")
    with output.step("Summaries") as show:
        async with open_resources(settings) as resources:
            before = await _ends(resources)
            try:
                words = await worker.once(resources)
                new = await _ends(resources) - before
                waits = [client.wait_for(position, timeout=_SUMMARY_SECONDS, tell=show) for position in new]
                await asyncio.gather(*waits)
            except TemporaryError as error:
                words = f"they follow later: {error}"
        show(words)


async def _ends(resources: Resources) -> set[str]:
    """The newest positions of the tenant's partitions."""
    tenant = await resources.tenants.get(TenantId(resources.settings.tenant))
    partitions = tenant.partitions if tenant is not None else ()
    ends = [await resources.ledger.last(partition) for partition in partitions]
    return {str(end) for end in ends if end is not None}


async def show_memory(client: ServiceClient, output: Output) -> None:
    """Ask the sample's questions and print what an agent would get, with its sources."""
    with _sample_folder() as folder:
        questions: list[JsonObject] = orjson.loads((folder / "questions.json").read_bytes())
    for question in questions:
        words = str(question["question"])
        body: JsonObject = {"query": words, "format": "markdown", "token_budget": _BUDGET}
        body |= {name: value for name, value in question.items() if name in _SCOPE}
        began = time.perf_counter()
        answer = await client.context(body)
        output.memory(words, answer, (time.perf_counter() - began) * 1000)
