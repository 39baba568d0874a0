"""Lua scripts in pipelines: sent by their hash, loaded where the server has forgotten them.

redis-py's own scripts ask the server before every pipeline which of them it knows: a round trip that a loop which
polls its partitions would pay each time. Here only a server that was restarted or flushed costs one.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from context_graph.store.connection import RedisClient


class PipelinedScript:
    """One script, run for many keys in one round trip."""

    def __init__(self, redis: RedisClient, name: str) -> None:
        """`name`: the file in `lua/`."""
        self._redis = redis
        self._source = files("context_graph.store").joinpath("lua", name).read_text()
        self._sha = sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, calls: Sequence[tuple[Sequence[str], Sequence[str | bytes | int]]]) -> list[Any]:
        """The answer to each call (keys, arguments); an error of a single call is its answer."""
        answers = await self._send(calls)
        forgotten = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if forgotten:
            whole = [calls[i] for i in forgotten]
            for index, answer in zip(forgotten, await self._send(whole, with_source=True), strict=True):
                answers[index] = answer
        return answers

    async def one(self, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        """The answer to one call. Raises what the server answers with."""
        [answer] = await self.run([(keys, arguments)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _send(
        self, calls: Sequence[tuple[Sequence[str], Sequence[str | bytes | int]]], *, with_source: bool = False
    ) -> list[Any]:
        """`with_source`: the script itself goes with each call, which works whatever the server has forgotten."""
        pipe = self._redis.pipeline(transaction=False)
        for keys, arguments in calls:
            if with_source:
                pipe.eval(self._source, len(keys), *keys, *arguments)
            else:
                pipe.evalsha(self._sha, len(keys), *keys, *arguments)
        return list(await pipe.execute(raise_on_error=False)) if calls else []
