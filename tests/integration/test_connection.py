"""Connections to Redis: what a task in the middle of a command does when it is told to stop."""

from __future__ import annotations

import asyncio

import pytest

from context_graph.store.connection import RedisClient, open_redis


async def _ping_for_ever(client: RedisClient) -> None:
    while True:
        await client.ping()


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_cancellation_at_any_moment_of_a_command_ends_the_task(redis_url: str, waiting: bool) -> None:
    gone_on: list[int] = []
    async with open_redis(redis_url, waiting=waiting) as client:
        for turns in range(1, 200):
            task = asyncio.create_task(_ping_for_ever(client), name="pings")
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=2)
            if not done:
                gone_on.append(turns)
                task.cancel()
                await asyncio.wait({task}, timeout=2)
    assert gone_on == []
