"""Answers of the service as a person reads them in a terminal. Takes the JSON of the HTTP contract, prints, decides
nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from context_graph.cli.reports import IngestReport
from context_graph.domain.event import JsonValue
from context_graph.ingest.transcript_envelopes import JsonObject

# Wide enough for an id, a session and a time in one row when nobody looks at a terminal's edge.
_FILE_WIDTH = 200
_EXCERPT = 160


def _console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _FILE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def _objects(value: JsonValue) -> Iterator[JsonObject]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _object(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _text(value: JsonValue) -> str:
    return "" if value is None else str(value)


def _time(value: JsonValue) -> str:
    """`2026-09-01T09:30:00.000Z` → `2026-09-01 09:30:00`."""
    return _text(value)[:19].replace("T", " ")


def _excerpt(value: JsonValue, limit: int = _EXCERPT) -> str:
    line = " ".join(_text(value).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def report_json(report: IngestReport) -> JsonObject:
    """A report as JSON values."""
    return {
        "events": report.events,
        "created": report.created,
        "duplicates": report.duplicates,
        "invalid": report.invalid,
        "conflicts": report.conflicts,
        "failed": report.failed,
        "problems": [
            {"line": problem.line, "event_id": problem.event_id, "status": problem.status, "reason": problem.reason}
            for problem in report.problems
        ],
        "last_positions": list(report.last_positions),
        "skipped": dict(report.skipped),
        "broken": report.broken,
        "seconds": round(report.seconds, 3),
    }


def print_reports(reports: Sequence[tuple[Path, IngestReport]]) -> None:
    """One line a file, what was skipped and refused below it, and a total when there are several."""
    console = _console()
    for path, report in reports:
        console.print(f"[bold]{escape(str(path))}[/bold]: {_counts([report])}")
        for reason, count in report.skipped:
            console.print(f"  skipped {count:,}: {escape(reason)}")
        for problem in report.problems:
            head = f"  line {problem.line}, event {problem.event_id}: [red]{problem.status}[/red]:"
            console.print(f"{head} {escape(problem.reason)}")
        refused = report.invalid + report.conflicts + report.failed
        if refused > len(report.problems):
            console.print(f"  … and {refused - len(report.problems):,} more")
    if len(reports) > 1:
        console.print(f"[bold]{len(reports)} files[/bold]: {_counts([report for _, report in reports])}")


def _counts(reports: Sequence[IngestReport]) -> str:
    events, seconds = sum(r.events for r in reports), sum(r.seconds for r in reports)
    kinds = (
        ("new", sum(r.created for r in reports)),
        ("there already", sum(r.duplicates for r in reports)),
        ("invalid", sum(r.invalid for r in reports)),
        ("in conflict", sum(r.conflicts for r in reports)),
        ("failed", sum(r.failed for r in reports)),
    )
    said = ", ".join(f"{count:,} {name}" for name, count in kinds if count) or "nothing to add"
    speed = f", {events / seconds:,.0f} a second" if seconds > 0.05 else ""
    return f"{events:,} events: {said} ({seconds:.1f} s{speed})"


def print_context(answer: JsonObject) -> None:
    """The content as it will be sent to a model, then a table of where each [n] comes from."""
    content = answer.get("content")
    if isinstance(content, str):
        print(content)
    elif content is not None:
        print(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())
    else:
        for item in _objects(answer.get("items")):
            print(f"[{_text(item.get('ref'))}] {_text(item.get('text'))}")
    items = list(_objects(answer.get("items")))
    console = _console()
    budget = _object(answer.get("budget"))
    used = f"{_text(budget.get('used'))} of {_text(budget.get('limit'))} tokens ({_text(budget.get('tokenizer'))})"
    if not items:
        console.print(f"\nNothing was found. {used}")
        return
    table = _table("", "event", "session", "time", "why")
    for number, item in enumerate(items, 1):
        ids = [_text(event_id) for event_id in _list(item.get("event_ids"))]
        more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
        reference = f"[{_text(item.get('ref', number))}]"
        _row(table, reference, (ids[0] if ids else _text(item.get("id"))) + more, item, _text(item.get("reason")))
    console.print()
    console.print(table)
    console.print(f"{used}; receipt {_text(answer.get('receipt_id')) or 'none'}")


def print_explanation(answer: JsonObject) -> None:
    """Intents, channels, times and what was left out."""
    console, meta, budget = _console(), _object(answer.get("meta")), _object(answer.get("budget"))
    for name in ("intents", "channels", "timings_ms"):
        pairs = (f"{key} {_number(value)}" for key, value in _object(meta.get(name)).items())
        console.print(f"{name.replace('_', ' ')}: {escape(', '.join(pairs)) or 'none'}")
    table = _table("rank", "score", "section", "channels", "tokens", "event")
    for item in sorted(_objects(answer.get("items")), key=lambda item: float(_text(item.get("rank")) or 0)):
        channels = ", ".join(f"{key} {_number(value)}" for key, value in _object(item.get("channels")).items())
        cells = (item.get("rank"), _number(item.get("score")), item.get("section"), channels, item.get("tokens"))
        table.add_row(*(escape(_text(cell)) for cell in (*cells, item.get("id"))))
    console.print(table)
    dropped = list(_objects(budget.get("dropped")))
    for left_out in dropped[:20]:
        console.print(f"left out {escape(_text(left_out.get('id')))}: {escape(_text(left_out.get('reason')))}")
    total = budget.get("dropped_total")
    if isinstance(total, int) and total > len(dropped[:20]):
        console.print(f"… and {total - len(dropped[:20]):,} more left out")


def print_results(answer: JsonObject) -> None:
    """Search results, best first: score, where it stands, and the beginning of its text."""
    console = _console()
    results = list(_objects(answer.get("results")))
    if not results:
        console.print("Nothing was found.")
    for number, result in enumerate(results, 1):
        ids = _list(result.get("event_ids"))
        head = f"{number}. {_text(ids[0] if ids else result.get('id'))}"
        where = f"{_time(result.get('occurred_at'))}  {_text(result.get('session_id'))}  {_number(result.get('score'))}"
        console.print(f"[bold]{escape(head)}[/bold]  {escape(where)}")
        console.print(f"   {escape(_excerpt(result.get('text'), 300))}")


def print_lineage(answer: JsonObject, root: str) -> None:
    """A tree from the event asked for: its causes upstream, its effects downstream; repeated nodes are named only."""
    nodes = {name: _object(node) for name, node in _object(answer.get("nodes")).items()}
    causes: dict[str, list[str]] = {}
    effects: dict[str, list[str]] = {}
    for edge in _objects(answer.get("edges")):
        if edge.get("type") == "CAUSED_BY":
            source, target = _text(edge.get("source")), _text(edge.get("target"))
            causes.setdefault(source, []).append(target)
            effects.setdefault(target, []).append(source)
    tree = Tree(_node_line(root, nodes))
    upstream = {name for name, node in nodes.items() if _text(node.get("reason")).startswith("causes")}
    downstream = {name for name, node in nodes.items() if _text(node.get("reason")).startswith("effects")}
    _grow(tree, root, causes, nodes=nodes, within=upstream, arrow="←")
    _grow(tree, root, effects, nodes=nodes, within=downstream, arrow="→")
    console = _console()
    console.print(tree)
    truncated = ", ".join(_text(reason) for reason in _list(_object(answer.get("meta")).get("truncated")))
    if truncated:
        console.print(f"cut: {escape(truncated)}")


def _grow(
    tree: Tree, root: str, edges: dict[str, list[str]], *, nodes: dict[str, JsonObject], within: set[str], arrow: str
) -> None:
    """Depth-first with a stack of its own: a chain of causes may be longer than Python recurses."""
    seen = {root}
    stack = [(tree, root)]
    while stack:
        branch, name = stack.pop()
        for neighbour in edges.get(name, []):
            if neighbour not in within:
                continue
            if neighbour in seen:
                branch.add(f"{arrow} {escape(neighbour)} (shown above)")
                continue
            seen.add(neighbour)
            stack.append((branch.add(f"{arrow} {_node_line(neighbour, nodes)}"), neighbour))


def _node_line(name: str, nodes: dict[str, JsonObject]) -> str:
    node = nodes.get(name, {})
    attributes, provenance = _object(node.get("attributes")), _object(node.get("provenance"))
    if not provenance:
        return f"[bold]{escape(name)}[/bold] [yellow]named as a cause, not arrived[/yellow]"
    what = " ".join(_text(part) for part in (attributes.get("event_type"), attributes.get("tool_name")) if part)
    status = _text(attributes.get("status"))
    where = f"{_time(provenance.get('occurred_at'))}  {_text(provenance.get('session_id'))}"
    marked = f" [red]{status}[/red]" if status in ("failed", "timeout") else ""
    return (
        f"[bold]{escape(name)}[/bold]  {escape(where)}  [cyan]{escape(what)}[/cyan]{marked}\n"
        f"{escape(_excerpt(attributes.get('text')))}"
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Table, reference: str, event: str, item: JsonObject, why: str) -> None:
    cells: Iterable[str] = (reference, event, _text(item.get("session_id")), _time(item.get("occurred_at")), why)
    table.add_row(*(escape(cell) for cell in cells))


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _number(value: JsonValue) -> str:
    return f"{value:.3g}" if isinstance(value, float) else _text(value)
