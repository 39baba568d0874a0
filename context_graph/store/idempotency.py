"""Answers kept for `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).

One string a key: while the first request runs, its mark with a short life, so that a crash frees the key by itself;
then its answer, compressed, for as long as the settings say. Who finds a mark or an answer learns which body it was
made for. What runs twice after a crash does no harm: events are deduplicated by their ids.

An answer holds no payload, but its explanations may quote one (`"x" is not one of …`). An erasure therefore takes the
explanations out of every kept answer of its tenant; ids, statuses and positions stay, so a repeat stays a repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from typing import Any, cast

import orjson
import zstandard

from context_graph.domain.event import TenantId
from context_graph.store.connection import RedisClient, store_errors
from context_graph.store.keys import idempotency

_RUNNING_MS = 60_000  # a request that takes longer has lost its client; its events are deduplicated all the same
_COMPRESS_FROM = 512  # bytes
_RAW, _ZSTD = b"r", b"z"
_LOOK_AGAIN = 0.05  # seconds
_LEFT_OUT = "left out since somebody was erased"


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer as it was given."""

    status: int
    media_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Running:
    """This request is the first: it runs, then calls `finish` with this."""

    key: str
    mark: bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """The key is another request's. `same_body`: of the same content; `answer`: None while that one runs."""

    same_body: bool
    answer: KeptAnswer | None


class IdempotencyKeys:
    """Idempotency keys of any tenant. `token` gives text that no other request has."""

    def __init__(self, redis: RedisClient, lifetime_seconds: int, token: Callable[[], str]) -> None:
        self._redis = redis
        self._lifetime_ms = lifetime_seconds * 1000
        self._token = token
        source = files("context_graph.store").joinpath("lua/idempotency_finish.lua").read_text()
        self._finish = redis.register_script(source)

    async def begin(self, tenant: TenantId, route: str, key: str, body: bytes) -> Running | Taken:
        """Take the key for this body, or say who has it. Keys of other tenants and routes are other keys.

        Raises StoreUnavailable.
        """
        name = idempotency(tenant, blake2b(f"{route}\n{key}".encode(), digest_size=16).hexdigest())
        fingerprint = blake2b(body, digest_size=16).hexdigest()
        mark = orjson.dumps({"body": fingerprint, "token": self._token()}) + b"\n"
        with store_errors("taking an idempotency key"):
            known: Any = await self._redis.set(name, mark, nx=True, get=True, px=_RUNNING_MS)
        return Running(name, mark) if known is None else _taken(cast("bytes", known), fingerprint)

    async def finish(self, running: Running, answer: KeptAnswer | None) -> None:
        """Keep the answer, or free the key (None) so that the next try runs. Raises StoreUnavailable."""
        value = b""
        if answer is not None:
            fingerprint = orjson.loads(running.mark)["body"]
            head = {"body": fingerprint, "status": answer.status, "media_type": answer.media_type}
            value = orjson.dumps(head) + b"\n" + _packed(answer.body)
        with store_errors("keeping an answer"):
            await self._finish(keys=[running.key], args=[running.mark, value, self._lifetime_ms])

    async def leave_explanations_out(self, tenant: TenantId) -> int:
        """Take what may quote an event out of every kept answer; returns how many were changed.

        Answers of requests that run meanwhile are waited for: they may be about what was appended before.
        Raises StoreUnavailable.
        """
        with store_errors("looking through kept answers"):
            names: list[bytes] = [name async for name in self._redis.scan_iter(idempotency(tenant, "*"), count=1000)]
        changed = 0
        while names:
            running: list[bytes] = []
            for name in names:
                with store_errors("looking through kept answers"):
                    known: Any = await self._redis.get(name)
                    left: Any = await self._redis.pttl(name)
                if known is None:
                    continue
                line, _, rest = known.partition(b"\n")
                if b'"status"' not in line:
                    running.append(name)
                elif (bare := _without_explanations(_unpacked(rest))) is not None:
                    with store_errors("leaving explanations out of a kept answer"):
                        value = line + b"\n" + _packed(bare)
                        changed += await self._finish(keys=[name], args=[known, value, max(left, 1)])
            names = running
            if names:
                await asyncio.sleep(_LOOK_AGAIN)  # a mark lives a minute at most
        return changed


def _without_explanations(body: bytes) -> bytes | None:
    """The answer of a single event or a batch without warnings and details; None when it has none."""
    answer: Any = orjson.loads(body)
    changed = False
    for result in (answer, *answer.get("results", ())):
        changed |= result.pop("warnings", None) is not None
        problem = result.get("problem")
        if problem is not None and problem.get("detail") != _LEFT_OUT:
            problem.pop("errors", None)
            problem["detail"] = _LEFT_OUT
            changed = True
    return orjson.dumps(answer) if changed else None


def _taken(known: bytes, fingerprint: str) -> Taken:
    line, _, rest = known.partition(b"\n")
    head = orjson.loads(line)
    same = head["body"] == fingerprint
    if "status" not in head:
        return Taken(same, None)
    return Taken(same, KeptAnswer(int(head["status"]), str(head["media_type"]), _unpacked(rest)))


def _packed(body: bytes) -> bytes:
    return _RAW + body if len(body) < _COMPRESS_FROM else _ZSTD + zstandard.ZstdCompressor().compress(body)


def _unpacked(kept: bytes) -> bytes:
    return kept[1:] if kept[:1] == _RAW else zstandard.ZstdDecompressor().decompress(kept[1:])
