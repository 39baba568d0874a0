"""The vault: data keys of people and sessions, and the one place where events are sealed and opened.

What an event says about a person is sealed with that person's key, and everything said in a session with the session's
key too; destroying a key is what erases, in stream, archive, backup and append-only file alike. Keys are kept in the
partition of the events, so the append script itself can refuse an event whose key was destroyed: no clock and no cache
decides about that. A key that is missing when an entry is read means that it was erased.

A subject is named in Redis by its tag only (`data_keys.py` keeps keys and makes tags). The tags of erased subjects
stay, so that nothing is ever sealed for them again; who they were can be guessed only by whoever has Redis and the
master key.

Processes remember keys for `cache_seconds`; an erasure waits that long before it says that it is done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from typing import Any, NamedTuple, Protocol

import orjson

from context_graph.domain.erasure import Strike, Subject
from context_graph.domain.event import ERASURE_TYPE
from context_graph.domain.partition import Partition
from context_graph.errors import PermanentError, VaultLocked
from context_graph.settings import VaultSettings
from context_graph.store import codec, sealing
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.data_keys import DataKeys
from context_graph.store.keys import PartitionKeys
from context_graph.store.sealing import NONCE_BYTES, EventKey

_About = tuple["str | None", tuple[str, ...], tuple[str, ...]]


class Sealable(Protocol):
    """An event on its way to the ledger; `people` it tells about beside its own `user_id`; `clear`: never sealed."""

    @property
    def session_id(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    @property
    def people(self) -> tuple[str, ...]: ...
    @property
    def clear(self) -> bool: ...
    @property
    def fields(self) -> Mapping[str, Any] | None: ...
    @property
    def sessions(self) -> tuple[str, ...]: ...


class Sealed(NamedTuple):
    """What is stored of an event, and the hash that recognises it; `tags`: of those whose keys it needs.

    `erased`: a subject of it was, so nothing may be stored.
    """

    body: bytes
    content_hash: bytes
    tags: tuple[str, ...] = ()
    erased: Subject | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An envelope's JSON. `erased`: what it said is gone, the rest is what was in the clear."""

    body: bytes
    erased: bool = False


class Vault:
    """Seals and opens the events of any partition. Without a master key nothing is sealed."""

    def __init__(
        self,
        redis: RedisClient,
        settings: VaultSettings,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Raises ConfigurationError when the master key is not one."""
        self.cache_seconds = settings.cache_seconds
        self.seals_sessions = settings.sessions
        self._redis = redis
        self.keys = DataKeys(redis, settings, clock, random)
        self._clock = clock
        self._random = random
        self._tombstones: dict[Partition, tuple[float, bool]] = {}
        scripts = files("context_graph.store").joinpath("lua")
        self._destroy = redis.register_script(scripts.joinpath("vault_destroy.lua").read_text())

    @property
    def enabled(self) -> bool:
        """Whether there is a master key, so that events are sealed and can be erased."""
        return self.keys.enabled

    async def seal(self, partition: Partition, events: Sequence[Sealable]) -> list[Sealed]:
        """What to store of these events, one for each; at most two round trips, none while the keys are remembered.

        Raises StoreUnavailable, VaultLocked.
        """
        if not self.enabled:
            return [Sealed(event.body, codec.content_hash(event.body)) for event in events]
        parts = [self._parts(event) for event in events]
        # Events of a batch share their subjects: what follows from these is worked out once for each combination.
        about = {who: self._subjects(*who) for who in {who for _, who in parts if who is not None}}
        tags = await self.keys.tags(partition, {subject for subjects in about.values() for subject in subjects})
        groups = {who: tuple(sorted(tags[subject] for subject in subjects)) for who, subjects in about.items()}
        keys = await self.keys.to_seal(partition, {group for group in groups.values() if group})
        names = {tag: subject for subject, tag in tags.items()}
        sealed: list[Sealed] = []
        nonces = self._random(NONCE_BYTES * len(events))
        for place, (event, (fields, who)) in enumerate(zip(events, parts, strict=True)):
            group = groups[who] if who is not None else ()
            key = keys.get(group)
            if not group or fields is None:
                sealed.append(Sealed(event.body, codec.content_hash(event.body)))
            elif isinstance(key, EventKey):
                nonce = nonces[place * NONCE_BYTES : (place + 1) * NONCE_BYTES]
                body = sealing.seal(fields, group, key, partition.tenant, nonce)
                sealed.append(Sealed(body, key.content_hash(event.body), group))
            else:
                sealed.append(Sealed(b"", b"", erased=names[key or group[0]]))
        return sealed

    async def hashes(self, partition: Partition, event: Sealable) -> set[bytes]:
        """Every hash by which this content may have been recorded: sealing may have been off, or been otherwise."""
        _, who = self._parts(event)
        subjects = self._subjects(*who) if who is not None else set()
        tags = await self.keys.tags(partition, subjects | {Subject("session", event.session_id)})
        people = tuple(sorted(tag for subject, tag in tags.items() if subject.kind == "user"))
        groups = {people, tuple(sorted(tags.values()))} - {()}
        keys = await self.keys.to_open(partition, groups)
        found = {key.content_hash(event.body) for key in keys.values() if key is not None}
        return found | {codec.content_hash(event.body)}

    async def open(self, partition: Partition, bodies: Sequence[bytes]) -> list[Opened]:
        """The envelopes in these stored bodies, in order; one round trip, none where nothing is sealed or all is known.

        Raises StoreUnavailable; VaultLocked without the master key; PermanentError when an entry was changed.
        """
        groups = {sealing.tags_of(body) for body in bodies if sealing.is_sealed(body)}
        if groups and not self.enabled:
            raise VaultLocked(f"events of {partition} are sealed: set CG_VAULT__MASTER_KEY to the key they need")
        keys = await self.keys.to_open(partition, groups) if groups else {}
        hidden = await self._hidden(partition, [body for body in bodies if not sealing.is_sealed(body)])
        opened: list[Opened] = []
        for body in bodies:
            if not sealing.is_sealed(body):
                opened.append(hidden.get(body) or Opened(body))
                continue
            key = keys[sealing.tags_of(body)]
            try:
                opened.append(
                    Opened(sealing.clear_part(body), erased=True)
                    if key is None
                    else Opened(sealing.unseal(body, key, partition.tenant))
                )
            except ValueError as error:
                raise PermanentError(f"an entry of {partition} cannot be opened: {error}") from error
        return opened

    async def destroy(self, partition: Partition, subject: Subject, erasure_id: str) -> tuple[str, str, Strike]:
        """Destroy the subject's key here for ever; again changes nothing. Raises VaultLocked without a master key.

        Returns the id of the erasure that did it first, the subject's tag, and what was destroyed.
        """
        tag = (await self.keys.tags(partition, {subject}))[subject]
        first, wrapped = await self.bury(partition, tag, erasure_id)
        fingerprint = blake2b(wrapped, digest_size=8).hexdigest() if wrapped else None
        return first, tag, Strike(str(partition), key_fingerprint=fingerprint)

    async def bury(self, partition: Partition, tag: str, erasure_id: str) -> tuple[str, bytes]:
        """The same by the tag that a tombstone names: how a replay of a restored ledger respects it."""
        keys = PartitionKeys(partition)
        with store_errors("destroying a data key"):
            answer: Any = await self._destroy(keys=[keys.vault, keys.erased], args=[tag, erasure_id])
        self.keys.forget()
        self._tombstones.clear()
        return answer[0].decode(), answer[1]

    async def tag_of(self, partition: Partition, subject: Subject) -> str:
        """The name that a subject has in Redis and archive. Raises VaultLocked without a master key."""
        return (await self.keys.tags(partition, {subject}))[subject]

    async def erasure_of(self, partition: Partition, subject: Subject) -> str | None:
        """The id of the erasure of a subject, or None."""
        tag = (await self.keys.tags(partition, {subject}))[subject]
        with store_errors("looking for a tombstone"):
            known: Any = await self._redis.hget(PartitionKeys(partition).erased, tag)
        return None if known is None else known.decode()

    async def erased_subject(self, partition: Partition, event: Sealable) -> Subject | None:
        """Which subject of an event was erased, if any."""
        _, who = self._parts(event)
        subjects = self._subjects(*who) if who is not None else set()
        for subject in sorted(subjects, reverse=True):  # a person rather than a session
            if await self.erasure_of(partition, subject) is not None:
                return subject
        return None

    def _parts(self, event: Sealable) -> tuple[Mapping[str, Any] | None, _About | None]:
        """An event's fields and whom it is about; None when it stays as it is."""
        if event.clear or not (self.seals_sessions or event.people or b'"user_id":' in event.body):
            return None, None
        fields: Mapping[str, Any] = orjson.loads(event.body) if event.fields is None else event.fields
        return fields, (fields.get("user_id"), event.people, (event.session_id, *event.sessions))

    def _subjects(self, user_id: str | None, people: tuple[str, ...], sessions: tuple[str, ...]) -> set[Subject]:
        subjects = {Subject("user", person) for person in (user_id, *people) if person is not None}
        return subjects | {Subject("session", name) for name in sessions} if self.seals_sessions else subjects

    async def _hidden(self, partition: Partition, plain: Sequence[bytes]) -> dict[bytes, Opened]:
        """Of events stored before sealing was on, those whose subject has been erased since; nearly always none."""
        if not self.enabled or not plain or not await self._has_tombstones(partition):
            return {}
        subjects: dict[bytes, set[Subject]] = {}
        for body in plain:
            known = codec.identity(body)
            fields: dict[str, Any] = orjson.loads(body) if known is not None else {}
            if known is not None and fields.get("event_type") != ERASURE_TYPE:
                subjects[body] = self._subjects(fields.get("user_id"), (), (known[1],))
        tags = await self.keys.tags(partition, {subject for group in subjects.values() for subject in group})
        if not tags:
            return {}
        with store_errors("looking for tombstones"):
            answers: Any = await self._redis.hmget(PartitionKeys(partition).erased, list(tags.values()))
        erased = {subject for subject, answer in zip(tags, answers, strict=True) if answer is not None}
        return {body: _stripped(body) for body, group in subjects.items() if group & erased}

    async def _has_tombstones(self, partition: Partition) -> bool:
        now = self._clock()
        known = self._tombstones.get(partition)
        if known is None or known[0] <= now:
            with store_errors("looking for tombstones"):
                count: Any = await self._redis.hlen(PartitionKeys(partition).erased)
            known = self._tombstones[partition] = (now + self.cache_seconds, bool(count))
        return known[1]


def _stripped(body: bytes) -> Opened:
    fields: dict[str, Any] = orjson.loads(body)
    clear = {name: value for name, value in fields.items() if name not in sealing.SECRET_FIELDS}
    return Opened(orjson.dumps(clear), erased=True)
