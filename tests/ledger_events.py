"""Events put straight into the ledger, for tests below HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from context_graph.domain.event import Envelope
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.ingest.validation import Validator
from context_graph.settings import LedgerSettings
from context_graph.store import codec
from context_graph.store.ledger import Appendable, Ledger
from context_graph.store.tenants import Tenants
from tests.events import event

_NOW = 1_800_000_000_000  # January 2027: after every event of the tests


def envelope(number: int = 0, **fields: Any) -> Envelope:
    """A valid envelope, made of `tests.events.event` as the API would make it."""
    return parsed([event(number, **fields)])[0]


def parsed(raws: Iterable[dict[str, Any]]) -> list[Envelope]:
    """What callers post, as envelopes."""
    validator = Validator(LedgerSettings(), now_ms=lambda: _NOW)
    return [validator.envelope(raw) for raw in raws]


def appendable(known: Envelope) -> Appendable:
    """An envelope as the ledger takes it."""
    return Appendable(known.event_id, known.session_id, codec.encode(known))


async def append(ledger: Ledger, partition: Partition, envelopes: Iterable[Envelope]) -> list[Position]:
    """Append; every event must be new. Returns their positions."""
    answers = await ledger.append(partition, [appendable(known) for known in envelopes])
    assert {answer.status for answer in answers} <= {"created"}, answers
    return [answer.position for answer in answers]


async def only_partition(tenants: Tenants, name: str = "acme") -> Partition:
    """The one partition of a tenant, made now if it is new."""
    tenant: Tenant = await tenants.ensure(name, 1)
    [partition] = tenant.partitions
    return partition


def ndjson(text: str) -> list[dict[str, Any]]:
    """Lines of JSON objects."""
    return [orjson.loads(line) for line in text.splitlines() if line.strip()]
