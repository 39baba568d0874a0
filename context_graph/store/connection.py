"""Connections to Redis, and how their failures are named.

Two kinds of client: `commands` for everything that answers at once, and `waiting` for blocking reads and
subscriptions, without a socket timeout, because redis-py 8 cuts a blocking read at its 5 s default and tries again ten
times. RESP2 is asked for so that raw FT.* answers have one shape on every server version.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import hiredis
from redis import exceptions
from redis.asyncio import Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from context_graph.errors import ConfigurationError, StoreUnavailable

RedisClient: TypeAlias = Redis

_AWAY = (
    exceptions.ConnectionError,  # BusyLoadingError and AuthenticationError are kinds of it
    exceptions.TimeoutError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
)
_AWAY_CODES = ("LOADING", "OOM", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY ", "NOREPLICAS")


class PackedConnection(Connection):
    """A connection that packs commands by hiredis, as redis-py's blocking one does.

    redis-py's asyncio connection packs in Python, which was nearly half of what Stage 1 spent.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        return [_packed(args)]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        return [b"".join(_packed(tuple(command)) for command in commands)]


def _packed(args: tuple[Any, ...]) -> bytes:
    name = args[0]
    if isinstance(name, str) and " " in name:  # "CONFIG SET" is two words on the wire
        args = (*name.split(), *args[1:])
    try:
        packed: bytes = hiredis.pack_command(args)
    except TypeError as error:
        raise exceptions.DataError(f"a command's arguments are bytes, strings and numbers: {error}") from error
    return packed


@contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """Turn redis-py's exceptions into ours, chained: away or out of memory is temporary, the rest is a defect."""
    try:
        yield
    except _AWAY as error:
        raise StoreUnavailable(f"Redis is not available for {doing}: {error}") from error
    except exceptions.ResponseError as error:
        if str(error).startswith(_AWAY_CODES):
            raise StoreUnavailable(f"Redis is not available for {doing}: {error}") from error
        raise


@asynccontextmanager
async def open_redis(url: str, *, waiting: bool = False) -> AsyncIterator[RedisClient]:
    """A client for `url`, closed at the end. `waiting=True` for blocking reads and subscriptions."""
    try:
        plain: dict[str, Any] = {"connection_class": PackedConnection} if url.startswith("redis://") else {}
        client = Redis.from_url(
            url,
            **plain,
            protocol=2,
            decode_responses=False,
            socket_timeout=None if waiting else 30,
            socket_connect_timeout=5,
            health_check_interval=15,
            # The default is ten retries with growing pauses: callers would wait a minute to learn that Redis is away.
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 3),
        )
    except ValueError as error:
        raise ConfigurationError(
            f"CG_REDIS_URL is not a Redis address (redis://:password@host:6379/0): {error}"
        ) from error
    try:
        yield client
    finally:
        await client.aclose()
