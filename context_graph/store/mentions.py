"""Which entities events mention: Stage 2's fields of an event's hash, read for many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from context_graph.domain.edges import Mentioned
from context_graph.domain.partition import Partition
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.entities import EVENT_ENTITIES, EVENT_MENTIONS
from context_graph.store.graph import Graph


class Mentions:
    """Reads the mentions of any partition's events."""

    def __init__(self, redis: RedisClient, graph: Graph) -> None:
        self._redis = redis
        self._graph = graph

    async def of(self, partition: Partition, ids: Sequence[str]) -> dict[str, tuple[Mentioned, ...]]:
        """The entities that these events mention, of those that mention any; one round trip."""
        keys = await self._graph.keys(partition)
        pipe: Any = self._redis.pipeline(transaction=False)
        for event_id in ids:
            pipe.hmget(keys.event(event_id), [EVENT_ENTITIES, EVENT_MENTIONS])
        with store_errors("reading mentions"):
            answers: Any = await pipe.execute() if ids else []
        return {
            event_id: tuple(
                Mentioned(entity_id, shown[0], shown[1], len(shown[2:]) // 2)
                for entity_id, shown in zip(orjson.loads(entities), orjson.loads(mentions), strict=True)
            )
            for event_id, (entities, mentions) in zip(ids, answers, strict=True)
            if entities is not None and mentions is not None
        }
