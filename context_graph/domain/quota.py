"""What a tenant may take: events a second, bytes a day, events kept. Nothing is limited until it is said.

Pure: the limits and the shape of the token buckets that enforce them; how processes share a bucket is the store's
business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

QuotaName = Literal["events_per_second", "bytes_per_day", "stored_events"]

_DAY_SECONDS = 86_400
_CHUNKS_A_SECOND = 10
"""How finely a rate is handed out: a process under full load asks about this often a second."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """Limits of one tenant; None: no limit.

    `events_per_second` is the lasting rate, `burst_events` what may come at once (absent: two seconds' worth);
    `bytes_per_day` counts events as they are stored (canonical JSON) and refills evenly over the day;
    `stored_events` counts what the ledger holds, archived events included.
    """

    events_per_second: int | None = None
    burst_events: int | None = None
    bytes_per_day: int | None = None
    stored_events: int | None = None

    @property
    def limited(self) -> bool:
        """Whether anything at all is limited."""
        return any(limit is not None for limit in (self.events_per_second, self.bytes_per_day, self.stored_events))

    @property
    def rates(self) -> tuple[Rate, ...]:
        """The token buckets of these limits."""
        rates = []
        if self.events_per_second is not None:
            burst = self.burst_events or 2 * self.events_per_second
            chunk = max(1, self.events_per_second // _CHUNKS_A_SECOND)
            rates.append(Rate("events_per_second", burst, float(self.events_per_second), chunk))
        if self.bytes_per_day is not None:
            refill = self.bytes_per_day / _DAY_SECONDS
            chunk = min(64 * 1024, max(1, self.bytes_per_day // 1000))
            rates.append(Rate("bytes_per_day", self.bytes_per_day, refill, chunk))
        return tuple(rates)


UNLIMITED = Quotas()


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: `capacity` tokens at most, `refill` of them a second, handed out in chunks of `chunk`."""

    name: QuotaName
    capacity: int
    refill: float
    chunk: int
