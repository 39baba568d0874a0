"""`context-graph rebuild` and `verify`: what is derived built anew beside what is served, and held against the ledger.

Both work on the stores themselves, as `archive` does; the events are worked through by the workers that run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from context_graph.bootstrap import Resources, open_resources
from context_graph.cli.configuration import find_redis, read_settings
from context_graph.cli.run import DataOption
from context_graph.delivery.rebuilds import ModelChoice, Rebuilds, rebuild_json
from context_graph.delivery.rebuilds import Progress as Reached
from context_graph.domain.event import JsonValue, TenantId
from context_graph.domain.generations import Promotion, Rebuild
from context_graph.domain.partition import Tenant
from context_graph.domain.stages import stages_of
from context_graph.errors import ConfigurationError, UnknownThing
from context_graph.observability.logging import configure_logging
from context_graph.operations import load_verify
from context_graph.settings import Settings

_LOOK_AGAIN = 0.5  # seconds
_LINE = 300  # characters of a difference that a terminal shows
_OF_MODELS = frozenset({"vector", "entities", "timeline", "registered"})  # kinds of facts that wait for a model
_UNFED_AFTER = 5.0  # seconds without a living worker after which that is said
Answer = TypeVar("Answer")
Provider = Literal["fastembed", "http", "litellm"]
Action = Literal["start", "status", "promote", "rollback", "drop"]

TenantOption = Annotated[str | None, typer.Option("--tenant", help="Whose [default: CG_TENANT]")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the whole report as JSON")]


def rebuild(
    action: Annotated[
        Action, typer.Argument(help="start (and watch), status, promote, rollback, or drop what is no longer wanted")
    ] = "start",
    *,
    compare: Annotated[bool, typer.Option("--compare", help="Compare only: do not switch by itself")] = False,
    promote: Annotated[bool, typer.Option("--promote", help="Switch also when something differs")] = False,
    model: Annotated[str | None, typer.Option(help="Another embedding model")] = None,
    model_path: Annotated[Path | None, typer.Option(help="The folder that has it, the same for every process")] = None,
    dimensions: Annotated[int | None, typer.Option(min=1, help="Of its vectors")] = None,
    provider: Annotated[Provider | None, typer.Option(help="Where the model is: as CG_EMBEDDING__PROVIDER")] = None,
    url: Annotated[str | None, typer.Option(help="Its server [default: CG_EMBEDDING__URL]")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="start: watch it until it is compared")] = True,
    watch: Annotated[bool, typer.Option("--watch", help="status: watch it until it is compared")] = False,
    rebuild_id: Annotated[str | None, typer.Option("--id", help="Which rebuild [default: the newest]")] = None,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Build everything derived anew from the ledger, beside what is served; compare; switch when it is equal.

    Reads and writes go on. Exit code 1 when the comparison shows a difference.
    """
    if compare and promote:
        raise typer.BadParameter("--compare does not switch and --promote does in any case: give one of them")
    promotion: Promotion = "never" if compare else "always" if promote else "when equal"
    choice = _model(model, model_path, dimensions, provider, url)

    async def work(resources: Resources, whose: Tenant) -> dict[str, JsonValue]:
        rebuilds = resources.rebuilds
        if action == "start":
            begun = await rebuilds.start(whose, promotion, choice)
            typer.echo(f"{begun.id}: generation {begun.number} of {whose.name}", err=True)
        else:
            begun = await _chosen(rebuilds, whose.name, rebuild_id)
            await _change(rebuilds, whose.name, begun, action)
        if (wait and action == "start") or (watch and action == "status"):
            await _watch(resources, whose, begun.id)
        return await _body(rebuilds, whose, begun.id)

    body = _on_stores(data, tenant, work)
    _print(body, as_json=as_json)
    if body["state"] == "failed" or (body["equal"] is False and action == "start" and not promote):
        raise typer.Exit(1)


def verify(tenant: TenantOption = None, as_json: JsonOption = False, data: DataOption = None) -> None:
    """Hold the graph and the index that are served against a replay of the ledger. Exit code 1 when they differ."""
    check = load_verify()
    report = _on_stores(data, tenant, partial(check, tell=partial(typer.echo, err=True)))
    if as_json:
        typer.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
    else:
        typer.echo(f"generation {report['generation']} of {report['tenant']} against {report['events']:,} events")
        if report["events_missing"]:
            typer.echo(
                f"  {report['events_missing']:,} events of the ledger are neither in the stream nor in an archive"
            )
        typer.echo(f"  ledger {report['ledger_hash']}\n  live   {report['live_hash']}")
        _tell(report, "ledger", "live", "ledger_counts", "live_counts")
        typer.echo("Equal." if report["equal"] else "They differ: rebuild, or find out what wrote it.")
    if not report["equal"]:
        raise typer.Exit(1)


def _model(
    name: str | None, path: Path | None, dimensions: int | None, provider: Provider | None, url: str | None
) -> ModelChoice | None:
    if path is not None and not path.is_dir():
        raise ConfigurationError(f"--model-path: {path} is no folder")
    if name is None and path is None and provider is None:
        if url is not None:
            raise ConfigurationError("--url belongs to --provider http or litellm: name it")
        if dimensions is not None:
            raise ConfigurationError(
                "--dimensions belongs to another model: name it by --model, --model-path or --provider"
            )
        return None
    return ModelChoice(name, path.resolve() if path is not None else None, dimensions, provider, url)


async def _change(rebuilds: Rebuilds, tenant: TenantId, rebuild: Rebuild, action: Action) -> None:
    changes: Mapping[str, Callable[[TenantId, str], Awaitable[Rebuild]]] = {
        "promote": rebuilds.promote,
        "rollback": rebuilds.roll_back,
        "drop": rebuilds.drop,
    }
    if action in changes:
        await changes[action](tenant, rebuild.id)


async def _chosen(rebuilds: Rebuilds, tenant: TenantId, rebuild_id: str | None) -> Rebuild:
    if rebuild_id is None:
        return await rebuilds.newest(tenant)
    return (await rebuilds.get(tenant, rebuild_id))[1]


async def _watch(resources: Resources, tenant: Tenant, rebuild_id: str) -> None:
    """Until it is compared (and switched, if it is to be). Ctrl-C leaves it running."""
    rebuilds = resources.rebuilds
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]} {task.fields[pace]}"))
    loop = asyncio.get_running_loop()
    began, told = loop.time(), False
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("building", total=1.0, count="", pace="")
        while True:
            _, rebuild = await rebuilds.get(tenant.name, rebuild_id)
            if not rebuild.runs:
                return
            reached = await rebuilds.progress(tenant, rebuild)
            count = f"{reached.done:,} of {reached.total:,} events"
            shown.update(task, description=rebuild.state, completed=reached.share, count=count, pace=_pace(reached))
            if not told and loop.time() - began > _UNFED_AFTER:
                told = True
                for missing in await _unfed(resources, tenant, rebuild):
                    shown.console.print(missing)
            await asyncio.sleep(_LOOK_AGAIN)


async def _unfed(resources: Resources, tenant: Tenant, rebuild: Rebuild) -> list[str]:
    """Stages that nobody runs."""
    missing: dict[str, None] = {}
    for stage in stages_of(rebuild.number):
        members = [await resources.groups.members(partition, stage.group) for partition in tenant.partitions]
        if not any(found.living for found in members):
            missing[f"no worker lives for it: start `context-graph worker {stage.worker}`"] = None
    return list(missing)


def _pace(reached: Reached) -> str:
    rate = "" if reached.events_per_second is None else f"{reached.events_per_second:,.0f} events/s"
    left = "" if reached.seconds_left is None else f", {reached.seconds_left:,.0f} s left"
    return rate + left


async def _body(rebuilds: Rebuilds, tenant: Tenant, rebuild_id: str) -> dict[str, JsonValue]:
    table, rebuild = await rebuilds.get(tenant.name, rebuild_id)
    progress = await rebuilds.progress(tenant, rebuild) if rebuild.number in table.fed else None
    return rebuild_json(table, rebuild, progress)


def _print(body: Mapping[str, JsonValue], *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())
        return
    live = body["live_generation"]
    typer.echo(f"{body['id']}: {body['state']}; generation {body['generation']}, live is {live}; model {body['model']}")
    if body["problem"]:
        typer.echo(f"  failed: {body['problem']}")
    if body["waits_for"]:
        typer.echo(f"  waits: {body['waits_for']}")
    progress = body["progress"]
    if isinstance(progress, dict) and progress["events_per_second"] is not None:
        typer.echo(
            f"  {progress['events']:,} of {progress['of']:,} events, {progress['events_per_second']:,.0f} events/s"
        )
    report = body["comparison"]
    if isinstance(report, dict):
        typer.echo(f"  live   {report['live_hash']}\n  shadow {report['shadow_hash']}")
        _tell(report, "live", "shadow", "live_counts", "shadow_counts")
        lacks, search = report.get("live_lacks"), report["search"]
        if isinstance(lacks, dict):
            typer.echo(f"  live lacks vectors and entities of {lacks['events']:,} events: {lacks['reason']}")
        if isinstance(search, dict):
            typer.echo("  search: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in search.items()))
        typer.echo(f"  equal over {report['events']:,} events" if report["equal"] else _why(report))
    for line in _next_steps(str(body["state"])):
        typer.echo(line)


def _tell(report: Mapping[str, JsonValue], left: str, right: str, left_counts: str, right_counts: str) -> None:
    """Counts by kind, and the first differences."""
    one, other = report[left_counts], report[right_counts]
    assert isinstance(one, dict) and isinstance(other, dict)
    counts = [f"{kind} {n:,}" if n == other[kind] else f"{kind} {n:,} and {other[kind]:,}" for kind, n in one.items()]
    typer.echo("  " + ", ".join(counts))
    differences = report["differences"]
    for found in differences if isinstance(differences, list) else ():
        assert isinstance(found, dict)
        typer.echo(_printable(f"  {found['kind']} {found['name']}: {found['what']}"))
        for side, name in (("left", left), ("right", right)):
            if found[side] is not None:
                typer.echo(_printable(f"    {name:<7}{orjson.dumps(found[side]).decode()}"))


def _printable(line: str) -> str:
    """For a terminal: of bounded length, and no character that it would obey or cannot show."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return shown if len(shown) <= _LINE else f"{shown[: _LINE - 1]}…"


def _why(report: Mapping[str, JsonValue]) -> str:
    """Why two generations are not equal, in words; what another model makes different is expected."""
    if report["same_state"]:
        if not report["same_model"]:
            return (
                "  the same state, vectors by another model, as expected: compare the searches, "
                "then `context-graph rebuild promote`"
            )
        turned = _counts(report["search"])["vectors_that_differ"]
        return f"  not equal: the same state, but {turned:,} vectors of the sample point elsewhere by the same model"
    words = ", ".join(f"{kind} {n:,}" for kind, n in _counts(report["differing"]).items())
    if _is_lack(report):
        return f"  the same but for what the live generation lacks ({words}), as expected: its model does not answer"
    return f"  not equal; these differ: {words or 'buckets that were not read'}"


def _is_lack(report: Mapping[str, JsonValue]) -> bool:
    """Whether all that differs is what the live generation cannot make now: its vectors, and the entities with them.

    A vector that waits is there with its filters alone; everything else is only in the new generation.
    """
    lacks, differing = report.get("live_lacks"), _counts(report["differing"])
    if not isinstance(lacks, dict) or report["differing_buckets_not_read"] or not differing.keys() <= _OF_MODELS:
        return False
    live, shadow = _counts(report["live_counts"]), _counts(report["shadow_counts"])
    return differing.get("vector", 0) <= _counts(lacks)["events"] and all(
        n == shadow[kind] - live[kind] for kind, n in differing.items() if kind != "vector"
    )


def _counts(value: JsonValue) -> dict[str, int]:
    """The whole numbers of an object of a report."""
    assert isinstance(value, dict)
    return {name: n for name, n in value.items() if isinstance(n, int)}


def _next_steps(state: str) -> list[str]:
    return {
        "ready": ["switch to it: context-graph rebuild promote; or remove it: context-graph rebuild drop"],
        "promoted": ["go back: context-graph rebuild rollback; remove the one before: context-graph rebuild drop"],
        "rolled back": ["remove it: context-graph rebuild drop"],
    }.get(state, [])


def _on_stores(data: Path | None, tenant: str | None, work: Callable[[Resources, Tenant], Awaitable[Answer]]) -> Answer:
    settings: Settings = find_redis(read_settings(data))
    configure_logging(settings.model_copy(update={"log_level": "warning", "log_format": "console"}))

    async def opened() -> Answer:
        async with open_resources(settings) as resources:
            name = TenantId(tenant or settings.tenant)
            found = await resources.tenants.get(name)
            if found is None:
                raise UnknownThing("tenant", name)
            return await work(resources, found)

    return asyncio.run(opened())
