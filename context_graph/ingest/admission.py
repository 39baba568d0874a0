"""Admission: whether events may be appended now, decided before anything is written.

Two questions, in this order: can the ledger take more (memory, stages far behind), and may this tenant (its quotas).
What is asked of Redis for it is remembered or drawn in advance for `_LEASE_SECONDS`, so that a busy process pays for it
some ten times a second and not with every event. Tokens are drawn from buckets that all processes share, so their sum
holds whatever the number of processes; what was drawn and not used within that time is given back with the next draw.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from context_graph.domain.event import TenantId
from context_graph.domain.partition import Tenant
from context_graph.domain.quota import QuotaName, Quotas, Rate
from context_graph.errors import QuotaExceeded
from context_graph.ingest.pressure import Pressure
from context_graph.store.quotas import Draw, QuotaStore

_LEASE_SECONDS = 1.0
_STORED_RETRY_SECONDS = 60  # a full ledger is not emptied within seconds
_REMEMBER_AT_MOST = 10_000  # tenants


@dataclass(slots=True)
class _Lease:
    """What a process may use of one tenant's quotas without asking: tokens by bucket, events before it is full."""

    quotas: Quotas
    until: float = 0.0
    tokens: dict[QuotaName, int] = field(default_factory=dict)
    room: int = 0
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def covers(self, need: dict[QuotaName, int], now: float) -> bool:
        return now < self.until and all(self.tokens.get(rate.name, 0) >= need[rate.name] for rate in self.quotas.rates)

    def use(self, need: dict[QuotaName, int]) -> None:
        for rate in self.quotas.rates:
            self.tokens[rate.name] -= need[rate.name]
        self.room -= need["events_per_second"]


class Admission:
    """Lets events in, or says why not and when to come back."""

    def __init__(self, store: QuotaStore, pressure: Pressure, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._pressure = pressure
        self._clock = clock
        self._leases: dict[TenantId, _Lease] = {}

    async def admit(self, tenant: Tenant, events: int, size: int) -> None:
        """Return when `events` of together `size` bytes may be appended: all of them.

        Raises Overloaded or QuotaExceeded: then none of them may, and nothing was written.
        """
        await self._pressure.check(tenant)
        if not tenant.quotas.limited or events == 0:
            return
        lease = self._lease(tenant)
        need: dict[QuotaName, int] = {"events_per_second": events, "bytes_per_day": size}
        if not self._used(lease, tenant, need):
            async with lease.drawing:
                if not self._used(lease, tenant, need):  # another request's draw may have brought enough
                    await self._draw(lease, tenant, need)
                    lease.use(need)

    def _lease(self, tenant: Tenant) -> _Lease:
        lease = self._leases.get(tenant.name)
        if lease is None or lease.quotas != tenant.quotas:  # new quotas hold from the next event on
            if len(self._leases) >= _REMEMBER_AT_MOST:
                self._leases.clear()
            lease = self._leases[tenant.name] = _Lease(tenant.quotas)
        return lease

    def _used(self, lease: _Lease, tenant: Tenant, need: dict[QuotaName, int]) -> bool:
        if not lease.covers(need, self._clock()):
            return False
        self._check_room(lease, tenant, need)
        lease.use(need)
        return True

    async def _draw(self, lease: _Lease, tenant: Tenant, need: dict[QuotaName, int]) -> None:
        began = self._clock()
        if tenant.quotas.stored_events is not None:
            lease.room = tenant.quotas.stored_events - await self._store.stored(tenant)
            self._check_room(lease, tenant, need)
        draws = []
        for rate in tenant.quotas.rates:
            back = lease.tokens.pop(rate.name, 0)
            draws.append(Draw(rate, need[rate.name], max(need[rate.name], rate.chunk), back))
        if draws:
            drawn = await self._store.draw(tenant.name, draws)
            if drawn.short is not None:
                raise _over(drawn.short, need[drawn.short.name], drawn.wait_ms)
            lease.tokens = {draw.rate.name: taken for draw, taken in zip(draws, drawn.taken, strict=True)}
        lease.until = began + _LEASE_SECONDS

    @staticmethod
    def _check_room(lease: _Lease, tenant: Tenant, need: dict[QuotaName, int]) -> None:
        limit, events = tenant.quotas.stored_events, need["events_per_second"]
        if limit is not None and events > lease.room:
            reason = f"{max(0, lease.room):,} of {limit:,} stored events are left, this needs {events:,}"
            raise QuotaExceeded("stored_events", reason, _STORED_RETRY_SECONDS)


def _over(rate: Rate, need: int, wait_ms: int | None) -> QuotaExceeded:
    unit = "events" if rate.name == "events_per_second" else "bytes"
    if wait_ms is None:
        reason = f"{need:,} {unit} at once are more than the quota {rate.name} ever lets through: {rate.capacity:,}"
        return QuotaExceeded(rate.name, f"{reason}; send them in smaller batches, waiting does not help", 0)
    reason = f"the quota {rate.name} is used up: {rate.refill:,.0f} {unit} a second, {rate.capacity:,} at once"
    return QuotaExceeded(rate.name, reason, max(1, math.ceil(wait_ms / 1000)))
