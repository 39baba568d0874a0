"""`context-graph facts`: what holds of a person or a thing, and who said so."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer
from rich.console import Console

from context_graph.cli.client_commands import Data, Key, Raw, Url, open_client, print_json, run_with


def facts(
    fact_id: Annotated[str | None, typer.Argument(metavar="ID", help="One fact, with its history.")] = None,
    *,
    user: Annotated[str | None, typer.Option(help="Of this person.")] = None,
    subject: Annotated[str | None, typer.Option(help="About this; `user` for the person.")] = None,
    predicate: Annotated[str | None, typer.Option(help="With this predicate.")] = None,
    kind: Annotated[str | None, typer.Option(help="fact or preference.")] = None,
    history: Annotated[bool, typer.Option("--history", help="Also those that hold no longer.")] = False,
    as_of: Annotated[
        str | None, typer.Option(help="A position or a time of recording (RFC 3339): what had been learned by then.")
    ] = None,
    held_at: Annotated[
        str | None, typer.Option(help="An RFC 3339 time: what held then, whenever that was learned.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Facts at most.")] = 50,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    raw: Raw = False,
) -> None:
    """Facts and preferences that a language model noted, with the words of the events that hold them."""
    asked: dict[str, str | int] = {"limit": limit} if fact_id is None else {}
    named = {"user_id": user, "subject": subject, "predicate": predicate, "kind": kind} if fact_id is None else {}
    named |= {"as_of": as_of, "held_at": held_at}
    asked |= {name: value for name, value in named.items() if value is not None}
    if history and fact_id is None:
        asked["history"] = "true"
    path = "/v1/facts" if fact_id is None else f"/v1/facts/{quote(fact_id, safe='')}"
    answer: Any = run_with(open_client(url, key, data), lambda client: client.call("GET", f"{path}?{urlencode(asked)}"))
    if raw:
        print_json(answer)
        return
    console = Console(highlight=False, soft_wrap=True)
    for fact in answer["history" if fact_id is not None else "facts"]:
        _show(console, fact)
    if fact_id is None and not answer["facts"]:
        console.print(_none(as_of, held_at, narrowed=any((user, subject, predicate, kind))), markup=False)


def reread(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The session to read again.")],
    *,
    url: Url = None,
    key: Key = None,
    data: Data = None,
) -> None:
    """Have the language model asked again about what it was given up on in a session: its facts and its summary."""
    path = f"/v1/sessions/{quote(session, safe='')}/reread"
    print_json(run_with(open_client(url, key, data), lambda client: client.call("POST", path)))


def _none(as_of: str | None, held_at: str | None, *, narrowed: bool) -> str:
    """Why there may be none, and what to ask instead."""
    if as_of is not None:
        instead = "" if held_at is not None else " What held then, whenever it was learned: --held-at."
        return f"None had been learned as of {as_of}.{instead}"
    if held_at is not None:
        return f"None is known to have held at {held_at}. All that is known: --history."
    if narrowed:
        return "None of these holds. Those that hold no longer as well: --history."
    return "None. Facts are noted when CG_LLM__MODEL names a language model."


def _show(console: Console, fact: Any) -> None:
    until = f" to {fact['valid_to'][:10]}, {fact['reason']}" if fact["valid_to"] else ""
    about = f" (of {fact['user_id']})" if fact["user_id"] else ""
    console.print(f"{fact['text']}{about}  from {fact['valid_from'][:10]}{until}", markup=False)
    evidence = fact["evidence"]
    console.print(f'  {fact["id"]}: "{evidence["quote"]}" {evidence["event_id"]}', markup=False, style="dim")
    for saying in fact["also"]:
        evidence = saying["evidence"]
        console.print(f'  {saying["id"]}: "{evidence["quote"]}" {evidence["event_id"]}', markup=False, style="dim")
