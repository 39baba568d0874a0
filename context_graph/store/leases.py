"""Leases: one leader for a piece of periodic work in a partition, for a bounded time.

A lease alone cannot stop a holder that was suspended longer than its time to live from acting late, so each holder gets
a fencing token, a number that only grows. Whoever takes a lease renews it before an effect and stops when that fails;
effects that a stale holder could still have are made harmless by their own means (deterministic event ids). The clock
is the Redis server's, never a worker's.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import cast

from context_graph.domain.partition import Partition
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import PartitionKeys


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it was taken. `fence` is larger than that of every earlier holder of the same name."""

    partition: Partition
    name: str
    holder: str
    fence: int
    ttl_ms: int

    @property
    def token(self) -> str:
        """What Redis holds while the lease is this holder's."""
        return f"{self.fence}:{self.holder}"


class Leases:
    """Takes, prolongs and gives back leases; each is one atomic script that compares the holder."""

    def __init__(self, redis: RedisClient) -> None:
        scripts = files("context_graph.store").joinpath("lua")
        self._acquire = redis.register_script(scripts.joinpath("lease_acquire.lua").read_text())
        self._renew = redis.register_script(scripts.joinpath("lease_renew.lua").read_text())
        self._release = redis.register_script(scripts.joinpath("lease_release.lua").read_text())

    async def acquire(self, partition: Partition, name: str, holder: str, ttl_ms: int) -> Lease | None:
        """The lease of that name for `ttl_ms` milliseconds, or None while anybody (this holder too) has it.

        Raises StoreUnavailable; an answer that was lost after the script ran leaves the lease taken until it expires.
        """
        keys = PartitionKeys(partition)
        with store_errors("taking a lease"):
            fence = cast(
                "int | None", await self._acquire(keys=[keys.lease(name), keys.fence(name)], args=[holder, ttl_ms])
            )
        return None if fence is None else Lease(partition, name, holder, fence, ttl_ms)

    async def renew(self, lease: Lease) -> bool:
        """Prolong by the lease's `ttl_ms` from now. False: it is lost, and its holder must stop."""
        key = PartitionKeys(lease.partition).lease(lease.name)
        with store_errors("renewing a lease"):
            return cast("int", await self._renew(keys=[key], args=[lease.token, lease.ttl_ms])) == 1

    async def release(self, lease: Lease) -> bool:
        """Give it back. False: it was no longer this holder's, and nothing changed."""
        key = PartitionKeys(lease.partition).lease(lease.name)
        with store_errors("giving a lease back"):
            return cast("int", await self._release(keys=[key], args=[lease.token])) == 1
