"""Commands that use a running service: ingest files, ask for context, search, follow lineage.

Each is a plain function that `cli/main.py` registers. The service is found by option, by environment (`CG_URL`,
`CG_API_KEY`), else in the data folder, where `context-graph up` leaves its address and key. Answers go to standard
output, what is said about the work to standard error; `--json` prints the raw answer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

import orjson
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from context_graph.cli import printing
from context_graph.cli.client import ServiceClient
from context_graph.cli.configuration import read_settings
from context_graph.cli.files import files_of
from context_graph.cli.importing import import_file, importable
from context_graph.cli.reports import IngestReport
from context_graph.domain.event import JsonValue
from context_graph.errors import ConfigurationError, PermanentError
from context_graph.ingest.transcript_envelopes import JsonObject, moment_of
from context_graph.ingest.transcripts import TranscriptOptions
from context_graph.local.data_folder import DataFolder, read_text

Url = Annotated[str | None, typer.Option("--url", envvar="CG_URL", help="Address of the service.")]
Key = Annotated[str | None, typer.Option("--key", envvar="CG_API_KEY", help="Service key.", show_envvar=True)]
Data = Annotated[
    Path | None, typer.Option("--data", help="Data folder of `context-graph up`, to find address and key in.")
]
Raw = Annotated[bool, typer.Option("--json", help="Print the raw answer.")]
Answer = TypeVar("Answer")
_LONGEST_WAIT = 6 * 3600.0  # seconds; what is still to do is told all the time, and Ctrl-C loses nothing
_THIS_MACHINE = frozenset(("127.0.0.1", "localhost", "::1"))


def open_client(url: str | None, key: str | None, data: Path | None) -> ServiceClient:
    """A client for the service that the options, the environment or the data folder name.

    The folder's key goes to the folder's own service and to this machine only, never to an address given from outside.
    """
    settings = read_settings(data)
    folder = DataFolder.at(settings.data_dir)
    own = read_text(folder.api_url)
    address = url or own or f"http://{settings.api.host}:{settings.api.port}"
    near = address == own or (urlsplit(address).hostname or "") in _THIS_MACHINE
    kept = read_text(folder.api_key) if near else None
    return ServiceClient(address, key or kept, key_header=settings.api.key_header)


def run_with(client: ServiceClient, work: Callable[[ServiceClient], Awaitable[Answer]]) -> Answer:
    """What the work gives, over an open connection."""

    async def connected() -> Answer:
        async with client:
            return await work(client)

    return asyncio.run(connected())


def print_json(value: object) -> None:
    """A raw answer, indented."""
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def ingest(
    files: Annotated[list[Path], typer.Argument(help="Events (NDJSON) or transcripts; folders are searched.")],
    *,
    session: Annotated[str | None, typer.Option(help="Session of a transcript; absent: told by its content.")] = None,
    agent: Annotated[str | None, typer.Option(help="Agent of a transcript; absent: told by its content.")] = None,
    user: Annotated[str | None, typer.Option(help="User whom a transcript is about.")] = None,
    started_at: Annotated[
        str | None, typer.Option(help="RFC 3339 time of a transcript's first message, when it has no times.")
    ] = None,
    as_stream: Annotated[
        bool, typer.Option("--import", help="Send each file of NDJSON (also .gz, .zst) as one stream, of any length.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the events are found by every search.")] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """Append events and transcripts; what is there already is left alone, so a file may be ingested again."""
    options = TranscriptOptions(session=session, agent=agent, user=user, started_at=_moment(started_at))
    if as_stream and options != TranscriptOptions():
        raise ConfigurationError("--import takes events as they are: leave out the options for transcripts")
    if as_stream:
        reports = run_with(open_client(url, key, data), lambda client: _import_all(client, files, wait=wait))
    else:
        paths = files_of(files)
        reports = run_with(open_client(url, key, data), lambda client: _ingest_all(client, paths, options, wait=wait))
    if raw:
        print_json([{"file": str(path), **printing.report_json(report)} for path, report in reports])
    else:
        printing.print_reports(reports)
    incomplete = [report for _, report in reports if not report.complete]
    if incomplete:
        raise PermanentError(_what_is_missing(incomplete))


def _moment(text: str | None) -> int | None:
    if text is None:
        return None
    moment = moment_of(text)
    if moment is None:
        raise ConfigurationError(f"--started-at {text!r} is not a time: write it as 2026-09-01T09:30:00Z")
    return moment


async def _ingest_all(
    client: ServiceClient, paths: list[Path], options: TranscriptOptions, *, wait: bool
) -> list[tuple[Path, IngestReport]]:
    reports: list[tuple[Path, IngestReport]] = []
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files"),
    )
    events = TextColumn("{task.fields[events]:,} events")
    with Progress(
        *columns, events, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("Ingesting", total=len(paths), events=0)
        sent = 0

        def advance(count: int) -> None:
            nonlocal sent
            sent += count
            progress.update(task, events=sent)

        for path in paths:
            progress.update(task, description=path.name)
            reports.append((path, await client.ingest_file(path, options, advance)))
            progress.advance(task)
        if wait:

            def tell(words: str) -> None:
                progress.update(task, description=words)
                if not console.is_terminal:
                    typer.echo(f"waiting: {words}", err=True)

            for position in dict.fromkeys(p for _, report in reports for p in report.last_positions):
                await client.wait_for(position, timeout=_LONGEST_WAIT, tell=tell)
    return reports


async def _import_all(client: ServiceClient, paths: list[Path], *, wait: bool) -> list[tuple[Path, IngestReport]]:
    for path in paths:
        importable(path)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    reports: list[tuple[Path, IngestReport]] = []
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        for path in paths:
            task = progress.add_task(path.name, total=path.stat().st_size)
            reports.append((path, await import_file(client, path, partial(progress.advance, task))))
        if wait:
            for position in dict.fromkeys(p for _, report in reports for p in report.last_positions):
                await client.wait_for(position, timeout=600)
    return reports


def _what_is_missing(reports: list[IngestReport]) -> str:
    missing = sum(report.invalid + report.conflicts + report.failed for report in reports)
    said = [f"{missing:,} events were not taken (see above)"] if missing else []
    return "; ".join([*said, *(report.broken for report in reports if report.broken is not None)])


def context(
    query: Annotated[str, typer.Argument(help="What the agent is about to do, or was asked.")],
    *,
    session: Annotated[str | None, typer.Option(help="The session at hand; absent: all sessions.")] = None,
    agent: Annotated[str | None, typer.Option(help="The agent that asks.")] = None,
    user: Annotated[str | None, typer.Option(help="The user whom it is about.")] = None,
    budget: Annotated[int, typer.Option(help="Tokens that the answer may take.")] = 2000,
    format_: Annotated[
        Literal["markdown", "json", "messages", "anthropic"], typer.Option("--format", help="Form of the content.")
    ] = "markdown",
    explain: Annotated[bool, typer.Option("--explain", help="Say how it was found and what was left out.")] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """Working memory for a query, and the events that each line comes from."""
    body: JsonObject = {"query": query, "token_budget": budget, "format": format_, "explain": explain}
    body |= {name: value for name, value in (("session_id", session), ("agent_id", agent), ("user_id", user)) if value}
    answer = run_with(open_client(url, key, data), lambda client: client.context(body))
    if raw:
        print_json(answer)
        return
    printing.print_context(answer)
    if explain:
        printing.print_explanation(answer)


def search(
    query: Annotated[str, typer.Argument(help="Words or a question.")],
    *,
    mode: Annotated[Literal["hybrid", "semantic", "keyword"], typer.Option(help="How to search.")] = "hybrid",
    limit: Annotated[int, typer.Option(min=1, max=200, help="Results at most.")] = 10,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", help="field=value, also != > >= < <=; repeat to narrow further.")
    ] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """Events and summaries that match, best first."""
    body: JsonObject = {"query": query, "mode": mode, "limit": limit}
    if filters:
        body["filters"] = parse_filters(filters)
    answer = run_with(open_client(url, key, data), lambda client: client.search(body))
    if raw:
        print_json(answer)
    else:
        printing.print_results(answer)


_FILTER = re.compile(r"\s*([a-z_]+)\s*(!=|>=|<=|=|>|<)\s*(.+?)\s*", re.DOTALL)
_OPERATORS = {"=": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


def parse_filters(texts: list[str]) -> JsonObject:
    """`field=value` texts as the filters of the HTTP contract. Raises ConfigurationError for anything else.

    The same field with `=` several times means any of these values.
    """
    parsed: JsonObject = {}
    for text in texts:
        match = _FILTER.fullmatch(text)
        if match is None:
            raise ConfigurationError(f"--filter {text!r} is not field=value (or != > >= < <=)")
        field, operator, value = match[1], _OPERATORS[match[2]], _filter_value(match[1], match[3])
        known = parsed.setdefault(field, {})
        if not isinstance(known, dict):
            continue
        if operator == "eq" and ("eq" in known or "any" in known):
            earlier = known.pop("any", None) or [known.pop("eq")]
            known["any"] = [*(earlier if isinstance(earlier, list) else [earlier]), value]
        else:
            known[operator] = value
    return parsed


def _filter_value(field: str, text: str) -> JsonValue:
    return int(text) if field == "importance" and text.isdecimal() else text


def lineage(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="An event's id.")],
    *,
    direction: Annotated[
        Literal["causes", "effects", "both"], typer.Option(help="What led to it, or what it led to.")
    ] = "causes",
    depth: Annotated[int, typer.Option(min=1, max=100, help="Steps at most.")] = 10,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """What led to an event, or what it led to, as a tree."""
    answer = run_with(open_client(url, key, data), lambda client: client.lineage(event_id, direction, depth))
    if raw:
        print_json(answer)
    else:
        printing.print_lineage(answer, event_id)
