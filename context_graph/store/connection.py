"""Connections to Redis, and how their failures are named.

Two kinds of client: `commands` for everything that answers at once, and `waiting` for blocking reads and
subscriptions, without a socket timeout, because redis-py 8 cuts a blocking read at its 5 s default and tries again ten
times. RESP2 is asked for so that raw FT.* answers have one shape on every server version.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias, TypeVar

import hiredis
from redis import exceptions
from redis.asyncio import Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from context_graph.errors import ConfigurationError, StoreUnavailable

RedisClient: TypeAlias = Redis
_Asked = TypeVar("_Asked")
_AT_ONCE = 64

_AWAY = (
    exceptions.ConnectionError,  # BusyLoadingError and AuthenticationError are kinds of it
    exceptions.TimeoutError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.NoScriptError,  # flushed again between loading a script and calling it
)
_AWAY_CODES = ("LOADING", "OOM", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY ", "NOREPLICAS")


class _Sending(AbstractConnection):
    """How every kind of connection packs and sends commands.

    Packed by hiredis, as redis-py's blocking connection does: its asyncio one packs in Python, which was nearly half of
    what Stage 1 spent. Sent without `asyncio.wait_for`, which redis-py uses here: on Python 3.11 that swallows a
    cancellation which comes while the write ends, and the task goes on for ever (seen: three of four cancellations in
    the middle of commands, and a worker that did not end with its configuration error).
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        return [_packed(args)]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        return [b"".join(_packed(tuple(command)) for command in commands)]

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """Connect if need be, then write within `socket_timeout`. Raises redis-py's ConnectionError or TimeoutError."""
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()  # type: ignore[no-untyped-call]
        packed = command.encode() if isinstance(command, str) else command
        try:
            async with asyncio.timeout(self.socket_timeout):
                writer = self._writer
                if writer is None:
                    raise exceptions.ConnectionError("the connection was closed before the command was written")
                writer.writelines([packed] if isinstance(packed, bytes) else packed)
                await writer.drain()
        except BaseException as error:  # half a command may be out: nothing can be sent on this connection any more
            await self.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise exceptions.TimeoutError("writing to Redis took too long") from error
            if isinstance(error, OSError):
                raise exceptions.ConnectionError(f"writing to Redis failed: {error}") from error
            raise


class _TcpConnection(_Sending, Connection):
    """redis://"""


class _TlsConnection(_Sending, SSLConnection):
    """rediss://"""


class _UnixConnection(_Sending, UnixDomainSocketConnection):
    """unix://"""


_SENDING: dict[type[AbstractConnection], type[AbstractConnection]] = {
    Connection: _TcpConnection,
    SSLConnection: _TlsConnection,
    UnixDomainSocketConnection: _UnixConnection,
}


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
        client = Redis.from_url(
            url,
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
    pool: Any = client.connection_pool
    pool.connection_class = _SENDING[pool.connection_class]  # an address decides over a class given beside it
    try:
        yield client
    finally:
        await client.aclose()


def slices(asked: Sequence[_Asked]) -> Iterator[Sequence[_Asked]]:
    """What one round trip asks about at a time, so that its answers keep an event loop for milliseconds only."""
    for start in range(0, len(asked), _AT_ONCE):
        yield asked[start : start + _AT_ONCE]
