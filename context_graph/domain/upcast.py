"""Upcasters: payloads of older schema versions become the newest when they are read. Stored events never change.

A row says how a payload of one version of an event type becomes one of the next version. Rows compose: an event of
version 1 goes through 1→2 and 2→3. Only the payload changes, never who, when or why, so that identity, order and
causes cannot depend on the code that reads them.

To add one: append a row to `UPCASTERS` whose `change` takes any JSON value that version ever allowed and returns one of
the next version (a pure function that never raises), and add an event of the old version with what it should now read
as to the golden corpus (`tests/golden/envelopes/`). Never remove a row: the events of its version are still stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from context_graph.domain.event import JsonValue, LedgerEvent


@dataclass(frozen=True, slots=True)
class Upcaster:
    """`event_type` is a type or `prefix.*`; `change` turns a payload of `from_version` into one of the next version."""

    event_type: str
    from_version: int
    change: Callable[[JsonValue], JsonValue]

    def covers(self, event_type: str) -> bool:
        """Whether it is for events of this type."""
        if self.event_type.endswith(".*"):
            return event_type.startswith(self.event_type[:-1])
        return event_type == self.event_type


class Upcasters:
    """A table of upcasters. Raises ValueError when two rows are for the same pattern and version."""

    def __init__(self, rows: tuple[Upcaster, ...] = ()) -> None:
        places = [(row.event_type, row.from_version) for row in rows]
        twice = sorted({place for place in places if places.count(place) > 1})
        if twice:
            raise ValueError(f"two upcasters from the same version: {twice}")
        self.rows = rows

    def step(self, event_type: str, version: int) -> Upcaster | None:
        """The row that leads from this version to the next; a row for the very type goes before one for a pattern."""
        rows = [row for row in self.rows if row.from_version == version and row.covers(event_type)]
        return max(rows, key=lambda row: (row.event_type == event_type, len(row.event_type)), default=None)

    def newest(self, event: LedgerEvent) -> LedgerEvent:
        """The event in the newest version that is known here; itself when it is that already.

        The version it is stored in is then `stored_schema_version`. Applying it again changes nothing.
        """
        if not self.rows:  # nearly always: every event that is read passes here
            return event
        envelope = event.envelope
        payload, version = envelope.payload, envelope.schema_version
        while (row := self.step(envelope.event_type, version)) is not None:
            payload, version = row.change(payload), version + 1
        if version == envelope.schema_version:
            return event
        stored = event.stored_schema_version or envelope.schema_version
        return replace(
            event,
            envelope=replace(envelope, payload=payload, schema_version=version),
            stored_schema_version=stored,
        )


UPCASTERS = Upcasters()
"""The table in force. It is empty: every type the service documents is at its first version."""
