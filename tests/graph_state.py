"""A whole generation of what is derived, as plain values: to compare, to print, to hash.

Keys are named without tenant and generation, so that two of either can be compared.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import orjson

from context_graph.domain.partition import Partition
from context_graph.store.connection import RedisClient
from context_graph.store.keys import GraphKeys

State = dict[str, dict[str, str]]
"""Key without its prefix -> field or member -> value or score, as text; bytes that are no text as hex."""

_STAGE_ONE_KEYS = (
    "event:", "effects:", "summary:", "timeline:", "registry:", "session:", "started", "receipts:", "versions:",
    "feedback:", "opined", "sessions-of:", "pins", "pin-decisions", "fact:", "facts:", "superseded:",
)  # fmt: skip
_STAGE_TWO_FIELDS = {"entities", "mentions"}


async def graph_state(redis: RedisClient, partition: Partition, generation: int = 1) -> State:
    """Everything of one generation of a partition, both stages'. For tests: it scans."""
    prefix = f"{GraphKeys(partition, generation).tag}:"
    state: State = {}
    raw: Any
    async for raw in redis.scan_iter(match=f"{prefix}*", count=1000):
        kind: Any = await redis.type(raw)
        if kind == b"hash":
            fields: Any = await redis.hgetall(raw)
            found = {_text(name): _text(value) for name, value in fields.items()}
        else:
            assert kind == b"zset", (raw, kind)
            members: Any = await redis.zrange(raw, 0, -1, withscores=True)
            found = {_text(member): repr(float(score)) for member, score in members}
        state[raw.decode().removeprefix(prefix)] = found
    return state


def stage_one(state: State) -> State:
    """What Stage 1 owns of a state: entities and what the enrichment adds to events left out."""
    mine: State = {}
    for key, fields in state.items():
        if not key.startswith(_STAGE_ONE_KEYS) or key.startswith("timeline:entity:") or key == "registry:entity":
            continue
        left = {name: value for name, value in fields.items() if name not in _STAGE_TWO_FIELDS}
        if left or not key.startswith("event:"):
            mine[key] = left
    return mine


def stage_two(state: State) -> State:
    """What the enrichment owns of a state: all that `stage_one` leaves."""
    first = stage_one(state)
    rest = {key: _without(fields, first.get(key, {})) for key, fields in state.items()}
    return {key: fields for key, fields in rest.items() if fields}


def state_hash(state: State) -> str:
    """32 hex digits that are equal exactly when the states are."""
    return blake2b(orjson.dumps(state, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def _without(fields: dict[str, str], others: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name not in others}


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()
