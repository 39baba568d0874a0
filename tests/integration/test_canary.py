"""Of fifty people one is erased: what was said about that one is nowhere, then, later, and after the loss of Redis.

A service of its own with an archive. RDB compression is off, so that a search through the server's files sees what they
hold.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import zstandard
from pydantic import SecretStr

from context_graph.bootstrap import Resources, open_resources
from context_graph.domain.erasure import Subject
from context_graph.domain.partition import Partition
from context_graph.domain.position import Position
from context_graph.domain.stages import STAGES
from context_graph.local.redis_server import EmbeddedRedis, embedded_redis
from context_graph.settings import ArchiveSettings, DeliverySettings, Settings, VaultSettings
from context_graph.store.keys import GraphKeys, PartitionKeys
from enrichment.reconsolidation.run import consolidate
from tests.events import event, post_all, settled
from tests.graph_state import State, graph_state
from tests.integration.conftest import MASTER_KEY
from tests.integration.test_erasure_api import everything, files_of, found
from tests.service import own_service
from tests.waiting import until

PEOPLE = 50
EACH = 3
ERASED = 17
LEFT_BEHIND = 7  # a generation that some rebuild has left


@dataclass(frozen=True, slots=True)
class World:
    """The service's settings, server and archive; who is erased, and what only that one's events hold."""

    settings: Settings
    server: EmbeddedRedis
    archive: Path
    canary: str
    person: str

    @property
    def traces(self) -> tuple[bytes, ...]:
        return self.canary.encode(), self.person.encode()

    def on_disk(self) -> dict[str, bytes]:
        """Files of server and archive, segments also as what they were made of."""
        held = {"redis": files_of(self.server)}
        for path in self.archive.rglob("*"):
            if path.is_file():
                held[path.name] = path.read_bytes()
            if path.suffix == ".zst":
                with path.open("rb") as file:
                    reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
                    held[f"{path.name}, unpacked"] = reader.read()
        return held

    async def assert_gone(self, resources: Resources) -> None:
        remains = await everything(resources.ledger_redis)
        for trace in self.traces:
            assert trace not in remains
            assert [name for name, data in self.on_disk().items() if trace in data] == []


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with embedded_redis(tmp_path / "redis") as server:
        settings = Settings(
            redis_url=SecretStr(server.url),
            data_dir=tmp_path / "service",
            delivery=DeliverySettings(poll_seconds=0.1, backoff_seconds=0.05),
            log_level="error",
            tenant="acme",
            vault=VaultSettings(master_key=SecretStr(MASTER_KEY)),
            archive=ArchiveSettings(url=f"file://{tmp_path}/archive", keep_events=1_000_000),
        )
        yield World(
            settings, server, tmp_path / "archive", f"canary{secrets.token_hex(5)}", f"person-{secrets.token_hex(5)}"
        )


def said(world: World) -> Iterator[dict[str, Any]]:
    """Three events about each of fifty people, five people to a session."""
    for number in range(PEOPLE * EACH):
        place, turn = divmod(number, EACH)
        person = world.person if place == ERASED else f"customer-{place:02d}"
        word = world.canary if place == ERASED else f"parcel{place:02d}x"
        payload: dict[str, Any] = {"text": f"Where is {word}, please? It was sent to Berlin by Microsoft."}
        fields: dict[str, Any] = {"user_id": person, "session_id": f"s{place % 10}", "payload": payload}
        if turn == 1:
            fields |= {"event_type": "tool.result", "tool_name": "track", "payload": {"result": {"parcel": word}}}
        yield event(number, **fields)


async def archive_command(world: World, *words: str) -> str:
    """`context-graph archive …` as an operator runs it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CG_")}
    mine = {
        "CG_REDIS_URL": world.server.url, "CG_ARCHIVE__URL": str(world.settings.archive.url),
        "CG_ARCHIVE__SETTLE_SECONDS": "0", "CG_ARCHIVE__KEEP_EVENTS": "1000000", "CG_ARCHIVE__SEGMENT_EVENTS": "60",
        "CG_VAULT__MASTER_KEY": MASTER_KEY,
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "context_graph.cli.main", "archive", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=kept | mine,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def quoted_everywhere(world: World, http: httpx2.AsyncClient, resources: Resources, partition: Partition) -> str:
    """Have the canary in all that may quote it; returns the Idempotency-Key of a kept answer."""
    schema = {"type": "object", "properties": {"state": {"enum": ["new", "sent"]}}}
    assert (await http.put("/v1/schemas/parcel.state/1", json=schema)).status_code == 201
    odd = event(900, event_type="parcel.state", user_id=world.person, payload={"state": world.canary})
    kept = await http.post("/v1/events", json=odd, headers={"Idempotency-Key": "kept"})
    assert world.canary in kept.text  # a warning quotes the value
    results = await post_all(http, list(said(world)))
    await settled(http, results)
    assert (await consolidate(resources, partition, "test")).summarised > 0
    served = await http.post("/v1/context", json={"query": f"where is {world.canary}?", "token_budget": 500})
    assert world.canary in served.text
    last = await resources.ledger.last(partition)
    await settled(http, [{"position": str(last)}])
    await resources.dead_letters.bury(
        partition, "projection", Position.parse(results[ERASED * EACH]["position"]),
        event_id=f"e{ERASED * EACH}", reason=f"ValueError: {world.canary}", traceback=world.canary, deliveries=1,
    )  # fmt: skip
    redis, live = resources.derived_redis, GraphKeys(partition).tag
    async for key in redis.scan_iter(match=f"{live}:*", count=1000):
        await redis.copy(key, key.decode().replace(live, GraphKeys(partition, LEFT_BEHIND).tag, 1))
    await redis.config_set("rdbcompression", "no")
    await redis.bgsave()
    return "kept"


async def derived(resources: Resources, partition: Partition) -> State:
    """What the stages make of the ledger; what a consolidation remembers of its own is not among it."""
    state = await graph_state(resources.derived_redis, partition)
    return {key: value for key, value in state.items() if not key.startswith(("consolidated:", "episodes:"))}


async def rebuilt(resources: Resources, partition: Partition) -> State:
    """The derived side emptied and made again from the first event on."""
    redis = resources.derived_redis
    async for key in redis.scan_iter(match=f"cg:{partition.tag}:g*"):
        await redis.delete(key)
    for stage in STAGES:
        await resources.ledger_redis.xgroup_destroy(PartitionKeys(partition).ledger, stage.group)
    await passed(resources, partition)
    return await derived(resources, partition)


async def passed(resources: Resources, partition: Partition) -> None:
    """Every stage is through with everything."""
    last = await resources.ledger.last(partition)
    assert last is not None

    async def all_passed() -> bool:
        states = [await resources.groups.state(partition, stage.group) for stage in STAGES]
        return all(state.has_passed(last) for state in states)

    await until(all_passed, seconds=60)


async def assert_others_untouched(world: World, http: httpx2.AsyncClient) -> None:
    for posted in said(world):
        read = (await http.get(f"/v1/events/{posted['event_id']}")).json()
        if posted["user_id"] == world.person:
            assert read["erased"] is True
            assert not {"payload", "user_id"} & read.keys()
        else:
            assert (read["payload"], read["user_id"]) == (posted["payload"], posted["user_id"])
    for place in (0, ERASED - 1, ERASED + 10, PEOPLE - 1):  # two of them in the erased one's session or beside it
        assert len(await found(http, f"parcel{place:02d}x")) >= EACH
    assert await found(http, world.canary) == []
    assert (await http.post("/v1/events", json=event(950, user_id=world.person))).json()["code"] == "user-erased"


async def test_one_of_fifty_is_erased_from_everything_and_stays_so_through_rebuild_and_restore(world: World) -> None:
    async with own_service(world.settings) as (http, resources):
        partition = (await resources.tenants.ensure("acme", 1)).partitions[0]
        key = await quoted_everywhere(world, http, resources, partition)
        assert "archived in 3 segments" in await archive_command(world, "run")
        tag = await resources.vault.tag_of(partition, Subject("user", world.person))
        assert world.canary.encode() in await everything(resources.ledger_redis)
        assert world.canary.encode() in world.on_disk()["redis"]
        assert any(tag.encode() in data for name, data in world.on_disk().items() if name.endswith(".keys"))

        answer = await http.delete(f"/v1/users/{world.person}?wait_ms=60000")

        certificate = answer.json()
        assert (answer.status_code, certificate["state"]) == (200, "done"), answer.text
        assert certificate["scanned"]["generations"] == 2
        assert certificate["scanned"]["archived_key_files"] == 3
        assert certificate["removed"]["archived_keys"] >= 1
        assert certificate["removed"]["dead_letters"] == certificate["removed"]["kept_explanations"] == 1
        assert "append-only file written anew; snapshot written anew" in certificate["files"]["ledger"]
        await world.assert_gone(resources)
        assert not any(tag.encode() in data for name, data in world.on_disk().items() if name.endswith(".keys"))
        odd = event(900, event_type="parcel.state", user_id=world.person, payload={"state": world.canary})
        repeated = await http.post("/v1/events", json=odd, headers={"Idempotency-Key": key})
        assert (repeated.status_code, repeated.headers["Idempotency-Replayed"]) == (201, "true")
        assert world.canary not in repeated.text
        await assert_others_untouched(world, http)

        left = await derived(resources, partition)
        assert await rebuilt(resources, partition) == left
        await world.assert_gone(resources)
        await archive_command(world, "run")  # the tombstone and what came after

    async with open_resources(world.settings) as resources:
        await resources.ledger_redis.flushall()
    assert "erased and kept so: 1" in await archive_command(world, "restore")
    async with own_service(world.settings) as (http, resources):
        await passed(resources, partition)
        await assert_others_untouched(world, http)
        assert await derived(resources, partition) == left
        await world.assert_gone(resources)
        assert "Nothing is wrong." in await archive_command(world, "verify")
