"""The ledger: append-only streams, one per partition, with deduplication and append in one script.

Owns what is durable: the stream, the ids, each session's order of arrival. It never changes or deletes an entry.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, Literal, NamedTuple, cast, get_args

import structlog
from redis.exceptions import ResponseError

from context_graph.domain.erasure import Subject
from context_graph.domain.event import EventId, LedgerEvent, SessionId
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.upcast import UPCASTERS, Upcasters
from context_graph.errors import ConfigurationError, LeaseLostError, PermanentError
from context_graph.settings import VaultSettings
from context_graph.store import codec
from context_graph.store.archive import Archive
from context_graph.store.archive_continuity import ArchiveWatch
from context_graph.store.archive_segments import RawEntry
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.entries import Entry, entry_of
from context_graph.store.history import History
from context_graph.store.keys import WAKE_CHANNEL, PartitionKeys
from context_graph.store.leases import Lease
from context_graph.store.replication import ReplicatedScript, Replication
from context_graph.store.vault import Sealed, Vault

AppendStatus = Literal["created", "duplicate", "conflict", "erased"]
_STATUSES: dict[bytes, AppendStatus] = {status.encode(): status for status in get_args(AppendStatus)}
_NOWHERE = "0-0"
log = structlog.get_logger(__name__)
# Before the script, when a lease is named: its key and its token come last and are taken off.
_FENCE = """local token = table.remove(ARGV)
if redis.call('GET', table.remove(KEYS)) ~= token then return {'fenced'} end
"""


class Appendable(NamedTuple):
    """An event ready to append: its id, its session, its canonical JSON.

    `people` are those it tells about beside its own `user_id`, `sessions` those beside its own (a summary of many): it
    can be read as long as none of them is erased. `clear`: kept in the clear whatever the settings say, because it says
    nothing about anybody. `fields`: what `body` was made of, for who has it at hand; sealing then need not read it.
    """

    event_id: EventId
    session_id: SessionId
    body: bytes
    people: tuple[str, ...] = ()
    clear: bool = False
    fields: Mapping[str, Any] | None = None
    sessions: tuple[str, ...] = ()


class Appended(NamedTuple):
    """What became of one event, and the position of the event of that id.

    `erased`: nothing was written, because that person or session was erased; there is no position then (0-0).
    """

    status: AppendStatus
    position: Position
    erased: Subject | None = None


class Unreadable(NamedTuple):
    """An entry of the ledger that is no event: somebody wrote it there by hand, or changed its bytes."""

    position: Position


class Ledger:
    """Appends to and reads from the streams of any partition."""

    def __init__(
        self,
        redis: RedisClient,
        replication: Replication | None = None,
        upcasters: Upcasters = UPCASTERS,
        archive: Archive | None = None,
        vault: Vault | None = None,
        *,
        watch: ArchiveWatch | None = None,
    ) -> None:
        """`replication`: appends are answered when that many replicas hold them. `archive`: where the trimmed are.

        `vault`: seals what is appended and opens what is read; absent: one without a master key. `watch`: refuses
        appends to a partition of which the archive knows more than Redis.
        """
        self._redis = redis
        self._watch = watch
        self._vault = vault if vault is not None else Vault(redis, VaultSettings())
        self._history = History(redis, archive)
        self._upcasters = upcasters
        source = files("context_graph.store").joinpath("lua/append.lua").read_text()
        self._replicated = None if replication is None else ReplicatedScript(redis, source, replication)
        # redis-py's Script sends EVALSHA and loads the source again after NOSCRIPT (restart, SCRIPT FLUSH).
        self._append = redis.register_script(source)
        self._fenced = redis.register_script(_FENCE + source)
        self._fenced_replicated = None if replication is None else ReplicatedScript(redis, _FENCE + source, replication)

    async def append(
        self, partition: Partition, events: Sequence[Appendable], lease: Lease | None = None
    ) -> list[Appended]:
        """Append each event once; one answer per event, in order. All or nothing reaches the server in one script.

        Safe to repeat: what a lost answer left behind comes back as a duplicate. `lease`: one of this partition that
        must be its holder's in the very step of appending, whatever has held that up. Raises StoreUnavailable; its kind
        NotReplicated says that the events are in the ledger, but on too few replicas yet, LedgerBehind that Redis lost
        what the archive has; and LeaseLost.
        """
        if not events:
            return []
        await self.check_whole(partition)
        sealed = await self._vault.seal(partition, events)
        if not any(what.erased for what in sealed):
            return await self._append_sealed(partition, events, sealed, lease)
        kept = [(event, what) for event, what in zip(events, sealed, strict=True) if what.erased is None]
        left, bodies = [event for event, _ in kept], [what for _, what in kept]
        answers = iter(await self._append_sealed(partition, left, bodies, lease) if kept else [])
        nowhere = Position.of_stream_id(partition.bucket, _NOWHERE)
        return [next(answers) if what.erased is None else Appended("erased", nowhere, what.erased) for what in sealed]

    async def check_whole(self, partition: Partition) -> None:
        """Return when the ledger knows what the archive has of a partition. Raises LedgerBehind, StoreUnavailable."""
        if self._watch is not None:
            await self._watch.check(partition)

    async def _append_sealed(
        self, partition: Partition, events: Sequence[Appendable], sealed: Sequence[Sealed], lease: Lease | None
    ) -> list[Appended]:
        keys = PartitionKeys(partition)
        names = [keys.ledger, keys.ids, keys.vault]
        lanes: dict[tuple[str, tuple[str, ...]], int] = {}  # of a session and those whose keys its events need
        lists: dict[str, int] = {}
        heads: list[str | bytes | int] = []
        rows: list[str | bytes | int] = []
        for event, what in zip(events, sealed, strict=True):
            lane = lanes.get((event.session_id, what.tags))
            if lane is None:
                if event.session_id not in lists:
                    names.append(keys.session_events(event.session_id))
                    lists[event.session_id] = len(names)
                heads += (lists[event.session_id], " ".join(what.tags))
                lane = lanes[(event.session_id, what.tags)] = len(lanes) + 1
            rows += (event.event_id, what.content_hash, lane, what.body)
        arguments = [str(partition), WAKE_CHANNEL, len(lanes), *heads, *rows]
        with store_errors("appending events"):
            answer = await self._run(keys, names, arguments, lease)
        bucket, position_of = partition.bucket, Position.of_stream_id
        flat = iter(cast("list[bytes]", answer))
        answers = [
            Appended(_STATUSES[status], position_of(bucket, stream_id.decode()))
            for status, stream_id in zip(flat, flat, strict=True)
        ]
        if self._vault.enabled:
            for i, event in enumerate(events):
                if answers[i].status in ("conflict", "erased"):
                    answers[i] = await self._reconsidered(partition, event, answers[i])
        return answers

    async def _run(
        self, keys: PartitionKeys, names: list[str], arguments: list[str | bytes | int], lease: Lease | None
    ) -> Any:
        script, replicated = self._append, self._replicated
        if lease is not None:
            names, arguments = [*names, keys.lease(lease.name)], [*arguments, lease.token]
            script, replicated = self._fenced, self._fenced_replicated
        if replicated is None:
            answer: Any = await script(keys=names, args=arguments)
        else:
            answer = await replicated(names, arguments, keys.replication_mark)
        if lease is not None and answer and answer[0] == b"fenced":
            raise LeaseLostError(f"the lease {lease.name!r} on {lease.partition} was lost to another worker")
        return answer

    async def _reconsidered(self, partition: Partition, event: Appendable, answer: Appended) -> Appended:
        """Who was erased between sealing and appending; a conflict that is none, because sealing was off at first."""
        if answer.status == "erased":
            return answer._replace(erased=await self._vault.erased_subject(partition, event))
        with store_errors("looking up an event"):
            known = cast("bytes | None", await self._redis.hget(PartitionKeys(partition).ids, event.event_id))
        if known is not None and known[:16] in await self._vault.hashes(partition, event):
            return answer._replace(status="duplicate")
        return answer

    async def events(self, partition: Partition, entries: Sequence[RawEntry]) -> list[LedgerEvent]:
        """Raw entries opened and decoded, in the newest schema version.

        Raises ValueError on one that is no envelope, PermanentError on one that cannot be opened: `readable` does not.
        """
        opened = await self._vault.open(partition, [fields.get(b"e", b"") for _, fields in entries])
        return [
            decode_entry(partition, stream_id, {b"e": found.body}, self._upcasters, erased=found.erased)
            for (stream_id, _), found in zip(entries, opened, strict=True)
        ]

    async def readable(self, partition: Partition, entries: Sequence[RawEntry]) -> list[LedgerEvent | Unreadable]:
        """The same, one for each entry: what somebody wrote beside the service hides nothing around it.

        Raises StoreUnavailable, VaultLocked.
        """
        try:
            return list(await self.events(partition, entries))
        except ConfigurationError:
            raise
        except (ValueError, PermanentError) as error:
            if len(entries) == 1:
                position = Position.of_stream_id(partition.bucket, entries[0][0].decode())
                log.warning("ledger_entry_unreadable", position=str(position), reason=str(error))
                return [Unreadable(position)]
            middle = len(entries) // 2
            first = await self.readable(partition, entries[:middle])
            return first + await self.readable(partition, entries[middle:])

    async def position_of(self, partition: Partition, event_id: str) -> Position | None:
        """Where the event of that id stands, or None."""
        with store_errors("looking up an event"):
            known = cast("bytes | None", await self._redis.hget(PartitionKeys(partition).ids, event_id))
        return None if known is None else Position.of_stream_id(partition.bucket, known[16:].decode())

    async def get(self, partition: Partition, event_id: str) -> LedgerEvent | None:
        """The event of that id, or None."""
        position = await self.position_of(partition, event_id)
        if position is None:
            return None
        found = await self.at(partition, [position.stream_id])
        return found[0] if found else None

    async def at(self, partition: Partition, stream_ids: Sequence[str]) -> list[LedgerEvent]:
        """The events at these stream ids, in the order asked, those that exist; one round trip for those in Redis."""
        entries = await self._history.at(partition, stream_ids)
        return await self.events(partition, entries)

    async def after(self, partition: Partition, after: Position | None, limit: int) -> list[LedgerEvent]:
        """Up to `limit` events behind `after` (exclusive; None: from the beginning) in ledger order."""
        entries = await self._history.after(partition, after, limit)
        return await self.events(partition, entries)

    async def read_after(
        self, partition: Partition, after: Position | None, limit: int
    ) -> list[LedgerEvent | Unreadable]:
        """As `after`, and what cannot be read stands in its place."""
        return await self.readable(partition, await self._history.after(partition, after, limit))

    async def read_before(self, partition: Partition, before: Position, limit: int) -> list[LedgerEvent | Unreadable]:
        """As `before`, and what cannot be read stands in its place."""
        return await self.readable(partition, await self._history.before(partition, before, limit))

    def replay(self, partition: Partition, after: Position | None) -> AsyncIterator[list[RawEntry]]:
        """Everything behind `after` in ledger order, archive then stream, in batches of raw entries.

        Undecoded, because a replay has to go on beyond what cannot be decoded: `events(partition, [entry])`.
        """
        return self._history.replay(partition, after)

    async def entries_anywhere(self, partition: Partition, positions: Sequence[Position]) -> list[Entry]:
        """The entries at these places that stream or archive hold, unopened, whoever has trimmed the stream.

        Raises StoreUnavailable, ArchiveDamaged, ConfigurationError where an archive is needed and there is none.
        """
        return [entry_of(partition, *raw) for raw in await self._history.anywhere(partition, positions)]

    async def archived(self, partition: Partition, after: Position, until: Position, limit: int) -> list[Entry]:
        """Up to `limit` entries, unopened, behind `after` up to `until` that the archive holds. Raises as above."""
        return [
            entry_of(partition, *raw) for raw in await self._history.archived_between(partition, after, until, limit)
        ]

    async def count(self, partition: Partition) -> int:
        """Events of a partition, wherever they are."""
        with store_errors("counting events"):
            return await self._redis.hlen(PartitionKeys(partition).ids)

    async def first_after(self, partition: Partition, after: Position | None) -> Position | None:
        """The position of the next entry behind `after`, whatever it holds; None at the end."""
        entries = await self._history.after(partition, after, 1)
        return Position.of_stream_id(partition.bucket, entries[0][0].decode()) if entries else None

    async def of_session(
        self, partition: Partition, session_id: str, after: Position | None, limit: int
    ) -> list[LedgerEvent]:
        """Up to `limit` events of a session behind `after`, in ledger order.

        The session's list is ordered, so the start is found by bisection: about log2(length) small reads.
        """
        key = PartitionKeys(partition).session_events(session_id)
        with store_errors("reading a session"):
            start = 0 if after is None else await self._first_behind(key, after)
            ids = cast("list[bytes]", await self._redis.lrange(key, start, start + limit - 1))
        return await self.at(partition, [stream_id.decode() for stream_id in ids])

    async def _first_behind(self, key: str, after: Position, *, inclusive: bool = False) -> int:
        """The index of the first id behind `after`, or `inclusive`: of `after` itself, where it is in the list."""
        low, high = 0, await self._redis.llen(key)
        while low < high:
            middle = (low + high) // 2
            found = cast("bytes | None", await self._redis.lindex(key, middle))
            place = None if found is None else Position.of_stream_id(after.bucket, found.decode())
            if place is not None and (place < after or (place == after and not inclusive)):
                low = middle + 1
            else:
                high = middle
        return low

    async def before(self, partition: Partition, before: Position, limit: int) -> list[LedgerEvent]:
        """Up to `limit` events ahead of `before` (exclusive), the newest first."""
        entries = await self._history.before(partition, before, limit)
        return await self.events(partition, entries)

    async def of_session_before(
        self, partition: Partition, session_id: str, before: Position, limit: int
    ) -> list[LedgerEvent]:
        """Up to `limit` events of a session ahead of `before` (exclusive), the newest first."""
        key = PartitionKeys(partition).session_events(session_id)
        with store_errors("reading a session"):
            end = await self._first_behind(key, before, inclusive=True)
            if end == 0:
                return []
            ids = cast("list[bytes]", await self._redis.lrange(key, max(0, end - limit), end - 1))
        return await self.at(partition, [stream_id.decode() for stream_id in reversed(ids)])

    async def session_has_news(self, partition: Partition, session_id: str, after: Position) -> bool:
        """Whether a session has an event behind `after`: one small read, for those who ask often."""
        with store_errors("reading a session"):
            raw: Any = await self._redis.lindex(PartitionKeys(partition).session_events(session_id), -1)
        return raw is not None and Position.of_stream_id(partition.bucket, raw.decode()) > after

    async def stream_cut(self, partition: Partition) -> Position | None:
        """A place with nothing between it and the stream's first entry, when entries before have left the stream."""
        trimmed = await self._history.trimmed(partition)
        if trimmed is not None:
            return trimmed
        with store_errors("reading the stream's state"):
            try:
                info: Any = await self._redis.xinfo_stream(PartitionKeys(partition).ledger)
            except ResponseError as error:
                if "no such key" in str(error):
                    return None
                raise
        if info["entries-added"] <= info["length"]:
            return None
        if not info["length"]:
            return Position.of_stream_id(partition.bucket, info["last-generated-id"].decode())
        first = Position.of_stream_id(partition.bucket, info["first-entry"][0].decode())
        return Position(first.bucket, first.ms, first.seq - 1) if first.seq else Position(first.bucket, first.ms - 1, 0)

    async def last(self, partition: Partition) -> Position | None:
        """The newest position of a partition, or None when it is empty."""
        with store_errors("reading the end of the ledger"):
            entries: Any = await self._redis.xrevrange(PartitionKeys(partition).ledger, count=1)
        return Position.of_stream_id(partition.bucket, entries[0][0].decode()) if entries else None

    async def length(self, *partitions: Partition) -> int:
        """Entries in the partitions' streams; those that only the archive holds are not counted."""
        pipe = self._redis.pipeline(transaction=False)
        for partition in partitions:
            pipe.xlen(PartitionKeys(partition).ledger)
        with store_errors("counting events"):
            return sum(await pipe.execute()) if partitions else 0


def decode_entry(
    partition: Partition,
    stream_id: bytes,
    fields: dict[bytes, bytes],
    upcasters: Upcasters = UPCASTERS,
    *,
    erased: bool = False,
) -> LedgerEvent:
    """An opened stream entry as an event, in the newest schema version; an `erased` one has nothing to upcast."""
    position = Position.of_stream_id(partition.bucket, stream_id.decode())
    event = LedgerEvent(partition.tenant, position, codec.decode(fields.get(b"e", b"")), erased=erased)
    return event if erased else upcasters.newest(event)
