"""The live tail: every event once and in order, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from context_graph.bootstrap import open_resources
from context_graph.settings import Settings
from context_graph.store.keys import WAKE_CHANNEL, PartitionKeys
from tests.api_process import api_process
from tests.events import event, post_all, settled
from tests.service import Service
from tests.sse import Message, tailing


async def taken(messages: AsyncIterator[Message], count: int) -> list[Message]:
    """The next messages with data."""
    found: list[Message] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            message = await anext(messages)
            if message.data is not None:
                found.append(message)
    return found


def ids(messages: list[Message]) -> list[str]:
    return [message.data["event_id"] for message in messages if message.data is not None]


async def test_a_tail_begins_now_and_goes_on_behind_the_last_id(http: httpx2.AsyncClient) -> None:
    await post_all(http, [event(1)])
    async with tailing(http) as messages:
        first = await anext(messages)
        assert (first.data, first.id != "") == (None, True)
        await post_all(http, [event(2), event(3)])
        seen = await taken(messages, 2)
    assert ids(seen) == ["e2", "e3"]
    assert seen[0].data is not None
    assert seen[0].data == (await http.get("/v1/events/e2")).json()
    assert seen[0].id == seen[0].data["position"]
    await post_all(http, [event(4)])
    async with tailing(http, last_event_id=seen[0].id, after="0-0-0") as messages:
        assert ids(await taken(messages, 2)) == ["e3", "e4"]
    async with tailing(http, last_event_id=first.id) as messages:
        assert ids(await taken(messages, 3)) == ["e2", "e3", "e4"]
    async with tailing(http, after="0-0-0") as messages:
        assert ids(await taken(messages, 4)) == ["e1", "e2", "e3", "e4"]


async def test_a_tail_of_a_session_or_a_type_has_nothing_else(http: httpx2.AsyncClient) -> None:
    batch = [
        event(number, session_id=f"s{number % 3}", event_type="tool.call" if number % 2 else "user.message")
        for number in range(300)
    ]
    await post_all(http, batch)
    async with tailing(http, after="0-0-0", session_id="s1", event_type="tool.call") as messages:
        seen = ids(await taken(messages, 50))
        await post_all(http, [event(300, session_id="s0"), event(301, session_id="s1"), event(302, session_id="s1")])
        await post_all(http, [event(303, session_id="s1", event_type="tool.call")])
        last = ids(await taken(messages, 1))
    assert seen == [one["event_id"] for one in batch if one["session_id"] == "s1" and one["event_type"] == "tool.call"]
    assert last == ["e303"]


@pytest.mark.parametrize("buckets", [1, 3])
async def test_every_event_comes_once_and_in_order_while_the_reader_keeps_breaking_off(
    service: Service, buckets: int
) -> None:
    async with open_resources(service.settings) as resources:
        tenant = await resources.tenants.ensure(f"t{secrets.token_hex(6)}", buckets)
        key = await resources.api_keys.create(tenant.name, name="test")
    dice = random.Random(7)
    count = 1200
    async with service.client(key) as http, asyncio.TaskGroup() as tasks:
        writers = [tasks.create_task(_write(http, writer, count // 4)) for writer in range(4)]
        seen, connections = await _read_with_breaks(http, count, dice)
        posted = [one for writer in writers for one in await writer]
    assert connections > 10
    assert len(seen) == len(set(seen)) == count
    place = {item["event_id"]: tuple(int(part) for part in item["position"].split("-")) for item in posted}
    assert place.keys() == set(seen)
    for bucket in range(buckets):
        mine = [place[event_id] for event_id in seen if place[event_id][0] == bucket]
        assert mine == sorted(mine)
        assert mine


async def _write(http: httpx2.AsyncClient, writer: int, count: int) -> list[dict[str, Any]]:
    posted: list[dict[str, Any]] = []
    for first in range(0, count, 5):
        batch = [event(n, event_id=f"w{writer}-{n}", session_id=f"s{n % 11}") for n in range(first, first + 5)]
        posted += await post_all(http, batch)
    return posted


async def _read_with_breaks(http: httpx2.AsyncClient, count: int, dice: random.Random) -> tuple[list[str], int]:
    """Read until all have come; each connection is dropped after some messages."""
    seen: list[str] = []
    last: str | None = None
    connections = 0
    async with asyncio.timeout(90):
        while len(seen) < count:
            connections += 1
            left = dice.randint(0, 120)
            query = {"after": "0-0-0"} if last is None else {}
            async with tailing(http, last_event_id=last, **query) as messages:
                async for message in messages:
                    last = message.id
                    if message.data is not None:
                        seen.append(message.data["event_id"])
                    left -= 1
                    if left < 0 or len(seen) >= count:
                        break
    return seen, connections


async def test_a_place_that_was_trimmed_is_a_gap_and_the_rest_follows(
    service: Service, http: httpx2.AsyncClient
) -> None:
    results = await post_all(http, [event(number) for number in range(10)])
    await settled(http, results)  # what the stages had not read would be lost, and the service not ready
    async with open_resources(service.settings) as resources:
        tenant = await resources.tenants.ensure(service.tenant, 1)
        key = PartitionKeys(tenant.partitions[0]).ledger
        ms, seq = results[6]["position"].split("-")[1:]
        await resources.ledger_redis.xtrim(key, minid=f"{ms}-{seq}", approximate=False)
    async with tailing(http, last_event_id=results[2]["position"]) as messages:
        gap, *rest = await taken(messages, 5)
    assert (gap.event, ids(rest)) == ("gap", ["e6", "e7", "e8", "e9"])
    assert gap.data is not None
    assert gap.data["after"] == results[2]["position"]
    async with tailing(http, last_event_id=gap.id) as messages:
        assert ids(await taken(messages, 4)) == ["e6", "e7", "e8", "e9"]


@pytest.mark.parametrize(("headers", "query", "pointer"), [
    ({"Last-Event-ID": "yesterday"}, {}, "/Last-Event-ID"),
    ({}, {"after": "yesterday"}, "/after"),
    ({}, {"after": "7-1-1"}, "/after"),
])  # fmt: skip
async def test_a_place_that_is_none_is_refused_before_the_stream_begins(
    http: httpx2.AsyncClient, headers: dict[str, str], query: dict[str, str], pointer: str
) -> None:
    answer = await http.get("/v1/events/tail", headers=headers, params=query)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


async def test_a_stranger_gets_no_stream(service: Service) -> None:
    async with service.client("cg_wrong") as stranger:
        assert (await stranger.get("/v1/events/tail")).status_code == 401


async def test_open_tails_end_when_the_api_stops(tmp_path: Path, redis_url: str) -> None:
    async with api_process(tmp_path, redis_url) as api, api.client() as http:
        async with tailing(http) as messages, aclosing(messages):  # type: ignore[type-var]
            await anext(messages)
            os.kill(api.child.pid, signal.SIGTERM)
            async with asyncio.timeout(5):
                assert [message async for message in messages if message.data is not None] == []
        async with asyncio.timeout(5):
            while api.child.exit_code is None:
                await asyncio.sleep(0.02)
        assert api.child.exit_code == 0
        log = (tmp_path / "api.log").read_text()
        assert "graceful shutdown exceeded" not in log
        assert "Traceback" not in log


async def test_a_tail_ends_soon_after_its_key_was_revoked(tmp_path: Path, redis_url: str) -> None:
    soon = {"CG_READS__TAIL_POLL_SECONDS": "0.1", "CG_READS__TAIL_RECHECK_SECONDS": "0.1"}
    async with (
        api_process(tmp_path, redis_url, environment=soon) as api,
        api.client() as http,
        tailing(http) as messages,
    ):
        await anext(messages)
        async with open_resources(Settings(redis_url=SecretStr(redis_url), data_dir=tmp_path)) as resources:
            for known in await resources.api_keys.listed():
                await resources.api_keys.revoke(known.id)
        async with asyncio.timeout(10):
            assert [message async for message in messages if message.data is not None] == []
        assert (await http.get("/v1/events/tail")).status_code == 401


async def test_many_tails_share_one_subscription_and_wake_at_once(service: Service, http: httpx2.AsyncClient) -> None:
    stages = await _subscriptions(service)
    async with asyncio.TaskGroup() as tasks:
        ready = asyncio.Semaphore(0)

        async def follow() -> float:
            async with service.client() as client, tailing(client) as messages:
                await anext(messages)
                ready.release()
                await taken(messages, 1)
                return asyncio.get_running_loop().time()

        followers = [tasks.create_task(follow()) for _ in range(20)]
        for _ in followers:
            await ready.acquire()
        subscribed = await _subscriptions(service)
        began = asyncio.get_running_loop().time()
        await post_all(http, [event(1)])
        latest = max([await follower for follower in followers])
    assert latest - began < 2.0
    assert subscribed - stages <= 1


async def _subscriptions(service: Service) -> int:
    async with open_resources(service.settings) as resources:
        answer: Any = await resources.ledger_redis.pubsub_numsub(WAKE_CHANNEL)
    return int(answer[0][1])


async def test_entries_that_are_no_events_are_told_and_hide_nothing_behind_them(
    service: Service, http: httpx2.AsyncClient
) -> None:
    await post_all(http, [event(1)])
    async with open_resources(service.settings) as resources:
        [partition] = (await resources.tenants.ensure(service.tenant, 1)).partitions
        ledger = PartitionKeys(partition).ledger
        placed: list[Any] = [
            await resources.ledger_redis.xadd(ledger, {"x": "1"}),
            await resources.ledger_redis.xadd(ledger, {"e": "garbage"}),
        ]
    await post_all(http, [event(2)])
    bad = [f"0-{stream_id.decode()}" for stream_id in placed]
    async with tailing(http, after="0-0-0") as messages:
        found = await taken(messages, 4)
    assert [message.event for message in found] == ["message", "unreadable", "unreadable", "message"]
    told = [message.data for message in found if message.data is not None]
    assert [data.get("event_id") or data["position"] for data in told] == ["e1", *bad, "e2"]
    for order in ({"order": "asc"}, {"order": "desc"}):
        page = (await http.get("/v1/events", params=order)).json()
        assert {each["event_id"] for each in page["events"]} == {"e1", "e2"}
        assert page["meta"]["unreadable"] == 2
    after = (await http.get("/v1/events", params={"after": bad[0]})).json()
    assert [each["event_id"] for each in after["events"]] == ["e2"]
