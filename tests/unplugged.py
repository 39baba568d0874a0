"""`python -m tests.unplugged FOLDER [refuse]`: the whole of Stage 2 where there is no network; prints JSON.

To be run in a network namespace of its own (`unshare -n`), in which it brings up the loopback device and finds nothing
else; where no namespace is allowed, `refuse` has Python refuse every address beyond the loopback device. FOLDER is
empty: no model was ever assembled or downloaded into it. Run it in a fresh clone: `git clone . X && cd X`.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from pydantic import SecretStr

import context_graph
from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.filters import NO_FILTERS
from context_graph.local.redis_server import embedded_redis
from context_graph.models.opening import open_embedder
from context_graph.settings import Settings
from context_graph.store.queries import Searcher
from enrichment.worker import run
from tests.ledger_events import append, envelope
from tests.waiting import until

_TEXTS = ("Mia Kovacs asks for a refund of order #W3470184", "A man plays guitar", "Shares fell on Monday")
_SET_FLAGS, _UP_RUNNING = 0x8914, 0x41


def loopback_up() -> None:
    """A new namespace has its loopback device down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP_RUNNING))


def outside() -> str:
    """What happens to whoever calls out: the error's name, or that somebody answered."""
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=1).close()
    except OSError as error:
        return type(error).__name__ if error.errno is None else str(error.errno)
    return "answered"


def refuse_the_outside() -> None:
    """From now on nothing of this process connects, sends or looks up a name beyond this machine."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        host = None
        if event in {"socket.connect", "socket.sendto"} and isinstance(arguments[1], tuple):
            host = str(arguments[1][0])
        elif event == "socket.getaddrinfo":
            host = str(arguments[0])
        if host is not None and host not in {"127.0.0.1", "::1", "localhost"}:
            raise OSError(errno.ENETUNREACH, f"{host}: there is no network here")

    sys.addaudithook(hook)


async def _stage_two(folder: Path) -> dict[str, Any]:
    async with embedded_redis(folder) as redis:
        settings = Settings(redis_url=SecretStr(redis.url), data_dir=folder)
        async with open_resources(settings) as resources:
            return await _enriched(resources)


async def _enriched(resources: Resources) -> dict[str, Any]:
    tenant = await resources.tenants.ensure(resources.settings.tenant, 1)
    (partition,) = tenant.partitions
    events = [envelope(number, payload={"text": text}) for number, text in enumerate(_TEXTS)]
    await append(resources.ledger, partition, events)
    stop = asyncio.Event()

    async def complete() -> bool:
        return (await resources.index.statistics(partition)).vectors == len(_TEXTS)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run(resources, stop), name="worker")
        await until(complete, seconds=60)
        stop.set()
    async with open_embedder(resources.settings.embedding, resources.settings.data_dir / "models") as embedder:
        vector = (await embedder.embed(["someone plays an instrument"]))[0].tobytes()
    searcher = Searcher(resources.derived_redis, resources.generations.live)
    near = await searcher.near(partition, vector, NO_FILTERS, 1)
    matching = await searcher.matching(partition, ["refund"], NO_FILTERS, 3)
    entities = await resources.index.entities.listed([partition], "", None, 10)
    return {"near": list(near), "matching": list(matching), "entities": entities}


def main() -> None:
    """Print what the outside said, and what Stage 2 made."""
    if sys.argv[2:] == ["refuse"]:
        refuse_the_outside()
    else:
        loopback_up()
    found = asyncio.run(_stage_two(Path(sys.argv[1])))
    said = {"outside": outside(), "code": str(Path(context_graph.__file__).parent.parent), **found}
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
