"""A server's own files after an erasure: append-only file and snapshot, written anew without what was deleted.

Until then they hold what Redis held: of the ledger ciphertext and wrapped keys, of graph and index words. Where a
server does not let itself be told (a managed one), the certificate says so and the operator's own schedule decides.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from context_graph.store.connection import RedisClient, store_errors

_PAUSE = 0.05  # seconds between two looks at a rewrite that runs


async def rewrite_files(client: RedisClient, seconds: float) -> str:
    """Write the append-only file, and the snapshot where one is kept, anew; what came of it, in words.

    Waits up to `seconds`. Raises StoreUnavailable.
    """
    deadline = time.monotonic() + seconds
    said: list[str] = []
    with store_errors("writing the server's files anew"):
        info = await _persistence(client)
        try:
            if info.get("aof_enabled"):
                said.append(f"append-only file {await _rewrite(client, deadline)}")
            if await _keeps_snapshots(client, info):
                said.append(f"snapshot {await _snapshot(client, deadline)}")
        except NoPermissionError as error:
            said.append(f"not permitted here: {error}")
        except ResponseError as error:
            if "unknown command" not in str(error).lower():
                raise
            said.append(f"not possible here: {error}")
    return "; ".join(said) or "this server keeps no files"


async def _rewrite(client: RedisClient, deadline: float) -> str:
    """One that began before may have copied what was deleted since, so it is waited for and another is made."""
    if not await _until(client, deadline, lambda info: not _rewriting(info)):
        return "not written anew: another rewrite did not end in time"
    await client.bgrewriteaof()
    # BGREWRITEAOF answers before the child runs; while a snapshot runs it is only scheduled.
    if not await _until(client, deadline, lambda info: not _rewriting(info)):
        return "being written anew"
    info = await _persistence(client)
    return "written anew" if info.get("aof_last_bgrewrite_status") == "ok" else "not written anew: the rewrite failed"


async def _snapshot(client: RedisClient, deadline: float) -> str:
    if not await _until(client, deadline, lambda info: not info.get("rdb_bgsave_in_progress")):
        return "not written anew: another one did not end in time"
    await client.bgsave()
    if not await _until(client, deadline, lambda info: not info.get("rdb_bgsave_in_progress")):
        return "being written anew"
    info = await _persistence(client)
    return "written anew" if info.get("rdb_last_bgsave_status") == "ok" else "not written anew: it failed"


async def _keeps_snapshots(client: RedisClient, info: dict[str, Any]) -> bool:
    """Whether `save` is set, or a snapshot was made since the server started."""
    if info.get("rdb_saves", 0):
        return True
    answer: Any = await client.config_get("save")
    return any(bool(value) for value in answer.values())


def _rewriting(info: dict[str, Any]) -> bool:
    return bool(info.get("aof_rewrite_in_progress") or info.get("aof_rewrite_scheduled"))


async def _until(client: RedisClient, deadline: float, condition: Any) -> bool:
    while not condition(await _persistence(client)):
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_PAUSE)
    return True


async def _persistence(client: RedisClient) -> dict[str, Any]:
    info: dict[str, Any] = await client.info("persistence")
    return info
