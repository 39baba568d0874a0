"""`context-graph up`: everything on this machine by one command, and everything gone by one signal.

The order: hold the data folder, start Redis, make the service key, start workers and API, wait until the API says it
is ready, ingest the sample, show working memory, stay. Each step is undone by leaving its context, in reverse order, so
a signal may come at any moment: it cancels the work, and what was started is stopped. A second signal ends the
children at once.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from base64 import b64encode
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import httpx2
import typer
from pydantic import SecretStr

from context_graph import __version__
from context_graph.bootstrap import Resources, open_resources
from context_graph.cli.client import ServiceClient
from context_graph.cli.configuration import embeddable_durability, read_settings
from context_graph.cli.up_output import Output
from context_graph.cli.up_sample import ingest_sample, show_memory, summarise
from context_graph.errors import ConfigurationError, TemporaryError
from context_graph.local.data_folder import DataFolder, read_text, write_secret
from context_graph.local.process import Program, last_lines
from context_graph.local.redis_server import STOP_SECONDS, free_port, prepared_redis, until_answering
from context_graph.local.supervisor import Supervisor
from context_graph.observability.logging import configure_logging
from context_graph.settings import Settings
from context_graph.store.readiness import read_redis_facts, wait_until_ready
from context_graph.workers import worker_names

_READY_SECONDS = 180.0  # the API loads its model first, on a slow disk too
_LOST_CAUSE = 2  # ends of one child during the start after which waiting is pointless
_SCALED = ("projection", "enrichment")  # workers that `--workers` multiplies


@dataclass(frozen=True, slots=True)
class _Options:
    settings: Settings
    folder: DataFolder
    sample: bool
    workers: int

    @property
    def base_url(self) -> str:
        host = self.settings.api.host
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
        return f"http://{shown}:{self.settings.api.port}"


def up(
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the API; 0: a free one")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Data folder [default: CG_DATA_DIR]")] = None,
    sample: Annotated[bool, typer.Option(help="Ingest the sample and show working memory")] = True,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Projection and enrichment workers, each")] = 1,
) -> None:
    """Start everything here: Redis, API, workers; ingest the sample, show working memory, stay until Ctrl-C."""
    settings = read_settings(data)
    if port is not None:
        settings = settings.model_copy(update={"api": settings.api.model_copy(update={"port": port})})
    # This process speaks to a person; what its children log is in their files.
    configure_logging(settings.model_copy(update={"log_level": "warning", "log_format": "console"}))
    options = _Options(settings, DataFolder.at(settings.data_dir), sample, workers)
    asyncio.run(_until_stopped(options, Output()))


async def _until_stopped(options: _Options, output: Output) -> None:
    """Run until a signal; everything that was started is stopped when this returns or raises."""
    work = asyncio.create_task(_run(options, output), name="up")
    heard: list[int] = []

    def stop(number: int) -> None:
        output.line("Stopping at once ..." if heard else "Stopping: the API, then the workers, then Redis ...")
        heard.append(number)
        work.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        await work
    except asyncio.CancelledError:
        if not heard:
            raise
        output.line(f"All is stopped. The data stays in {options.folder.root}")


async def _run(options: _Options, output: Output) -> None:
    output.line(f"Context Graph {__version__}, data in {options.folder.root}", "bold")
    with options.folder.held():
        options = _with_free_port(options)
        options.folder.set_aside_long_logs()
        async with AsyncExitStack() as stack:
            stack.callback(options.folder.api_url.unlink, missing_ok=True)
            embedded = None
            if options.settings.redis_url is None:
                durability = embeddable_durability(options.settings)
                embedded = await stack.enter_async_context(prepared_redis(options.folder, durability=durability))
            supervisor = await stack.enter_async_context(Supervisor(output.note))
            with output.step("Redis") as show:
                if embedded is not None:
                    (child,) = supervisor.keep([embedded.program], stop_seconds=STOP_SECONDS)
                    await until_answering(embedded, child)
                    options = _with_redis(options, embedded.url)
                show(await _describe_redis(options.settings))
            options = _with_master_key(options)  # a new one only when nothing sealed waits to be restored
            key, new_key = await _tenant_and_key(options, output)
            _start_service(options, supervisor)
            with output.step("API and workers") as show:
                await _until_ready(options, supervisor)
                show(f"{options.base_url} with workers {', '.join(_workers(options.settings))}")
            if options.sample:
                header = options.settings.api.key_header
                async with ServiceClient(options.base_url, key, key_header=header) as client:
                    await ingest_sample(client, output)
                    await summarise(options.settings, client, output)
                    await show_memory(client, output)
            output.ready(options.base_url, options.folder, key, options.settings.api.key_header, new_key=new_key)
            await asyncio.Event().wait()  # until a signal cancels this


def _with_redis(options: _Options, url: str) -> _Options:
    return replace(options, settings=options.settings.model_copy(update={"redis_url": SecretStr(url)}))


def _with_free_port(options: _Options) -> _Options:
    """The options with a port that can be listened on now. Raises ConfigurationError when the port is taken."""
    api = options.settings.api
    if api.port == 0:
        changed = api.model_copy(update={"port": free_port()})
        return replace(options, settings=options.settings.model_copy(update={"api": changed}))
    try:
        family = socket.AF_INET6 if ":" in api.host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a closed one may linger
            probe.bind((api.host, api.port))
    except OSError as error:
        raise ConfigurationError(
            f"the API cannot listen on {api.host}:{api.port} ({error.strerror or error}): "
            "stop what does, or choose another port with --port"
        ) from error
    return options


def _with_master_key(options: _Options) -> _Options:
    """The options with a master key: the one that is set, else the folder's own, made at the first start."""
    vault = options.settings.vault
    if vault.master_key is not None:
        return options
    kept = read_text(options.folder.master_key)
    if kept is None:
        kept = b64encode(secrets.token_bytes(32)).decode()
        write_secret(options.folder.master_key, kept + "\n")
    changed = vault.model_copy(update={"master_key": SecretStr(kept)})
    return replace(options, settings=options.settings.model_copy(update={"vault": changed}))


async def _describe_redis(settings: Settings) -> str:
    url = settings.redis_url.get_secret_value() if settings.redis_url is not None else ""
    await wait_until_ready(url, 10.0)
    async with open_resources(settings) as resources:
        facts = await read_redis_facts(resources.ledger_redis)
        partitions = [partition for tenant in await resources.tenants.all() for partition in tenant.partitions]
        watch = resources.archive_watch
        behind = () if watch is None else await watch.problems(partitions)
        if behind:  # nothing is started on it: a tenant and a key made now would be in the restore's way, too
            raise ConfigurationError("\n".join(behind))
        events = await resources.ledger.length(*partitions)
    known = f"found {events:,} events of earlier runs" if events else "empty"
    return f"{facts.version} with search {facts.search_version or 'MISSING'}, {known}"


async def _tenant_and_key(options: _Options, output: Output) -> tuple[str, bool]:
    """The service key, and whether it is new: the kept one if this Redis knows it, else one made now and kept."""
    async with open_resources(options.settings) as resources:
        kept = read_text(options.folder.api_key)
        if kept is not None and await _is_valid(resources, kept):
            return kept, False
        tenant = await resources.tenants.ensure(options.settings.tenant, options.settings.buckets)
        key = await resources.api_keys.create(tenant.name, name="up")
    write_secret(options.folder.api_key, key + "\n")
    output.line(f"   Made a service key for tenant {tenant.name}, kept in {options.folder.api_key}")
    return key, True


async def _is_valid(resources: Resources, key: str) -> bool:
    credential = await resources.api_keys.verify(key)
    return credential is not None and credential.tenant == resources.settings.tenant


def _start_service(options: _Options, supervisor: Supervisor) -> None:
    """Workers, then the API, as children that read the same settings from their environment."""
    settings = options.settings
    environment = dict(os.environ)
    environment |= {
        "CG_REDIS_URL": settings.redis_url.get_secret_value() if settings.redis_url is not None else "",
        "CG_DATA_DIR": str(options.folder.root),
        "CG_API__PORT": str(settings.api.port),
        "CG_VAULT__MASTER_KEY": settings.vault.master_key.get_secret_value() if settings.vault.master_key else "",
    }

    def program(name: str, *arguments: str) -> Program:
        argv = (sys.executable, "-m", "context_graph.cli.main", *arguments)
        return Program(name, argv, options.folder.log_of(name), environment)

    stop_seconds = settings.delivery.stop_seconds + 5
    programs = [
        program(name if copies == 1 else f"{name}-{number}", "worker", name)
        for name in _workers(settings)
        for copies in [options.workers if name in _SCALED else 1]
        for number in range(1, copies + 1)
    ]
    supervisor.keep(programs, stop_seconds=stop_seconds)
    supervisor.keep([program("api", "api")], stop_seconds=stop_seconds)
    options.folder.api_url.write_text(options.base_url + "\n")


def _workers(settings: Settings) -> list[str]:
    """The workers to start: that of the archive only where there is one."""
    return [name for name in worker_names() if name != "archive" or settings.archive.url is not None]


async def _until_ready(options: _Options, supervisor: Supervisor) -> None:
    """Return when the API answers that it is ready. Raises when a child keeps ending or after `_READY_SECONDS`."""
    problems = ["it does not answer"]
    deadline = asyncio.get_running_loop().time() + _READY_SECONDS
    async with httpx2.AsyncClient(timeout=10.0, trust_env=False) as http:
        while asyncio.get_running_loop().time() < deadline:
            try:
                answer = await http.get(f"{options.base_url}/health/ready")
            except httpx2.TransportError as error:
                problems = [f"it does not answer ({error})"]
            else:
                if answer.status_code == httpx2.codes.OK:
                    return
                problems = [str(problem) for problem in answer.json().get("problems", [])]
            for name, ends in supervisor.ends.items():
                if ends >= _LOST_CAUSE:
                    log = options.folder.log_of(name)
                    raise ConfigurationError(f"{name} keeps ending; the end of its log {log}:\n{last_lines(log)}")
            await asyncio.sleep(0.1)
    raise TemporaryError(f"the API is not ready: {'; '.join(problems)}. The logs are in {options.folder.logs}")
