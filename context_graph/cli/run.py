"""The commands that are one process each: `api` and `worker`. `up`, a container or a service manager starts them."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
import uvloop

from context_graph.bootstrap import open_resources
from context_graph.cli.configuration import find_redis, read_settings
from context_graph.errors import ConfigurationError
from context_graph.observability.logging import configure_logging
from context_graph.settings import Settings
from context_graph.workers import Worker, load_worker

DataOption = Annotated[
    Path | None, typer.Option("--data", help="Data folder of a running `context-graph up` [default: CG_DATA_DIR]")
]


def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on [default: CG_API__HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on [default: CG_API__PORT]")] = None,
    data: DataOption = None,
) -> None:
    """Serve the HTTP API."""
    settings = read_settings(data)
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = find_redis(settings.model_copy(update={"api": settings.api.model_copy(update=given)}))
    configure_logging(settings)
    _serve(settings)


def _relax_garbage_collection() -> None:
    """Collect less often than every 700 new objects: a batch of events makes thousands, none of them in cycles."""
    gc.freeze()  # what was imported stays for good
    gc.set_threshold(50_000, 20, 100)


def _serve(settings: Settings) -> None:
    # Half a second of imports that no other command needs.
    import uvicorn  # noqa: PLC0415

    from context_graph.api.app import create_app  # noqa: PLC0415
    from context_graph.api.server import ApiServer  # noqa: PLC0415

    _relax_garbage_collection()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.api.host,
        port=settings.api.port,
        log_config=None,  # the root logger has the one format
        access_log=False,
        timeout_graceful_shutdown=int(settings.delivery.stop_seconds),
    )
    server = ApiServer(app, config)
    # uvicorn shuts down in order on a signal and then raises it again: what was asked for is no failure.
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    server.run()
    if not server.started:
        raise ConfigurationError(f"the API did not start on {settings.api.host}:{settings.api.port}; see the log above")


def _serve_embedder(settings: Settings) -> None:
    """The model as a server; it needs no Redis."""
    import uvicorn  # noqa: PLC0415

    from context_graph.api.embedder_app import create_embedder_app  # noqa: PLC0415

    configure_logging(settings)
    host, port = settings.embedding.serve_host, settings.embedding.serve_port
    server = uvicorn.Server(
        uvicorn.Config(create_embedder_app(settings), host=host, port=port, log_config=None, access_log=False)
    )
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    server.run()
    if not server.started:
        raise ConfigurationError(f"the embedder did not start on {host}:{port}; see the log above")


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def worker(
    name: Annotated[
        str, typer.Argument(help="projection, enrichment, consolidation or archive; embedder: the model as a server")
    ],
    once: Annotated[bool, typer.Option("--once", help="One pass, say what was done, and end")] = False,
    data: DataOption = None,
) -> None:
    """Run one worker until it is stopped, or one pass of it."""
    if name == "embedder":
        _serve_embedder(read_settings(data))
        return
    found = load_worker(name)
    settings = find_redis(read_settings(data))
    # A single pass is watched by a person: what it did is printed, only warnings are logged.
    configure_logging(settings.model_copy(update={"log_level": "warning"}) if once else settings)
    if once:
        typer.echo(asyncio.run(_once(settings, found)))
    else:
        _relax_garbage_collection()
        uvloop.run(_run(settings, found))


async def _once(settings: Settings, worker: Worker) -> str:
    if worker.once is None:
        raise ConfigurationError(f"the worker {worker.name!r} has no single pass; run it without --once")
    async with open_resources(settings) as resources:
        return await worker.once(resources)


async def _run(settings: Settings, worker: Worker) -> None:
    stop = asyncio.Event()
    with _signals_set(stop):
        async with open_resources(settings) as resources:
            await worker.run(resources, stop)
    if not stop.is_set():
        raise ConfigurationError(f"the worker {worker.name!r} ended although nobody stopped it")


@contextmanager
def _signals_set(stop: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT ask for a graceful stop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
