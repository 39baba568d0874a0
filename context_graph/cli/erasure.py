"""`context-graph forget`: erase a person or a session, and print the certificate."""

from __future__ import annotations

import asyncio
from typing import Annotated

import orjson
import typer

from context_graph.cli.client import ServiceClient
from context_graph.cli.client_commands import Data, Key, Raw, Url, open_client
from context_graph.domain.event import JsonValue
from context_graph.errors import PermanentError
from context_graph.ingest.transcript_envelopes import JsonObject


def forget(
    *,
    user: Annotated[str | None, typer.Option(help="The person to forget: the user_id of the events.")] = None,
    session: Annotated[str | None, typer.Option(help="The session to forget.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: it cannot be undone.")] = False,
    wait: Annotated[int, typer.Option(min=0, max=120, help="Seconds to wait for the certificate.")] = 30,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """Erase what was ever said about a person, or in a session, for good."""
    if (user is None) == (session is None):
        raise typer.BadParameter("name either --user or --session")
    kind, identifier = ("users", user) if user is not None else ("sessions", session or "")
    if not yes:
        typer.confirm(f"Erase {kind[:-1]} {identifier!r} for good?", abort=True)
    certificate = asyncio.run(_forget(open_client(url, key, data), kind, str(identifier), wait))
    if raw:
        typer.echo(orjson.dumps(certificate, option=orjson.OPT_INDENT_2).decode())
    else:
        _print(certificate)
    if certificate.get("state") != "done":
        raise PermanentError(
            f"the keys are destroyed, what was derived is still being removed: look at /v1/erasures/{certificate['id']}"
        )


async def _forget(client: ServiceClient, kind: str, identifier: str, wait: int) -> JsonObject:
    async with client:
        return await client.forget(kind, identifier, wait * 1000)


def _print(certificate: JsonObject) -> None:
    typer.echo(f"{certificate['id']}: {certificate['state']}, {certificate.get('finished_at') or 'not finished'}")
    destroyed = certificate["keys_destroyed"]
    typer.echo(f"  keys destroyed  {len(destroyed) if isinstance(destroyed, list) else 0}")
    for name in ("scanned", "removed", "files"):
        typer.echo(f"  {name:<14}  {_listed(certificate[name])}")
    if certificate["left_in_clear"]:
        typer.echo(
            f"  left in clear   {certificate['left_in_clear']} events from before sealing was on: hidden, not gone"
        )


def _listed(value: JsonValue) -> str:
    if not isinstance(value, dict) or not value:
        return "nothing"
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in value.items())
