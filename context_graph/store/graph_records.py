"""What Stage 1 keeps beside nodes and timelines: first appearances in sessions, receipts, opinions, summaries.

Every write is a fact that may be repeated and come in any order: members of sets, the lowest position of an appearance,
the newest opinion of a receipt. They go into the pipeline that writes the graph.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from context_graph.domain.graph import GraphDelta
from context_graph.domain.position import Position
from context_graph.store.connection import RedisClient
from context_graph.store.keys import GraphKeys
from context_graph.store.learned_records import put_learned

_USER = "user:"


class GraphRecords:
    """Writes the records of any partition."""

    def __init__(self, redis: RedisClient) -> None:
        scripts = files("context_graph.store").joinpath("lua")
        self._first_seen = redis.register_script(scripts.joinpath("first_seen.lua").read_text())
        self._put_greatest = redis.register_script(scripts.joinpath("put_greatest.lua").read_text())
        self._opine = redis.register_script(scripts.joinpath("opine.lua").read_text())

    async def put(self, pipe: Any, keys: GraphKeys, delta: GraphDelta) -> None:
        """Add the delta's records to a pipeline."""
        for (of, identifier), receipts in delta.receipts.items():
            pipe.zadd(keys.receipts(of, identifier), dict.fromkeys(sorted(receipts), 0))
        for scope, summaries in delta.versions.items():
            pipe.zadd(keys.versions(scope), dict.fromkeys(sorted(summaries), 0))
        for session_id, seen in delta.first_seen.items():
            fields = [text for what, position in seen.items() for text in (what, position.sort_key)]
            await self._first_seen(keys=[keys.session(session_id)], args=fields, client=pipe)
        if delta.first_seen:
            started = {session_id: _order(min(seen.values())) for session_id, seen in delta.first_seen.items()}
            pipe.zadd(keys.started, started, lt=True)
        for session_id, seen in delta.first_seen.items():
            for what in seen:
                if what.startswith(_USER):
                    pipe.zadd(keys.sessions_of(what.removeprefix(_USER)), {session_id: 0})
        put_learned(pipe, keys, delta)
        if delta.pins:
            pins = [text for pin in delta.pins.values() for text in (pin.event_id, pin.value)]
            await self._put_greatest(keys=[keys.pins], args=pins, client=pipe)
            pipe.zadd(keys.pin_decisions, dict.fromkeys(sorted(delta.pin_decisions), 0))
        for event_id, opinions in delta.opinions.items():
            said = sorted((opinion.origin_id, opinion.position.sort_key, opinion.verdict) for opinion in opinions)
            args = [event_id, *(part for row in said for part in row)]
            await self._opine(keys=[keys.feedback(event_id), keys.opined], args=args, client=pipe)


def _order(position: Position) -> int:
    """A score that orders as positions do: 41 bits of ms and 12 of sequence are what a double holds exactly.

    More than 4,096 events of one millisecond count as the same.
    """
    return position.ms << 12 | min(position.seq, 4095)
