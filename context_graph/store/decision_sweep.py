"""The sweep of decisions about entities: those whose event nobody can open any more.

A merge or split names people, so its event is sealed with the keys of those whom its names are known from
(`resolution/entities.py`). What it decided leaves graph and index with the first of them that is erased, as a rebuild
that cannot read the event leaves it out.
"""

from __future__ import annotations

from typing import Any, cast

import orjson

from context_graph.domain.position import Position
from context_graph.store import sealing
from context_graph.store.connection import RedisClient
from context_graph.store.keys import GraphKeys, PartitionKeys

_PAGE = 500


class DecisionSweep:
    """Sweeps the decisions of any partition."""

    def __init__(self, ledger: RedisClient, derived: RedisClient) -> None:
        self._ledger = ledger
        self._derived = derived

    async def sweep(self, keys: GraphKeys) -> int:
        """Remove the decisions whose events are sealed with a key that is no more. Returns how many rows went."""
        swept, start = 0, 0
        while members := cast(
            "list[bytes]", await self._derived.zrange(keys.entity_decisions, start, start + _PAGE - 1)
        ):
            gone = await self._unreadable(keys, members)
            if gone:
                swept += int(await self._derived.zrem(keys.entity_decisions, *gone))
            start += len(members) - len(gone)
        return swept

    async def _unreadable(self, keys: GraphKeys, members: list[bytes]) -> list[bytes]:
        ledger = PartitionKeys(keys.partition)
        pipe = self._ledger.pipeline(transaction=False)
        for member in members:
            _, _, said = orjson.loads(member.decode().split("\0", 3)[3])[:3]
            place = Position.parse(said).stream_id
            pipe.xrange(ledger.ledger, place, place)
        tags = [
            {tag for _, values in entries for tag in _tags(values.get(b"e", b""))} for entries in await pipe.execute()
        ]
        every = sorted({tag for some in tags for tag in some})
        held: Any = await self._ledger.hmget(ledger.vault, every) if every else []
        lost = {tag for tag, key in zip(every, held, strict=True) if key is None}
        return [member for member, some in zip(members, tags, strict=True) if lost & some]


def _tags(body: bytes) -> tuple[str, ...]:
    return sealing.tags_of(body) if sealing.is_sealed(body) else ()
