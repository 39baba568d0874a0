"""`context-graph tenants` and `context-graph keys`: the registry, for whoever runs the service.

They work on Redis itself, so they need no key, and are the only way to the first operator's key: who reaches Redis can
do everything anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from context_graph.bootstrap import Resources, open_resources
from context_graph.cli.configuration import find_redis, read_settings
from context_graph.cli.run import DataOption
from context_graph.domain.event import TenantId, iso
from context_graph.domain.partition import Tenant
from context_graph.domain.quota import Quotas
from context_graph.errors import AlreadyExists, ConfigurationError, UnknownThing
from context_graph.store.access import SCOPES, KeyInfo, MadeKey

Answer = TypeVar("Answer")
TenantOption = Annotated[str | None, typer.Option("--tenant", help="Whose [default: CG_TENANT]")]

tenants = typer.Typer(name="tenants", help="Make and list tenants.", no_args_is_help=True)
keys = typer.Typer(name="keys", help="Make, list, revoke and rotate service keys.", no_args_is_help=True)


@tenants.command("create")
def create_tenant(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, - and _.")],
    *,
    buckets: Annotated[int, typer.Option(min=1, max=1024, help="Partitions, fixed from then on.")] = 1,
    events_per_second: Annotated[int | None, typer.Option(min=1, help="Lasting rate.")] = None,
    burst_events: Annotated[
        int | None, typer.Option(min=1, help="Events at once [default: two seconds' worth]")
    ] = None,
    bytes_per_day: Annotated[int | None, typer.Option(min=1, help="Bytes of events.")] = None,
    stored_events: Annotated[int | None, typer.Option(min=1, help="Events kept.")] = None,
    data: DataOption = None,
) -> None:
    """Make a tenant. Without quotas it is unlimited."""
    quotas = Quotas(events_per_second, burst_events, bytes_per_day, stored_events)

    async def make(resources: Resources) -> None:
        if not await resources.tenants.create(name, buckets, quotas):
            raise AlreadyExists(f"there is a tenant {name!r} already; nothing was changed")

    _with_resources(data, make)
    typer.echo(f"tenant {name} with {buckets} bucket{'s' if buckets > 1 else ''}; now make it a key: keys create")


@tenants.command("list")
def list_tenants(data: DataOption = None) -> None:
    """Every tenant with its buckets and quotas."""
    table = Table("tenant", "buckets", "events/s", "burst", "bytes/day", "stored events", box=None)
    for tenant in _with_resources(data, lambda resources: resources.tenants.all()):
        table.add_row(*_tenant_row(tenant))
    _print(table)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who uses it.")],
    *,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="ingest, read, admin, tasks, operator; may be repeated [default: the first four]"),
    ] = None,
    expires_at: Annotated[str | None, typer.Option(help="RFC 3339 time, as 2027-01-01T00:00:00Z.")] = None,
    tenant: TenantOption = None,
    data: DataOption = None,
) -> None:
    """Make a key and print it, this once."""
    end = None if expires_at is None else _moment(expires_at)

    async def make(resources: Resources) -> MadeKey:
        owner = TenantId(tenant or resources.settings.tenant)
        if await resources.tenants.get(owner) is None:
            raise UnknownThing("tenant", owner)
        return await resources.api_keys.make(owner, name=name, scopes=scope or SCOPES, expires_at=end)

    _show(_with_resources(data, make))


@keys.command("list")
def list_keys(tenant: TenantOption = None, data: DataOption = None) -> None:
    """Keys of all tenants or of one: ids, never the keys."""
    table = Table("id", "tenant", "name", "scopes", "created", "expires", "last used", box=None)
    wanted = None if tenant is None else TenantId(tenant)
    for info in _with_resources(data, lambda resources: resources.api_keys.listed(wanted)):
        table.add_row(*_key_row(info))
    _print(table)


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(metavar="ID")], data: DataOption = None) -> None:
    """End a key: every API process refuses it within a second."""
    info = _with_resources(data, lambda resources: resources.api_keys.revoke(key_id))
    typer.echo(f"revoked {info.id} ({info.name} of {info.tenant})")


@keys.command("rotate")
def rotate_key(
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    grace: Annotated[int, typer.Option(min=0, help="Seconds that the old key works on.")] = 0,
    data: DataOption = None,
) -> None:
    """Replace a key by a new one with the same name, scopes and end, and print it, this once."""
    _show(_with_resources(data, lambda resources: resources.api_keys.rotate(key_id, grace_ms=grace * 1000)))


def _with_resources(data: Path | None, work: Callable[[Resources], Awaitable[Answer]]) -> Answer:
    async def connected() -> Answer:
        async with open_resources(find_redis(read_settings(data))) as resources:
            return await work(resources)

    return asyncio.run(connected())


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"--expires-at {text!r} is not a time: write it as 2027-01-01T00:00:00Z") from error
    if moment.tzinfo is None:
        raise ConfigurationError(f"--expires-at {text!r} needs an offset: write it as 2027-01-01T00:00:00Z")
    return int(moment.timestamp() * 1000)


def _show(made: MadeKey) -> None:
    """The key alone on standard output, so that it can be piped; what it is on standard error."""
    info = made.info
    typer.echo(f"key {info.id} ({info.name} of {info.tenant}: {', '.join(info.scopes)}), shown only now:", err=True)
    typer.echo(made.key)


def _tenant_row(tenant: Tenant) -> list[str]:
    quotas = tenant.quotas
    limits = (quotas.events_per_second, quotas.burst_events, quotas.bytes_per_day, quotas.stored_events)
    return [tenant.name, str(tenant.buckets), *("-" if limit is None else f"{limit:,}" for limit in limits)]


def _key_row(info: KeyInfo) -> list[str]:
    times = ("-" if ms is None else iso(ms)[:16] for ms in (info.created_at, info.expires_at, info.last_used_at))
    return [info.id, info.tenant, info.name, " ".join(info.scopes), *times]


def _print(table: Table) -> None:
    Console(highlight=False, width=200 if not Console().is_terminal else None).print(table)
