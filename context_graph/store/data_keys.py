"""Data keys: one for each person and session of a partition, wrapped by the master key in Redis, remembered here.

A subject's name in Redis is its tag: BLAKE2b of kind and id, keyed with a random pepper of the partition that is
wrapped like a key. What is remembered lasts `cache_seconds`; the append script decides about keys that were destroyed
since.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from importlib.resources import files
from typing import Any

from context_graph.domain.erasure import Subject
from context_graph.domain.partition import Partition
from context_graph.errors import ConfigurationError, VaultLocked
from context_graph.settings import VaultSettings
from context_graph.store import sealing
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import PEPPER, PartitionKeys
from context_graph.store.master_key import MasterKeys
from context_graph.store.sealing import KEY_BYTES, TAG_BYTES, EventKey

_REMEMBER_AT_MOST = 50_000  # event keys, about 1 kB each with their cipher
_PAGE = 500

Tags = tuple[str, ...]
_Places = dict[tuple[Partition, Tags], tuple[float, "EventKey | None"]]


class DataKeys:
    """The data keys of any partition. Every method but `enabled` raises VaultLocked without the master key it needs."""

    def __init__(
        self,
        redis: RedisClient,
        settings: VaultSettings,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        """Raises ConfigurationError when the master key is not one."""
        self._redis = redis
        self._cache_seconds = settings.cache_seconds
        self._master = MasterKeys.of(settings, random)
        self._clock = clock
        self._random = random
        self._event_keys: _Places = {}
        self._peppers: dict[Partition, tuple[float, bytes]] = {}
        scripts = files("context_graph.store").joinpath("lua")
        self._take = redis.register_script(scripts.joinpath("vault_take.lua").read_text())
        self._rewrap = redis.register_script(scripts.joinpath("vault_rewrap.lua").read_text())
        self._restore = redis.register_script(scripts.joinpath("vault_restore.lua").read_text())

    @property
    def enabled(self) -> bool:
        """Whether there is a master key."""
        return self._master is not None

    @property
    def was_rotated(self) -> bool:
        """Whether there are previous master keys, so that something may be wrapped by one of them."""
        return self._master is not None and self._master.has_previous

    def forget(self) -> None:
        """Remember no key any more."""
        self._event_keys.clear()
        self._peppers.clear()

    async def tags(self, partition: Partition, subjects: Collection[Subject]) -> dict[Subject, str]:
        """The tag of each subject."""
        if not subjects:
            return {}
        pepper = await self._pepper(partition)
        return {subject: _tag(subject, pepper) for subject in subjects}

    async def to_seal(self, partition: Partition, groups: set[Tags]) -> dict[Tags, EventKey | str]:
        """The key of each group of subjects, made where it is missing; or the tag of one that was erased."""
        found, wanted = self._remembered(partition, groups)
        keys: dict[Tags, EventKey | str] = {group: key for group, key in found.items() if key is not None}
        wanted |= {group for group, key in found.items() if key is None}
        if not wanted:
            return keys
        taken = await self._fetched(partition, {tag for group in wanted for tag in group})
        missing = sorted(tag for tag, key in taken.items() if key is None)
        if missing:
            taken |= await self._made(partition, missing)
        made = self._remember(partition, wanted, taken)
        for group, key in made.items():
            keys[group] = key if key is not None else next(tag for tag in group if taken[tag] is None)
        return keys

    async def to_open(self, partition: Partition, groups: set[Tags]) -> dict[Tags, EventKey | None]:
        """The key of each group of subjects; None where one was erased."""
        found, wanted = self._remembered(partition, groups)
        if not wanted:
            return found
        taken = await self._fetched(partition, {tag for group in wanted for tag in group})
        return found | self._remember(partition, wanted, taken)

    async def check_pepper(self, partition: Partition, wrapped: bytes | None) -> None:
        """Raise ConfigurationError where subjects have other tags than in an archive with that pepper.

        Two tags for one person would mean two keys, of which an erasure destroys one.
        """
        if wrapped is None:
            return
        place = _place(partition, PEPPER)
        with store_errors("reading the vault"):
            there: Any = await self._redis.hget(PartitionKeys(partition).vault, PEPPER)
        archived = None if self._master is None else self._master.unwrap(wrapped, place)  # the right master key?
        if there is None or there == wrapped:
            return
        if self._unlocked().unwrap(there, place) != archived:
            raise ConfigurationError(
                f"{partition} has sealed events since Redis was lost, with names for people that the archive does not "
                "know: restore into an empty Redis, before anything is written to it"
            )

    async def restore(
        self, partition: Partition, pepper: bytes | None, keys: Mapping[str, bytes], erased: Mapping[str, str]
    ) -> None:
        """Put wrapped keys back, and who was erased (tag -> erasure id). What is there already stays."""
        names = PartitionKeys(partition)
        pairs = [*({PEPPER: pepper} if pepper is not None else {}).items(), *keys.items()]
        gone = [value for pair in erased.items() for value in pair]
        with store_errors("restoring data keys"):
            await self._restore(keys=[names.vault, names.erased], args=[len(erased), *gone])
            for start in range(0, len(pairs), _PAGE):
                page = [value for pair in pairs[start : start + _PAGE] for value in pair]
                await self._restore(keys=[names.vault, names.erased], args=[0, *page])
        self.forget()

    async def rewrap(self, partition: Partition) -> int:
        """Wrap every key of a partition by the master key in force; returns how many were not."""
        if self._master is None:
            return 0
        vault, count = PartitionKeys(partition).vault, 0
        with store_errors("wrapping keys anew"):
            async for name, wrapped in self._redis.hscan_iter(vault, count=_PAGE):
                if not self._master.is_current(wrapped):
                    place = _place(partition, name.decode())
                    anew = self._master.wrap(self._master.unwrap(wrapped, place), place)
                    await self._rewrap(keys=[vault], args=[name, wrapped, anew])
                    count += 1
        return count

    async def _pepper(self, partition: Partition) -> bytes:
        now = self._clock()
        known = self._peppers.get(partition)
        if known is not None and known[0] > now:
            return known[1]
        master, vault, place = self._unlocked(), PartitionKeys(partition).vault, _place(partition, PEPPER)
        with store_errors("reading the vault"):
            wrapped: Any = await self._redis.hget(vault, PEPPER)
            if wrapped is None:
                await self._redis.hsetnx(vault, PEPPER, master.wrap(self._random(KEY_BYTES), place))
                wrapped = await self._redis.hget(vault, PEPPER)
        pepper = master.unwrap(wrapped, place)
        self._peppers[partition] = (now + self._cache_seconds, pepper)
        return pepper

    async def _fetched(self, partition: Partition, wanted: Collection[str]) -> dict[str, bytes | None]:
        """The data keys of these tags; None where there is none."""
        master, tags = self._unlocked(), sorted(wanted)
        with store_errors("reading data keys"):
            wrapped: Any = await self._redis.hmget(PartitionKeys(partition).vault, tags)
        return {
            tag: None if value is None else master.unwrap(value, _place(partition, tag))
            for tag, value in zip(tags, wrapped, strict=True)
        }

    async def _made(self, partition: Partition, tags: Sequence[str]) -> dict[str, bytes | None]:
        """Data keys of new subjects, made now; None where one was erased."""
        master, names = self._unlocked(), PartitionKeys(partition)
        fresh = self._random(KEY_BYTES * len(tags))
        offered: dict[str, tuple[bytes, bytes]] = {}
        for number, tag in enumerate(tags):
            key = fresh[number * KEY_BYTES : (number + 1) * KEY_BYTES]
            offered[tag] = (key, master.wrap(key, _place(partition, tag)))
        arguments = [value for tag, (_, wrapped) in offered.items() for value in (tag, wrapped)]
        with store_errors("making data keys"):
            flat: Any = await self._take(keys=[names.vault, names.erased], args=arguments)
        made: dict[str, bytes | None] = {}
        for number, (tag, (key, wrapped)) in enumerate(offered.items()):
            status, found = flat[2 * number], flat[2 * number + 1]
            if status != b"key":
                made[tag] = None
            else:  # of another process that was faster, or ours
                made[tag] = key if found == wrapped else master.unwrap(found, _place(partition, tag))
        return made

    def _remembered(self, partition: Partition, groups: set[Tags]) -> tuple[dict[Tags, EventKey | None], set[Tags]]:
        now = self._clock()
        found: dict[Tags, EventKey | None] = {}
        for group in groups:
            known = self._event_keys.get((partition, group))
            if known is not None and known[0] > now:
                found[group] = known[1]
        return found, groups - found.keys()

    def _remember(
        self, partition: Partition, groups: set[Tags], taken: dict[str, bytes | None]
    ) -> dict[Tags, EventKey | None]:
        if len(self._event_keys) >= _REMEMBER_AT_MOST:
            self._event_keys.clear()
        until = self._clock() + self._cache_seconds
        made: dict[Tags, EventKey | None] = {}
        for group in groups:
            keys = [key for tag in group if (key := taken[tag]) is not None]
            made[group] = sealing.event_key(keys) if len(keys) == len(group) else None
            self._event_keys[(partition, group)] = (until, made[group])
        return made

    def _unlocked(self) -> MasterKeys:
        if self._master is None:
            raise VaultLocked("there is no master key: set CG_VAULT__MASTER_KEY")
        return self._master


def _tag(subject: Subject, pepper: bytes) -> str:
    digest = blake2b(f"{subject.kind}\0{subject.id}".encode(), digest_size=TAG_BYTES, key=pepper).digest()
    return urlsafe_b64encode(digest).decode()


def _place(partition: Partition, tag: str) -> str:
    return f"{partition}/{tag}"
