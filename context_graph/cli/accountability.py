"""Commands that hold agents to account: what a receipt served, what an agent knew, whether it helped.

As `client_commands.py`: each talks to a running service and prints; `--json` prints the raw answer.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from context_graph.cli.client_commands import Data, Key, Raw, Url, open_client, print_json, run_with
from context_graph.domain.event import JsonValue
from context_graph.ingest.transcript_envelopes import JsonObject

_STATES = {
    "reproduced": "the very bytes, rendered again from the ledger",
    "different": "rendered anew: the rules of rendering have changed since",
    "erased": "somebody it told about was erased",
    "incomplete": "events of it cannot be read",
}


def receipt(
    receipt_id: Annotated[str, typer.Argument(metavar="ID", help="A receipt's id, as a context answers with.")],
    *,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """What a served context held, byte for byte, checked against its receipt."""
    answer = run_with(open_client(url, key, data), lambda client: client.receipt_content(receipt_id))
    if raw:
        print_json(answer)
        return
    state = str(answer.get("state"))
    content = answer.get("content")
    if isinstance(content, str):
        print(content)
    elif content is not None:
        print_json(content)
    else:
        for item in _objects(answer.get("items")):
            print(f"[{item.get('ref')}] {item.get('text')}")
    typer.echo(f"{state}: {_STATES.get(state, '')}", err=True)


def knew(
    event_id: Annotated[str, typer.Argument(metavar="EVENT", help="What the agent did: an event's id.")],
    *,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """What an agent had been served before it did something, and what it had not."""
    answer = run_with(open_client(url, key, data), lambda client: client.known_before(event_id))
    if raw:
        print_json(answer)
        return
    console = Console(highlight=False, soft_wrap=True)
    for served in _objects(answer.get("receipts")):
        about = f"{served.get('served_at')}  asked: {served.get('query') or '(nothing)'}"
        console.print(f"[bold]{escape(str(served.get('receipt_id')))}[/bold]  {escape(about)}")
        for item in _objects(served.get("items")):
            cited = item.get("event_ids")
            ids = ", ".join(map(str, cited)) if isinstance(cited, list) else ""
            console.print(f"  [{item.get('ref')}] {item.get('section')}: {ids}", markup=False)
    if not answer.get("receipts"):
        console.print("Nothing was served to it before.")
    for name, words in (("unserved", "in the ledger then, and not served"), ("since", "recorded after it asked")):
        for event in _objects(answer.get(name)):
            console.print(f"{words}: {event.get('event_id')}  {event.get('text')}", markup=False)


def feedback(
    receipt_id: Annotated[str, typer.Argument(metavar="RECEIPT", help="The receipt of the context.")],
    *,
    useful: Annotated[list[str] | None, typer.Option(help="Id of an item that helped; repeat.")] = None,
    not_useful: Annotated[list[str] | None, typer.Option(help="Id of an item that did not; repeat.")] = None,
    note: Annotated[str | None, typer.Option(help="In words.")] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """Say which items of a served context helped; the last word on a receipt holds."""
    body: JsonObject = {"useful": list[JsonValue](useful or []), "not_useful": list[JsonValue](not_useful or [])}
    if note is not None:
        body["note"] = note
    answer = run_with(open_client(url, key, data), lambda client: client.feedback(receipt_id, body))
    if raw:
        print_json(answer)
    else:
        said = "that is what was said before" if answer.get("status") == "duplicate" else "noted"
        typer.echo(f"{said}: {answer.get('event_id')}")


def _objects(value: JsonValue) -> list[JsonObject]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
