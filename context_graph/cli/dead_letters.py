"""`context-graph dead-letters`: what a stage gave up on, with the key of an admin of the tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import orjson
import typer
from rich.console import Console
from rich.table import Table

from context_graph.cli.client import ServiceClient
from context_graph.cli.client_commands import Data, Key, Raw, Url, open_client
from context_graph.ingest.transcript_envelopes import JsonObject

_PATH = "/v1/admin/dead-letters"

Group = Annotated[str | None, typer.Option(help="Only this consumer group's.")]
Reason = Annotated[str | None, typer.Option(help="Only those with this text in their reason.")]
Letter = Annotated[str | None, typer.Argument(metavar="[ID]", help="One dead letter.")]
All = Annotated[bool, typer.Option("--all", help="All of them, or all of --group.")]

dead_letters = typer.Typer(
    name="dead-letters", help="List, show, re-drive and discard events that a stage gave up on.", no_args_is_help=True
)


@dead_letters.command("list")
def list_letters(
    *,
    group: Group = None,
    reason: Reason = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Letters shown.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on behind this letter.")] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """The oldest first."""
    asked = {"group": group, "reason": reason, "limit": str(limit), "cursor": cursor}
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in asked.items() if value is not None)
    answer = _ask(url, key, data, lambda client: client.call("GET", f"{_PATH}?{query}"))
    if raw:
        _print_raw(answer)
        return
    letters: Any = answer["dead_letters"]
    counts: Any = answer["counts"]
    table = Table("id", "group", "state", "tries", "event", "session", "waiting", "reason", box=None)
    for letter in letters:
        table.add_row(*_row(letter))
    Console(highlight=False, width=200 if not Console().is_terminal else None).print(table)
    total = ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"
    typer.echo(f"dead letters: {total}")
    page: Any = answer["page"]
    if page["next_cursor"] is not None:
        typer.echo(f"more: --cursor {page['next_cursor']}")


@dead_letters.command("show")
def show_letter(
    letter: Annotated[str, typer.Argument(metavar="ID")],
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """One of them, with its traceback."""
    shown = _ask(url, key, data, lambda client: client.call("GET", f"{_PATH}/{quote(letter, safe='')}"))
    if raw:
        _print_raw(shown)
        return
    for name, value in shown.items():
        if name != "traceback":
            typer.echo(f"{name:<14}{value if value is not None else '-'}")
    if shown.get("traceback"):
        typer.echo(f"\n{shown['traceback']}")


@dead_letters.command("redrive")
def redrive(
    letter: Letter = None,
    *,
    every: All = False,
    group: Group = None,
    reason: Reason = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
) -> None:
    """Have the event of one letter, or of many, delivered to its stage once more."""
    _one_or_many(letter, every=every, group=group, reason=reason)
    if letter is not None:
        _ask(url, key, data, lambda client: client.call("POST", f"{_PATH}/{quote(letter, safe='')}/redrive"))
        typer.echo(f"{letter} is being delivered again; `dead-letters list` shows what becomes of it")
        return
    body: JsonObject = {name: value for name, value in (("group", group), ("reason", reason)) if value is not None}
    answer = _ask(url, key, data, lambda client: client.call("POST", f"{_PATH}/redrive", body))
    typer.echo(f"{answer['count']} are being delivered again; `dead-letters list` shows what becomes of them")


@dead_letters.command("discard")
def discard(
    letter: Letter = None,
    *,
    group: Group = None,
    reason: Reason = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
) -> None:
    """Give up one letter, or those of a group, for good; the events stay in the ledger."""
    if (letter is None) == (group is None):
        raise typer.BadParameter("name one dead letter, or --group")
    if not yes:
        typer.confirm(f"Discard {letter or f'the dead letters of {group}'}?", abort=True)
    if letter is not None:
        _ask(url, key, data, lambda client: client.call("DELETE", f"{_PATH}/{quote(letter, safe='')}"))
        typer.echo(f"{letter} is discarded")
        return
    query = f"group={quote(group or '', safe='')}" + (f"&reason={quote(reason, safe='')}" if reason else "")
    answer = _ask(url, key, data, lambda client: client.call("DELETE", f"{_PATH}?{query}"))
    typer.echo(f"{answer['count']} are discarded")


def _one_or_many(letter: str | None, *, every: bool, group: str | None, reason: str | None) -> None:
    if (letter is not None) == (every or group is not None or reason is not None):
        raise typer.BadParameter("name one dead letter, or --group, --reason or --all")


def _ask(
    url: str | None, key: str | None, data: Path | None, work: Callable[[ServiceClient], Awaitable[JsonObject]]
) -> JsonObject:
    async def asked() -> JsonObject:
        async with open_client(url, key, data) as client:
            return await work(client)

    return asyncio.run(asked())


def _row(letter: dict[str, Any]) -> list[str]:
    event = letter["event_id"] or (f"{letter['lost']:,} lost" if letter["lost"] else "-")
    reason = letter["reason"].splitlines()[0] if letter["reason"] else ""
    return [
        letter["id"], letter["group"], letter["state"], str(letter["deliveries"]), event, letter["session_id"] or "-",
        str(letter["parked_behind"] or "-"), reason[:100],
    ]  # fmt: skip


def _print_raw(answer: JsonObject) -> None:
    typer.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
