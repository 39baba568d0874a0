"""Erasures: the record of each, and its first and irrevocable step.

The record is written before anything is destroyed, so that an erasure that was begun is always finished by somebody
(`delivery/erasing.py`). The name of the subject is in it only until then. Records lie in a tenant's first partition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, cast

import orjson

from context_graph.domain.erasure import Erasure, Removal, Strike, Subject
from context_graph.domain.event import ERASURE_TYPE, Envelope, EventId, SessionId
from context_graph.domain.partition import Partition, Tenant
from context_graph.store import codec
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import PartitionKeys
from context_graph.store.ledger import Appendable, Ledger
from context_graph.store.sweeping import HIDDEN_KINDS
from context_graph.store.vault import Vault

_SERVICE = "context-graph"  # agent and session of the tombstones


class Erasures:
    """The erasures of any tenant."""

    def __init__(self, redis: RedisClient, vault: Vault, ledger: Ledger) -> None:
        self._redis = redis
        self._vault = vault
        self._ledger = ledger

    async def get(self, tenant: Tenant, erasure_id: str) -> Erasure | None:
        """The erasure of that id as it stands, or None."""
        with store_errors("reading an erasure"):
            names = [erasure_id, *(_hidden(erasure_id, kind) for kind in HIDDEN_KINDS)]
            raw, *counts = cast("list[bytes | None]", await self._redis.hmget(_keys(tenant).erasures, names))
        hidden = {kind: int(count) for kind, count in zip(HIDDEN_KINDS, counts, strict=True) if count is not None}
        return None if raw is None else replace(_decoded(raw), hidden=hidden)

    async def of(self, tenant: Tenant, subject: Subject) -> Erasure | None:
        """The erasure of a subject, or None when it was never erased. Raises StoreUnavailable, LedgerBehind."""
        for partition in _partitions(tenant, subject):  # asking makes a tag, which a restore must find unmade
            await self._ledger.check_whole(partition)
        known = await self._vault.erasure_of(_partitions(tenant, subject)[0], subject)
        return None if known is None else await self.get(tenant, known)

    async def add_hidden(self, tenant: Tenant, erasure_id: str, removed: Mapping[str, int]) -> None:
        """Count what was removed ahead of the sweep: by whoever it was, beside the record, which the sweep writes."""
        pipe = self._redis.pipeline(transaction=True)
        for kind, count in removed.items():
            pipe.hincrby(_keys(tenant).erasures, _hidden(erasure_id, kind), count)
        with store_errors("recording an erasure"):
            await pipe.execute()

    async def running(self, tenant: Tenant) -> list[Erasure]:
        """Those that are not done, oldest first."""
        keys = _keys(tenant)
        with store_errors("reading the erasures"):
            ids: Any = await self._redis.smembers(keys.erasing)
            raws: Any = await self._redis.hmget(keys.erasures, sorted(ids)) if ids else []
        return sorted((_decoded(raw) for raw in raws if raw is not None), key=lambda erasure: erasure.requested_at)

    async def begin(self, tenant: Tenant, erasure: Erasure) -> Erasure:
        """Keep the record, then strike."""
        with store_errors("recording an erasure"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(_keys(tenant).erasures, erasure.id, _encoded(erasure))
                pipe.sadd(_keys(tenant).erasing, erasure.id)
                await pipe.execute()
        return await self.strike(tenant, erasure)

    async def strike(self, tenant: Tenant, erasure: Erasure) -> Erasure:
        """Destroy the subject's keys and append the tombstones; after this nothing can open what was sealed.

        Repeating it after an interruption changes nothing. Raises StoreUnavailable, VaultLocked.
        """
        if erasure.subject is None:
            return erasure
        subject = Subject(erasure.kind, erasure.subject)
        done = {strike.partition: strike for strike in erasure.strikes}
        for partition in _partitions(tenant, subject):
            if str(partition) not in done:
                done[str(partition)] = await self._strike_in(partition, erasure, subject)
                erasure = replace(erasure, strikes=tuple(done.values()))
                await self._keep(tenant, erasure)
        return erasure

    async def _strike_in(self, partition: Partition, erasure: Erasure, subject: Subject) -> Strike:
        await self._ledger.check_whole(partition)  # before a tag is made that an archive to be restored does not know
        _, tag, strike = await self._vault.destroy(partition, subject, erasure.id)
        tombstone = Envelope(
            event_id=EventId(erasure.id),
            event_type=ERASURE_TYPE,
            session_id=SessionId(_SERVICE),
            agent_id=_SERVICE,
            occurred_at=erasure.requested_at,
            origin="derived",
            payload={"kind": erasure.kind, "tag": tag},
        )
        event = Appendable(tombstone.event_id, tombstone.session_id, codec.encode(tombstone), clear=True)
        (appended,) = await self._ledger.append(partition, [event])
        return replace(strike, position=str(appended.position))

    async def finish(self, tenant: Tenant, erasure: Erasure, finished_at: int) -> Erasure:
        """The certificate: the erasure done, without the subject's name."""
        done = replace(erasure, state="done", subject=None, finished_at=finished_at, waits_for=None)
        with store_errors("finishing an erasure"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(_keys(tenant).erasures, done.id, _encoded(done))
                pipe.srem(_keys(tenant).erasing, done.id)
                await pipe.execute()
        return done

    async def keep_waiting(self, tenant: Tenant, erasure: Erasure, reason: str) -> None:
        """Why an erasure cannot be finished now, for whoever asks for its certificate."""
        if erasure.waits_for != reason:
            await self._keep(tenant, replace(erasure, waits_for=reason))

    async def keep(self, tenant: Tenant, erasure: Erasure) -> None:
        """What was removed while it waits, and what became of the servers' files after the certificate was written."""
        await self._keep(tenant, erasure)

    async def _keep(self, tenant: Tenant, erasure: Erasure) -> None:
        with store_errors("recording an erasure"):
            await self._redis.hset(_keys(tenant).erasures, erasure.id, _encoded(erasure))


def _partitions(tenant: Tenant, subject: Subject) -> tuple[Partition, ...]:
    """A session lives in one partition, a person in all."""
    return (tenant.partition_of(SessionId(subject.id)),) if subject.kind == "session" else tenant.partitions


def _keys(tenant: Tenant) -> PartitionKeys:
    return PartitionKeys(tenant.partitions[0])


def _hidden(erasure_id: str, kind: str) -> str:
    """The field beside an erasure's record that counts what was hidden of a kind."""
    return f"{erasure_id}:hidden:{kind}"


def _encoded(erasure: Erasure) -> bytes:
    return orjson.dumps({name: value for name, value in asdict(erasure).items() if name != "hidden"})


def _decoded(raw: bytes) -> Erasure:
    fields: dict[str, Any] = orjson.loads(raw)
    fields["strikes"] = tuple(Strike(**strike) for strike in fields["strikes"])
    fields["removals"] = tuple(Removal(**removal) for removal in fields["removals"])
    return Erasure(**fields)
