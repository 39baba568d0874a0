"""A ledger entry as a group delivers it: neither opened nor decoded, because that may be what fails."""

from __future__ import annotations

from dataclasses import dataclass

from context_graph.domain.event import LedgerEvent
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.upcast import UPCASTERS, Upcasters
from context_graph.errors import PermanentError
from context_graph.store import codec, sealing


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry, its place, and its stored bytes."""

    partition: Partition
    position: Position
    body: bytes
    erased: bool = False
    """Opened, and what it said is gone (`store/vault.py`)."""

    def event(self, upcasters: Upcasters = UPCASTERS) -> LedgerEvent:
        """The entry decoded, in the newest schema version. Raises PermanentError when the bytes are not an envelope."""
        try:
            envelope = codec.decode(self.body)
            event = LedgerEvent(self.partition.tenant, self.position, envelope, erased=self.erased)
            return event if self.erased else upcasters.newest(event)
        except ValueError as error:
            raise PermanentError(f"the ledger entry at {self.position} is not an envelope: {error}") from error

    @property
    def event_id(self) -> str:
        """The event's id, whatever else is readable of the entry; empty when it is not an envelope."""
        known = codec.identity(self.body)
        return known[0] if known is not None else ""

    @property
    def session_id(self) -> str:
        """The event's session, whatever else is readable of the entry; empty when it is not an envelope."""
        known = codec.identity(self.body)
        return known[1] if known is not None else ""

    @property
    def event_type(self) -> str:
        """The event's type; empty when the entry is not an envelope."""
        return codec.event_type(self.body)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The tags of those whose erasure makes it unreadable; none when it is not sealed."""
        return sealing.tags_of(self.body) if sealing.is_sealed(self.body) else ()


def entry_of(partition: Partition, stream_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    """From what Redis tells."""
    return Entry(partition, Position.of_stream_id(partition.bucket, stream_id.decode()), fields.get(b"e", b""))


def entry_of_flat(partition: Partition, stream_id: bytes, fields: list[bytes]) -> Entry:
    """From what a script tells: names and values in turn."""
    return entry_of(partition, stream_id, dict(zip(fields[::2], fields[1::2], strict=True)))
