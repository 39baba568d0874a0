"""Ingest: validated events appended to the partition of their session, with an outcome for each.

Good events of a batch are kept whatever the others are. An answer is given only when the ledger has answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from context_graph.domain.event import Envelope, EventId
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.errors import ContextGraphError, Erased, EventConflict, FieldProblem, InvalidInput, StoreUnavailable
from context_graph.ingest.admission import Admission
from context_graph.ingest.gathering import GatheredAppends
from context_graph.ingest.schemas import Schemas
from context_graph.ingest.validation import Validator
from context_graph.store import codec
from context_graph.store.ledger import Appendable, Appended, Ledger

ItemStatus = Literal["created", "duplicate", "conflict", "invalid", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one event of a batch. `error` is set for conflict, invalid and failed.

    `warnings`: where the event differs from its schema, in lenient mode.
    """

    index: int
    status: ItemStatus
    event_id: str | None = None
    position: Position | None = None
    error: ContextGraphError | None = None
    warnings: tuple[FieldProblem, ...] = ()


class Ingest:
    """The use case behind the single and the batch endpoint."""

    def __init__(self, ledger: Ledger, validator: Validator, admission: Admission, schemas: Schemas) -> None:
        self._ledger = ledger
        self._singles = GatheredAppends(ledger)
        self._validator = validator
        self._admission = admission
        self._schemas = schemas
        self._max_events = validator.settings.max_batch_events

    async def one(self, tenant: Tenant, raw: object) -> Outcome:
        """Append one event. Raises InvalidInput, EventConflict, Overloaded, QuotaExceeded: then nothing was written.

        Raises StoreUnavailable when the ledger did not confirm it; sending it again is safe.
        """
        envelope = self._validator.envelope(raw)
        warnings = (await self._schemas.rules(tenant.name)).check(envelope)
        partition = tenant.partition_of(envelope.session_id)
        event = _appendable(envelope)
        await self._admission.admit(tenant, 1, len(event.body))
        appended = await self._singles.append(partition, event)
        if appended.status == "conflict":
            raise EventConflict(envelope.event_id, str(appended.position))
        if appended.status == "erased":
            raise _erased(appended)
        return Outcome(0, appended.status, envelope.event_id, appended.position, None, warnings)

    async def batch(self, tenant: Tenant, raws: object) -> list[Outcome]:
        """Append each event; one outcome each, in order.

        Raises InvalidInput when it is no batch, Overloaded or QuotaExceeded when its valid events are not admitted (all
        are, or none), StoreUnavailable when the store took none of it.
        """
        if not isinstance(raws, list):
            raise InvalidInput([FieldProblem("/events", "it is not an array", 'send {"events": [ … ]}', "list_type")])
        if not 1 <= len(raws) <= self._max_events:
            detail = f"a batch has 1 to {self._max_events:,} events, this one has {len(raws):,}"
            remedy = "send at least one" if not raws else f"split it into batches of up to {self._max_events:,}"
            raise InvalidInput([FieldProblem("/events", detail, remedy, "batch-size")])
        outcomes: list[Outcome | None] = [None] * len(raws)
        warnings: dict[int, tuple[FieldProblem, ...]] = {}
        rules = await self._schemas.rules(tenant.name)
        by_partition: dict[Partition, list[tuple[int, Appendable]]] = {}
        for index, raw in enumerate(raws):
            try:
                envelope = self._validator.envelope(raw)
                warnings[index] = rules.check(envelope)
            except InvalidInput as error:
                known = raw.get("event_id") if isinstance(raw, dict) else None
                outcomes[index] = Outcome(index, "invalid", known if isinstance(known, str) else None, None, error)
            else:
                item = (index, _appendable(envelope))
                by_partition.setdefault(tenant.partition_of(envelope.session_id), []).append(item)
        valid = [event for items in by_partition.values() for _, event in items]
        await self._admission.admit(tenant, len(valid), sum(len(event.body) for event in valid))
        failures = 0
        for partition, items in by_partition.items():
            try:
                await self._append(partition, items, outcomes)
            except StoreUnavailable as error:
                failures += 1
                if failures == len(by_partition):
                    raise
                for index, event in items:
                    outcomes[index] = Outcome(index, "failed", event.event_id, None, error)
        return [_warned(outcome, warnings) for outcome in outcomes if outcome is not None]

    async def _append(
        self, partition: Partition, items: Sequence[tuple[int, Appendable]], outcomes: list[Outcome | None]
    ) -> None:
        answers = await self._ledger.append(partition, [event for _, event in items])
        for (index, event), answer in zip(items, answers, strict=True):
            if answer.status == "erased":
                outcomes[index] = Outcome(index, "invalid", event.event_id, None, _erased(answer))
                continue
            conflict = EventConflict(event.event_id, str(answer.position)) if answer.status == "conflict" else None
            outcomes[index] = Outcome(index, answer.status, event.event_id, answer.position, conflict)


def _warned(outcome: Outcome, warnings: Mapping[int, tuple[FieldProblem, ...]]) -> Outcome:
    found = warnings.get(outcome.index)
    return replace(outcome, warnings=found) if found else outcome


def _erased(answer: Appended) -> Erased:
    subject = answer.erased
    return Erased("session", "") if subject is None else Erased(subject.kind, subject.id)


def _appendable(envelope: Envelope) -> Appendable:
    return Appendable(EventId(envelope.event_id), envelope.session_id, codec.encode(envelope))
