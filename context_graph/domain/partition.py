"""Partitions: a bucket of a tenant, the unit of atomicity and of scaling.

Everything a partition owns carries its hash tag, so that one script may touch all of it and a cluster keeps it on one
node. A session lives in one bucket for ever; the number of buckets is fixed when the tenant is created.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from context_graph.domain.event import SessionId, TenantId
from context_graph.domain.quota import UNLIMITED, Quotas

# No braces, dots or colons: a tenant's name can never imitate the hash tag of another.
TENANT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Partition(NamedTuple):
    """One bucket of one tenant.

    A named tuple, as Position is: it is part of the key of every document of a query's pool.
    """

    tenant: TenantId
    bucket: int

    @property
    def tag(self) -> str:
        """The Redis hash tag, braces included: `{tenant.bucket}`."""
        return f"{{{self.tenant}.{self.bucket}}}"

    def __str__(self) -> str:
        return f"{self.tenant}.{self.bucket}"

    @classmethod
    def parse(cls, text: str) -> Partition:
        """The inverse of `str`."""
        tenant, _, bucket = text.rpartition(".")
        if TENANT_NAME.fullmatch(tenant) is None or not bucket.isdecimal():
            raise ValueError(f"{text!r} is not a partition (tenant.bucket)")
        return cls(TenantId(tenant), int(bucket))


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant, the number of its buckets, and what it may take."""

    name: TenantId
    buckets: int = 1
    quotas: Quotas = UNLIMITED

    @property
    def partitions(self) -> tuple[Partition, ...]:
        return tuple(Partition(self.name, bucket) for bucket in range(self.buckets))

    def partition_of(self, session_id: SessionId) -> Partition:
        """CRC-32 of the session id modulo the buckets: stable across processes and machines."""
        return Partition(self.name, zlib.crc32(session_id.encode()) % self.buckets)
