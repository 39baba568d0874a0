"""Ingest: validated events appended to the partition of their session, with an outcome for each.

Good events of a batch are kept whatever the others are. An answer is given only when the ledger has answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from context_graph.domain.event import SessionId
from context_graph.domain.partition import Partition, Tenant
from context_graph.domain.position import Position
from context_graph.errors import ContextGraphError, Erased, EventConflict, FieldProblem, InvalidInput, StoreUnavailable
from context_graph.ingest.admission import Admission
from context_graph.ingest.gathering import GatheredAppends
from context_graph.ingest.quick_check import CheckedEvent
from context_graph.ingest.schemas import Schemas
from context_graph.ingest.validation import Validator
from context_graph.store.ledger import Appendable, Appended, Ledger

ItemStatus = Literal["created", "duplicate", "conflict", "invalid", "failed"]


class Outcome(NamedTuple):
    """What became of the event at that place of a batch. `error` is set for conflict, invalid and failed.

    `warnings`: where the event differs from its schema, in lenient mode.
    """

    place: int
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
        checked = self._validator.checked(raw, self._validator.latest_ms())
        warnings = (await self._schemas.rules(tenant.name)).check(checked)
        partition = tenant.partition_of(checked.session_id)
        event = _appendable(checked)
        await self._admission.admit(tenant, 1, len(event.body))
        appended = await self._singles.append(partition, event)
        if appended.status == "conflict":
            raise EventConflict(event.event_id, str(appended.position))
        if appended.status == "erased":
            raise _erased(appended)
        return Outcome(0, appended.status, event.event_id, appended.position, None, warnings)

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
        by_partition = await self._checked(tenant, raws, outcomes, warnings)
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
        done = [outcome for outcome in outcomes if outcome is not None]
        return [_warned(outcome, warnings) for outcome in done] if warnings else done

    async def _checked(
        self,
        tenant: Tenant,
        raws: Sequence[object],
        outcomes: list[Outcome | None],
        warnings: dict[int, tuple[FieldProblem, ...]],
    ) -> dict[Partition, list[tuple[int, Appendable]]]:
        """The valid events by partition, each with its place; the others' outcomes, and the warnings, are noted."""
        check = (await self._schemas.rules(tenant.name)).check
        checked, latest_ms = self._validator.checked, self._validator.latest_ms()
        by_session: dict[SessionId, list[tuple[int, Appendable]]] = {}
        by_partition: dict[Partition, list[tuple[int, Appendable]]] = {}
        for index, raw in enumerate(raws):
            try:
                event = checked(raw, latest_ms)
                warned = check(event)
            except InvalidInput as error:
                known = raw.get("event_id") if isinstance(raw, dict) else None
                outcomes[index] = Outcome(index, "invalid", known if isinstance(known, str) else None, None, error)
                continue
            if warned:
                warnings[index] = warned
            items = by_session.get(event.session_id)
            if items is None:  # its partition is asked for once a session
                items = by_partition.setdefault(tenant.partition_of(event.session_id), [])
                by_session[event.session_id] = items
            items.append((index, _appendable(event)))
        return by_partition

    async def _append(
        self, partition: Partition, items: Sequence[tuple[int, Appendable]], outcomes: list[Outcome | None]
    ) -> None:
        answers = await self._ledger.append(partition, [event for _, event in items])
        for (index, event), answer in zip(items, answers, strict=True):
            status = answer.status
            if status == "erased":
                outcomes[index] = Outcome(index, "invalid", event.event_id, None, _erased(answer))
            elif status == "conflict":
                conflict = EventConflict(event.event_id, str(answer.position))
                outcomes[index] = Outcome(index, status, event.event_id, answer.position, conflict)
            else:
                outcomes[index] = Outcome(index, status, event.event_id, answer.position)


def _warned(outcome: Outcome, warnings: Mapping[int, tuple[FieldProblem, ...]]) -> Outcome:
    found = warnings.get(outcome.place)
    return outcome._replace(warnings=found) if found else outcome


def _erased(answer: Appended) -> Erased:
    subject = answer.erased
    return Erased("session", "") if subject is None else Erased(subject.kind, subject.id)


def _appendable(event: CheckedEvent) -> Appendable:
    return Appendable(event.event_id, event.session_id, event.body, fields=event.fields)
