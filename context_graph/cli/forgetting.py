"""`context-graph forgetting`: the policy, what it would take, pins and recall, with the key of the tenant's admin."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any
from urllib.parse import quote

import orjson
import typer

from context_graph.cli.client import ServiceClient
from context_graph.cli.client_commands import Data, Key, Raw, Url, open_client
from context_graph.errors import PermanentError
from context_graph.ingest.transcript_envelopes import JsonObject

_POLICY = "/v1/admin/forgetting"
_RUNS = "/v1/admin/consolidation/runs"
_LOOK_AGAIN = 0.5  # seconds

forgetting = typer.Typer(
    name="forgetting",
    help="What leaves graph and index with age, never the ledger: policy, dry run, pins, recall. To erase: forget.",
    no_args_is_help=True,
)


@forgetting.command("show")
def show(url: Url = None, key: Key = None, data: Data = None, raw: Raw = False) -> None:
    """The policy in force, and events by tier."""
    _print(_ask(url, key, data, "GET", _POLICY), raw=raw)


@forgetting.command("set")
def set_policy(
    *,
    off: Annotated[bool, typer.Option("--off", help="Forget nothing from now on.")] = False,
    hot_days: Annotated[float | None, typer.Option(min=0, help="Everything younger is kept.")] = None,
    warm_days: Annotated[float | None, typer.Option(min=0, help="What is younger is warm.")] = None,
    forget_after_days: Annotated[float | None, typer.Option(min=0, help="Cold events older than that may go.")] = None,
    keep_value: Annotated[float | None, typer.Option(min=0, max=1, help="Events worth as much stay.")] = None,
    protect_hops: Annotated[int | None, typer.Option(min=0, max=10, help="Steps to a pinned or hot event.")] = None,
    max_events: Annotated[int | None, typer.Option(min=1, help="Events that a pass may forget.")] = None,
    keep_share: Annotated[float | None, typer.Option(min=0, max=1, help="Of what is forgotten, this stays.")] = None,
    keep_most: Annotated[int | None, typer.Option(min=0, help="So many events of a partition stay so.")] = None,
    keep_summaries: Annotated[int | None, typer.Option(min=0, help="So many of forgotten sessions are found.")] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """Turn forgetting on (or --off); what is not named stays as it was."""
    named: JsonObject = {
        "hot_days": hot_days, "warm_days": warm_days, "forget_after_days": forget_after_days,
        "keep_value": keep_value, "protect_hops": protect_hops, "max_events_per_run": max_events,
        "keep_share": keep_share, "keep_most": keep_most, "keep_summaries": keep_summaries,
    }  # fmt: skip
    known: Any = _ask(url, key, data, "GET", _POLICY)["policy"]
    known.pop("version")
    policy = {**known, **{name: value for name, value in named.items() if value is not None}, "enabled": not off}
    _print(_ask(url, key, data, "PUT", _POLICY, policy), raw=raw)


@forgetting.command("plan")
def plan(url: Url = None, key: Key = None, data: Data = None, raw: Raw = False) -> None:
    """What would be forgotten now, and why the rest stays. Changes nothing."""
    _print(asyncio.run(_run(url, key, data, dry_run=True)), raw=raw)


@forgetting.command("run")
def run(url: Url = None, key: Key = None, data: Data = None, raw: Raw = False) -> None:
    """Forget now what is due."""
    _print(asyncio.run(_run(url, key, data, dry_run=False)), raw=raw)


@forgetting.command("pin")
def pin(
    event_id: Annotated[str, typer.Argument(help="The event to keep.")],
    *,
    end: Annotated[bool, typer.Option("--end", help="End it: the event ages again.")] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """Keep an event, its episode and what led to it; one that is forgotten comes back."""
    path = f"/v1/events/{quote(event_id, safe='')}/pin"
    _print(_ask(url, key, data, "DELETE" if end else "POST", path), raw=raw)


@forgetting.command("recall")
def recall(
    events: Annotated[list[str] | None, typer.Argument(metavar="[EVENT]...", help="Events to bring back.")] = None,
    *,
    session: Annotated[str | None, typer.Option(help="A session to bring back whole.")] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """Bring back what is forgotten, from the ledger."""
    if (session is None) == (not events):
        raise typer.BadParameter("name either events or --session")
    if session is not None:
        _print(_ask(url, key, data, "POST", f"/v1/sessions/{quote(session, safe='')}/recall"), raw=raw)
    else:
        _print(_ask(url, key, data, "POST", "/v1/recall", {"event_ids": list(events or ())}), raw=raw)


def _ask(  # noqa: PLR0917 - where, and what
    url: str | None, key: str | None, data: Any, method: str, path: str, body: JsonObject | None = None
) -> JsonObject:
    async def asked(client: ServiceClient) -> JsonObject:
        async with client:
            return await client.call(method, path, body)

    return asyncio.run(asked(open_client(url, key, data)))


async def _run(url: str | None, key: str | None, data: Any, *, dry_run: bool, patience: float = 600.0) -> JsonObject:
    deadline = time.monotonic() + patience
    async with open_client(url, key, data) as client:
        asked = await client.call("POST", _RUNS, {"kind": "forgetting", "dry_run": dry_run})
        while asked["state"] not in ("done", "failed"):
            if time.monotonic() > deadline:
                raise PermanentError(
                    f"no worker has done it in {patience:g} s: is `context-graph worker consolidation` running? "
                    f"It stays asked for: {_RUNS}/{asked['id']}"
                )
            await asyncio.sleep(_LOOK_AGAIN)
            asked = await client.call("GET", f"{_RUNS}/{asked['id']}")
    if asked["state"] == "failed":
        raise PermanentError(f"the run failed: {asked['problem']}")
    return {"plan": asked["plan"]} if dry_run else {"outcome": asked["outcome"]}


def _print(answer: JsonObject, *, raw: bool) -> None:
    if raw:
        typer.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
        return
    for name, value in answer.items():
        if not isinstance(value, dict):
            typer.echo(f"{name}: {_said(value)}")
            continue
        typer.echo(f"{name}:")
        for inner, said in value.items():
            typer.echo(f"  {inner:<20} {_said(said)}")


def _said(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
