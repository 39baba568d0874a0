"""Waiting until replicas hold what was just written: the `replicated` durability.

WAITAOF (Redis 7.2) waits until the write is on the replicas' disks and on this server's; a server without it gets WAIT,
which means the replicas' memory. WAIT goes first in any case: a replica tells what it has synced when it is asked and
once a second, and asked before its sync it would leave the writer waiting for that second.

Both speak of what their own connection has written, so they travel in one pipeline with the write. A repeated append
that finds its events there writes nothing, and there would be nothing to wait for: hence the mark, a small write behind
every append.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

from redis import exceptions

from context_graph.errors import NotReplicated
from context_graph.settings import LedgerSettings
from context_graph.store.connection import RedisClient


@dataclass(frozen=True, slots=True)
class Replication:
    """How many replicas must hold a write; for how many ms their memory is waited for, and as long again their disk."""

    replicas: int
    timeout_ms: int


def replication_of(settings: LedgerSettings) -> Replication | None:
    """What the durability asks for; None unless it is `replicated`."""
    if settings.durability != "replicated":
        return None
    return Replication(settings.replicas, settings.replication_timeout_ms)


class ReplicatedScript:
    """A script whose writes are on the replicas when its answer is given."""

    def __init__(self, redis: RedisClient, source: str, replication: Replication) -> None:
        self._redis = redis
        self._source = source
        self._sha = sha1(source.encode(), usedforsecurity=False).hexdigest()
        self._replication = replication
        self._has_waitaof = True

    async def __call__(self, keys: Sequence[str], args: Sequence[str | bytes | int], mark: str) -> Any:
        """The script's answer. `mark`: a key of the same slot to write behind it.

        Raises NotReplicated when too few replicas confirm in time (the writes stay), and redis-py's errors.
        """
        answer, reached = await self._sent(keys, args, mark)
        if isinstance(answer, exceptions.NoScriptError):
            await self._redis.script_load(self._source)
            answer, reached = await self._sent(keys, args, mark)
        if self._has_waitaof and _is_unknown(reached):
            self._has_waitaof = False
            answer, reached = await self._sent(keys, args, mark)  # the script is safe to repeat
        for said in (answer, reached):
            if isinstance(said, Exception):
                raise said
        if self._has_waitaof:
            local, remote = reached
            self._check(int(remote) if local else 0)
        else:
            self._check(int(reached))
        return answer

    async def _sent(self, keys: Sequence[str], args: Sequence[str | bytes | int], mark: str) -> tuple[Any, Any]:
        wanted, timeout = self._replication.replicas, self._replication.timeout_ms
        pipe = self._redis.pipeline(transaction=False)
        pipe.evalsha(self._sha, len(keys), *keys, *args)
        pipe.set(mark, b"1")
        pipe.execute_command("WAIT", wanted, timeout)
        if self._has_waitaof:
            pipe.execute_command("WAITAOF", 1, wanted, timeout)
        answer, *_, reached = await pipe.execute(raise_on_error=False)
        return answer, reached

    def _check(self, reached: int) -> None:
        wanted, timeout = self._replication.replicas, self._replication.timeout_ms
        if reached < wanted:
            raise NotReplicated(
                f"{reached} of {wanted} replicas confirmed in time ({timeout} ms); the events may be in the ledger: "
                "send exactly the same again, what is there comes back as a duplicate once it is replicated"
            )


def _is_unknown(said: object) -> bool:
    return isinstance(said, exceptions.ResponseError) and "unknown command" in str(said).lower()
